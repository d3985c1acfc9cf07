"""A researcher that asks others: language models, or a program. Where nothing comes of it, the playbook proposes.

One question gives several sketches. The first that is still new is tried, the others are kept: in the event of the
experiment that began with the question, so that a run that goes on, or is replayed, asks nothing twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Callable, Iterator, Mapping, Protocol, Sequence

from postgrad.records import Asked, Choice, Move, Proposal, ResearcherSpec, Sketch, TaskSpec
from postgrad.research.base import Context, Researcher
from postgrad.research.context import brief
from postgrad.research.ideas import Ask
from postgrad.research.menu import moves
from postgrad.research.playbook import Playbook
from postgrad.research.proposers import ANSWERED, PLAYBOOK, Record, admitted, drawn, records
from postgrad.research.questions import Question
from postgrad.research.recipe_question import RecipeQuestion
from postgrad.research.tally import tally

NOTES, NOTE = 12, 300


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


class Asker(ABC):
    """A researcher that asks, whatever is changed.

    Args:
        proposers: with different names.
        fallback: who proposes where nobody else does.
    """

    def __init__(self, proposers: Sequence[Proposer], spec: ResearcherSpec, fallback: Researcher) -> None:
        self.proposers = {proposer.name: proposer for proposer in proposers}
        self.spec = spec
        self.fallback = fallback
        # A question whose proposal was not taken is asked again under its name: it is answered from here.
        self._told: dict[str, Asked] = {}

    def propose(self, task: TaskSpec, choice: Choice, context: Context) -> Proposal:
        """Answer a choice. Where its move is nobody else's, or nothing comes of asking, the fallback does."""
        return self.guide(task, choice, context, lambda: self.fallback.propose(task, choice, context))

    def guide(self, task: TaskSpec, choice: Choice, context: Context, otherwise: Callable[[], Proposal]) -> Proposal:
        """The same, with another fallback: what a policy names itself."""
        ask = Ask(task, choice, context)
        name = self._drawn(ask) if self._answers(ask) else PLAYBOOK
        if name == PLAYBOOK:
            return otherwise()
        if (kept := self._kept(ask, name)) is not None:
            return self._proposal(ask, name, kept)
        question = self._question(ask, name)
        if question is None:
            return otherwise()
        asked = self._told.get(question.slot) or self.proposers[name].answer(question)
        self._told = {question.slot: asked}
        if asked.sketches:
            return self._proposal(ask, name, asked.sketches[0]).model_copy(update={"asked": asked})
        return otherwise().model_copy(update={"asked": asked})

    @abstractmethod
    def _answers(self, ask: Ask) -> bool:
        """Whether anybody else than the fallback may answer."""

    @abstractmethod
    def _question(self, ask: Ask, name: str) -> Question | None:
        """What this proposer is asked; None where there is nothing to ask."""

    def _kept(self, ask: Ask, name: str) -> Sketch | None:
        """What this proposer said before and that is still to be tried."""
        return None

    def _able(self, ask: Ask, found: Mapping[str, Record]) -> list[str]:
        """Who may be asked now; who rests, or cannot be paid, may not."""
        left = usd_left(ask)
        return [
            name
            for name, proposer in self.proposers.items()
            if not found[name].rests and (self._kept(ask, name) is not None or proposer.can_pay(left))
        ]

    def _drawn(self, ask: Ask) -> str:
        """Who answers."""
        found = records(ask.tree, tuple(self.proposers), self._unit(ask))
        able = self._able(ask, found)
        if not able:
            return PLAYBOOK
        if self.spec.alone:
            return drawn(found, able, ask.context.rng)
        return drawn(found, [*admitted(found, able), PLAYBOOK], ask.context.rng)

    def _unit(self, ask: Ask) -> float:
        """What an effect of 1 is, in what scores are counted in."""
        return 1.0

    def _slot(self, ask: Ask, name: str) -> str:
        return f"e{ask.context.index:04d} {ask.parent.id if ask.parent else '-'} {name}"

    def _proposal(self, ask: Ask, name: str, sketch: Sketch) -> Proposal:
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
                parent=sketch.parent,
                move=move,
                reason=ask.choice.reason,
                kinds=sketch.kinds,
                gain=sketch.expected_effect,
            ),
            evidence=sketch.evidence,
        )


class Asking(Asker):
    """The researcher of recipes."""

    def __init__(self, proposers: Sequence[Proposer], spec: ResearcherSpec, fallback: Researcher | None = None) -> None:
        super().__init__(proposers, spec, fallback or Playbook())

    def _answers(self, ask: Ask) -> bool:
        return ask.choice.move in ANSWERED and (ask.choice.parent is None or ask.parent is not None)

    def _kept(self, ask: Ask, name: str) -> Sketch | None:
        return next(_open_sketches(ask, name), None)

    def _question(self, ask: Ask, name: str) -> Question | None:
        menu = moves(ask, tally(ask.tree).kinds)
        if ask.parent is None and not menu:
            return None
        return RecipeQuestion(
            ask=ask,
            brief=brief(ask, self.spec.context_tokens, self.spec.examples),
            menu=menu,
            slot=self._slot(ask, name),
            most=self.spec.proposals,
            usd=usd_left(ask),
        )


def usd_left(ask: Ask) -> float | None:
    """Dollars that are left; None where they are not counted."""
    return ask.context.remaining.usd if ask.context.remaining else None


def noted(problems: Sequence[str]) -> tuple[str, ...]:
    """Problems as the log keeps them: some of them, and short."""
    more = (f"and {len(problems) - NOTES} more",) if len(problems) > NOTES else ()
    return (*(problem[:NOTE] for problem in problems[:NOTES]), *more)


def _open_sketches(ask: Ask, name: str) -> Iterator[Sketch]:
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
