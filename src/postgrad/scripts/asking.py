"""Who edits, where a task of kind `script` names language models or a program: one question, one edit.

What comes of nothing is the playbook's. A crash that looks as if an edit could mend it goes back to a model as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Iterable, Sequence

from postgrad.memory.effects import FAILED_EFFECT
from postgrad.records import Choice, Failure, Move, Proposal, ResearcherSpec, Sketch, TaskSpec
from postgrad.research.asking import Asker, Proposer, usd_left
from postgrad.research.assemble import SCRATCH, proposers_of, timeout_s
from postgrad.research.base import Researcher
from postgrad.research.brief import Brief
from postgrad.research.command import NAME, Program
from postgrad.research.ideas import Ask
from postgrad.research.learning import effect_of
from postgrad.research.proposers import ANSWERED, PLAYBOOK, drawn, records
from postgrad.research.schema import held, named_in
from postgrad.scripts.agent import Agent
from postgrad.scripts.protect import Rules
from postgrad.scripts.reading import PATCH
from postgrad.scripts.replies import EditReading, Reply
from postgrad.scripts.researcher import ScriptResearcher
from postgrad.scripts.session import ScriptSession
from postgrad.scripts.telling import Subject, brief
from postgrad.search import legal
from postgrad.tree import State, Tree

FORMAT = 1
# In a row, whatever the policy would allow.
MOST_REPAIRS, REPAIRS = 2, "max_repairs"
# The largest effect of a run counts as so much to whoever draws the proposers.
LARGE = 0.1
# The last line of a crash that an edit may mend.
_FIXABLE = re.compile(
    r"^(?:[\w.]+\.)?(?:SyntaxError|IndentationError|TabError|NameError|UnboundLocalError|TypeError|AttributeError|"
    r"ImportError|ModuleNotFoundError|KeyError|IndexError|ValueError|AssertionError|ZeroDivisionError|RuntimeError|"
    r"UnicodeDecodeError|UnicodeEncodeError|FileNotFoundError|FileExistsError)\b",
    re.MULTILINE,
)
SYSTEM = """You are the researcher of Postgrad, which improves a training script by experiments. You are told the \
rules, the files as they are, what was tried and what came of it, and you make one change that you expect to help. A \
referee that you cannot reach runs it, measures and decides.

Reply with one JSON object: {"hypothesis": ..., "expected_effect": ..., "refuted_by": ..., "evidence": [...], "edit": \
...}. `edit` is {"patch": "a unified diff, with paths a/FILE and b/FILE"} or {"path": "FILE", "content": "the whole \
new file"}. Where the file was not quoted in full, or is long, send a patch. Quoted lines begin with "| ", which is no \
part of the file. `expected_effect` is the change of the metric that you expect, in its own sign."""


@dataclass(frozen=True)
class EditQuestion:
    """The question for one edit."""

    ask: Ask
    subject: Subject
    session: ScriptSession
    brief: Brief
    slot: str
    usd: float | None
    by_program: bool

    @property
    def number(self) -> int:
        """Of the experiment that it is asked for."""
        return self.ask.context.index

    @property
    def system(self) -> str:
        """Who a model is, and how it is to reply."""
        return SYSTEM

    def schema(self, spec: ResearcherSpec) -> dict[str, Any]:
        """The JSON schema of a model's reply."""
        schema = Reply.model_json_schema()
        held(schema["properties"], "evidence", named_in(self.brief, self.ask))
        return schema

    def context(self, spec: ResearcherSpec) -> dict[str, object]:
        """What an agent gets."""
        node, script = self.subject.node, self.subject.script
        return {
            "format": FORMAT,
            "question": self.slot,
            "task": {
                "name": self.ask.task.name,
                "objective": self.ask.task.objective,
                "metric": script.metric,
                "direction": script.direction,
                "time_s": script.time_s,
            },
            "parent": {
                "id": node.id,
                "score": None if node.score is None else self.subject.sign * node.score,
                "commit": self.subject.commit,
            },
            "mends": self.subject.mends,
            "editable": self.subject.editable,
            "text": self.brief.text,
            "brief": self.brief.model_dump(mode="json"),
        }

    def reading(self) -> EditReading:
        """A new reading of its replies."""
        return EditReading(self.ask, self.subject, self.session, self.by_program)


class ScriptAsking(Asker):
    """The researcher of a script that asks."""

    def __init__(
        self, proposers: Sequence[Proposer], spec: ResearcherSpec, session: ScriptSession, playbook: ScriptResearcher
    ) -> None:
        super().__init__(proposers, spec, playbook)
        self._session, self._playbook = session, playbook

    def _answers(self, ask: Ask) -> bool:
        if ask.context.barred(PATCH) or self._playbook.control_is_due(ask.context):
            return False
        return ask.choice.move in ANSWERED and ask.choice.move is not Move.ABLATE or self._mends(ask)

    def _mends(self, ask: Ask) -> bool:
        """Whether a crash is to be mended that an edit may mend."""
        node = ask.tree.experiments.get(ask.choice.parent or "")
        if ask.choice.move is not Move.REPAIR or node is None or node.failure is None:
            return False
        return fixable(node.failure) and legal.repairs(ask.tree, node) < MOST_REPAIRS

    def _drawn(self, ask: Ask) -> str:
        """Who answers; a crash is mended by whoever caused it, or by another one who edits."""
        if not self._mends(ask):
            return super()._drawn(ask)
        found = records(ask.tree, tuple(self.proposers), self._unit(ask))
        able = self._able(ask, found)
        cause = ask.tree[ask.choice.parent or ""].proposed.proposal.proposer
        if not able:
            return PLAYBOOK
        return cause if cause in able else drawn(found, able, ask.context.rng)

    def _unit(self, ask: Ask) -> float:
        """Metrics of scripts are on any scale: the largest effect of the run is a large one."""
        effects = [seen[0] for node in ask.tree.all() if (seen := effect_of(node, ask.tree)) is not None]
        return max((abs(one) for one in effects if one != FAILED_EFFECT), default=LARGE) / LARGE or 1.0

    def _question(self, ask: Ask, name: str) -> EditQuestion:
        session, mends = self._session, self._mends(ask)
        subject = subject_of(session, self._playbook, ask, mends)
        return EditQuestion(
            ask=ask,
            subject=subject,
            session=session,
            brief=brief(ask, subject, session.workspace, self.spec.context_tokens),
            slot=f"e{ask.context.index:04d} {subject.node.id} {name}",
            usd=usd_left(ask),
            by_program=self.spec.kind == NAME,
        )

    def _proposal(self, ask: Ask, name: str, sketch: Sketch) -> Proposal:
        made = super()._proposal(ask, name, sketch)
        if not self._mends(ask) or made.carried_out is None:
            return made
        mended = Choice(parent=sketch.parent, move=Move.REPAIR, reason=ask.choice.reason, kinds=sketch.kinds)
        return made.model_copy(update={"carried_out": mended})


def subject_of(session: ScriptSession, playbook: ScriptResearcher, ask: Ask, mends: bool) -> Subject:
    """What whoever answers a choice is to change: the files of an experiment; of one that crashed to be mended."""
    base = playbook.base(ask.choice, ask.tree)
    node = ask.tree[ask.choice.parent or ""] if mends else base
    leader = ask.tree.leader() or base
    prepared = session.prepared
    assert prepared is not None and prepared.script is not None, "the repository is there before it is changed"
    return Subject(
        node=node,
        commit=playbook.commit_of(node),
        leader=(leader, playbook.commit_of(leader)),
        script=session.script,
        sign=session.scripts.sign,
        editable=prepared.script.editable,
        mends=mends,
    )


def repairs_of(task: TaskSpec, known: Iterable[str]) -> dict[str, int]:
    """How often in a row a policy asks for a repair, as one of its settings, where somebody edits a script who can
    repair it; nothing for other tasks, and for a policy without that setting."""
    asks = task.script is not None and isinstance(task.researcher, ResearcherSpec)
    return {REPAIRS: MOST_REPAIRS} if asks and REPAIRS in known else {}


def repaired_first(choice: Choice, tree: Tree, most: int) -> Choice:
    """The choice; where a policy wants a new start, which a script does not have, and the last experiment crashed so
    that an edit may mend it, the repair of that one. An earlier one is not asked for again.

    Args:
        most: repairs in a row.
    """
    last = next((node for node in reversed(tree.all()) if node.state is not State.PENDING), None)
    if choice.move is not Move.DRAFT or last is None or last.failure is None or not fixable(last.failure):
        return choice
    able = any(node.id == last.id for node in legal.repairable(tree, min(most, MOST_REPAIRS)))
    return legal.repair(last) if able else choice


def fixable(failure: Failure) -> bool:
    """True for a crash of the script whose last lines name an error that an edit may mend."""
    return (failure.boundary, failure.kind) == ("train", "crash") and bool(_FIXABLE.search(failure.evidence))


def editor_of(session: ScriptSession) -> Researcher:
    """Who edits in a run: whom the task names, and the playbook.

    Raises:
        UserError: a key, a library, a price or a program is missing.
    """
    playbook, spec, task = ScriptResearcher(session), session.task.researcher, session.task
    if not isinstance(spec, ResearcherSpec):
        return playbook
    folder = session.store.folder
    program: Program = Agent(
        spec.command,
        folder / SCRATCH,
        timeout_s(task, spec),
        spec.env,
        session=session,
        rules=Rules(session.script.editable, session.script.protected),
    )
    return ScriptAsking(proposers_of(task, spec, folder, program), spec, session, playbook)
