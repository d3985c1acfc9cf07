"""A researcher that asks others: language models, or a program. Where nothing comes of it, the playbook proposes.

One question gives several sketches. The first that is still new is tried, the others are kept: in the event of the
experiment that began with the question, so that a run that goes on, or is replayed, asks nothing twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterator, Protocol, Sequence

from postgrad.records import Asked, Choice, Move, Proposal, ResearcherSpec, Sketch, TaskSpec
from postgrad.research.base import Context, Researcher
from postgrad.research.brief import Brief
from postgrad.research.context import brief
from postgrad.research.ideas import Ask
from postgrad.research.menu import Item, moves
from postgrad.research.playbook import Playbook
from postgrad.research.proposers import ANSWERED, PLAYBOOK, admitted, drawn, records
from postgrad.research.tally import tally

NOTES, NOTE = 12, 300


@dataclass(frozen=True)
class Question:
    """What a proposer is asked.

    Attributes:
        slot: names the question within its run: a run that was killed asks it under the same name again.
        most: proposals that are wanted.
        usd: dollars that may be spent on it; None where they are not counted.
    """

    ask: Ask
    brief: Brief
    menu: Sequence[Item]
    slot: str
    most: int
    usd: float | None


class Proposer(Protocol):
    """Somebody who can be asked. Raises nothing: what went wrong is in the answer."""

    @property
    def name(self) -> str:
        """What its proposals are signed with."""
        ...

    def can_pay(self, usd: float | None) -> bool:
        """False where so many dollars may not be enough for one question."""
        ...

    def answer(self, question: Question) -> Asked:
        """Ask, and check what comes back."""
        ...


class Asking:
    """The researcher.

    Args:
        proposers: with different names.
        fallback: who proposes where nobody else does.
    """

    def __init__(self, proposers: Sequence[Proposer], spec: ResearcherSpec, fallback: Researcher | None = None) -> None:
        self.proposers = {proposer.name: proposer for proposer in proposers}
        self.spec = spec
        self.fallback: Researcher = fallback or Playbook()
        # A question whose proposal was not taken is asked again under its name: it is answered from here.
        self._told: dict[str, Asked] = {}

    def propose(self, task: TaskSpec, choice: Choice, context: Context) -> Proposal:
        """Answer a choice. Where its move is nobody else's, or nothing comes of asking, the fallback does."""
        return self.guide(task, choice, context, lambda: self.fallback.propose(task, choice, context))

    def guide(self, task: TaskSpec, choice: Choice, context: Context, otherwise: Callable[[], Proposal]) -> Proposal:
        """The same, with another fallback: what a policy names itself."""
        ask = Ask(task, choice, context)
        if choice.move not in ANSWERED or (choice.parent is not None and ask.parent is None):
            return otherwise()
        name = self._drawn(ask)
        if name == PLAYBOOK:
            return otherwise()
        kept = next(_kept(ask, name), None)
        if kept is not None:
            return _proposal(ask, name, kept)
        menu = moves(ask, tally(ask.tree).kinds)
        if ask.parent is None and not menu:
            return otherwise()
        question = self._question(ask, name, menu)
        asked = self._told.get(question.slot) or self.proposers[name].answer(question)
        self._told = {question.slot: asked}
        if asked.sketches:
            return _proposal(ask, name, asked.sketches[0]).model_copy(update={"asked": asked})
        return otherwise().model_copy(update={"asked": asked})

    def _drawn(self, ask: Ask) -> str:
        """Who answers; who rests, or cannot be paid, does not."""
        left = ask.context.remaining.usd if ask.context.remaining else None
        found = records(ask.tree, tuple(self.proposers))
        able = [
            name
            for name, proposer in self.proposers.items()
            if not found[name].rests and (next(_kept(ask, name), None) is not None or proposer.can_pay(left))
        ]
        if not able:
            return PLAYBOOK
        if self.spec.alone:
            return drawn(found, able, ask.context.rng)
        return drawn(found, [*admitted(found, able), PLAYBOOK], ask.context.rng)

    def _question(self, ask: Ask, name: str, menu: Sequence[Item]) -> Question:
        return Question(
            ask=ask,
            brief=brief(ask, self.spec.context_tokens, self.spec.examples),
            menu=menu,
            slot=f"e{ask.context.index:04d} {ask.parent.id if ask.parent else '-'} {name}",
            most=self.spec.proposals,
            usd=ask.context.remaining.usd if ask.context.remaining else None,
        )


def noted(problems: Sequence[str]) -> tuple[str, ...]:
    """Problems as the log keeps them: some of them, and short."""
    more = (f"and {len(problems) - NOTES} more",) if len(problems) > NOTES else ()
    return (*(problem[:NOTE] for problem in problems[:NOTES]), *more)


def _kept(ask: Ask, name: str) -> Iterator[Sketch]:
    """Sketches of a proposer for this parent that are new, wanted and can be paid, the newest question's first."""
    parent = ask.parent.id if ask.parent else None
    for node in reversed(ask.tree.all()):
        asked = node.proposed.proposal.asked
        if asked is None or asked.proposer != name:
            continue
        for sketch in asked.sketches:
            is_open = sketch.parent == parent and ask.tried.repeat(sketch.recipe) is None
            is_barred = any(map(ask.context.barred, (sketch.kind, *sketch.kinds)))
            found = ask.fresh(sketch.recipe) if is_open and not is_barred else None
            if found is not None:
                yield sketch.model_copy(update={"recipe": found})


def _proposal(ask: Ask, name: str, sketch: Sketch) -> Proposal:
    """A sketch as a proposal. It says which choice it carries out: changes of a parent are an improvement of it."""
    move = Move.DRAFT if sketch.parent is None else Move.IMPROVE
    return Proposal(
        recipe=sketch.recipe,
        kind=sketch.kind,
        hypothesis=sketch.hypothesis,
        change=sketch.change,
        expected_effect=sketch.expected_effect,
        refuted_by=sketch.refuted_by,
        proposer=name,
        seed=ask.task.seed,
        carried_out=Choice(
            parent=sketch.parent, move=move, reason=ask.choice.reason, kinds=sketch.kinds, gain=sketch.expected_effect
        ),
        evidence=sketch.evidence,
    )
