"""Who edits without a language model: constants of the script tuned as typed numbers, and small safe edits.

A proposal is a commit on what it changes. Constants and edits compete by what each has brought so far (Thompson
sampling, as the playbook weighs its moves); an edit is tried once on the same files.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Iterator, Mapping

from postgrad.records import Choice, Move, Proposal, Recipe, Stage, TaskSpec
from postgrad.research.base import Context
from postgrad.research.learning import Belief, effect_of
from postgrad.research.proposers import PLAYBOOK
from postgrad.scripts.constants import constants, values_of
from postgrad.scripts.edits import edits_for
from postgrad.scripts.paths import EditRefused
from postgrad.scripts.reading import CONSTANT, constants_of, sources
from postgrad.scripts.session import ScriptSession, tree_of
from postgrad.scripts.tuning import Tried, Values, applied, next_setting
from postgrad.tree import Experiment, State, Tree

EDIT, ABLATE, SAME, CONTROL = "edit", "ablate", "replicate.seed", "replicate.control"
WHY_AGAIN = {
    SAME: "Nothing new is left to change.",
    CONTROL: "Experiments that share a machine disturb each other: what leads is measured among them again.",
}
# Settings of one file that are looked at for one that was not tried.
ONWARDS = 4
# What a failure counts as, where the largest effect of the run is 1.
FAILED = -0.3
# With several workers, one experiment of so many is such a control.
EVERY = 10


@dataclass(frozen=True)
class Idea:
    """One change of the files.

    Attributes:
        kind: "<group>.<name>"; what is learnt about the change is learnt under its group.
        files: path -> new content.
    """

    kind: str
    change: str
    why: str
    refuted_by: str
    files: Mapping[str, bytes | None]
    gain: float = 0.0


class ScriptResearcher:
    """The researcher of a script."""

    def __init__(self, session: ScriptSession) -> None:
        self.session = session
        self._values: dict[tuple[str, ...], Values] = {}

    def propose(self, task: TaskSpec, choice: Choice, context: Context) -> Proposal:
        """A change of the experiment that the choice names, or of what leads; of the source where there is neither.

        Where nothing new is left, the same files once more with another seed.
        """
        base = self.base(choice, context.tree)
        if self.control_is_due(context):
            return self._again(task, choice, context.tree.leader() or base, context, CONTROL)
        first = self._without(base) if choice.move is Move.ABLATE else ()
        for idea in chain(first, self._ideas(base, context)):
            if context.barred(idea.kind):  # Turned away one by one, the ideas of a closed group would use up all tries.
                continue
            recipe = self._recipe(base, idea, context)
            if recipe is not None and context.admit(recipe) is not None:
                return self._proposal(task, choice, base, idea, recipe)
        return self._again(task, choice, base, context, SAME)

    def control_is_due(self, context: Context) -> bool:
        """Where several experiments share the machine, each takes something from the others, and not always the same:
        now and then what leads is run once more among them."""
        slots = self.session.executor.engine.slots
        return slots > 1 and context.index % EVERY == EVERY - 1

    def _again(self, task: TaskSpec, choice: Choice, base: Experiment, context: Context, kind: str) -> Proposal:
        why = WHY_AGAIN[kind]
        idea = Idea(kind, "the same files with another seed", why, "nothing: it measures", {})
        made = self._proposal(task, choice, base, idea, base.proposed.proposal.recipe)
        carried = Choice(parent=base.id, move=Move.REPLICATE, reason=choice.reason)
        seed = 1 + max(node.proposed.proposal.seed for node in context.tree.all())
        return made.model_copy(update={"seed": seed, "carried_out": carried})

    def base(self, choice: Choice, tree: Tree) -> Experiment:
        """What is changed: never a failed experiment, whose own parent ran."""
        node = tree.experiments.get(choice.parent or "") or tree.leader() or tree.all()[0]
        while node.score is None and node.parent is not None:
            node = tree[node.parent]
        return node

    def _without(self, base: Experiment) -> Iterator[Idea]:
        """An experiment less one change of those that led to it: a stack of kept changes holds some that do nothing."""
        workspace, tree = self.session.workspace, self.session.tree
        steps = [node for node in tree.path(base.id) if node.parent is not None]
        for node in reversed(steps[:-1]):
            assert node.parent is not None
            before, after = self.commit_of(tree[node.parent]), self.commit_of(node)
            if before == after:
                continue
            with suppress(EditRefused):
                yield Idea(
                    kind=f"{ABLATE}.{node.id}",
                    change=f"without the change of {node.id}: {node.proposed.proposal.change}",
                    why="A change that does nothing makes the files larger; equal within noise, the smaller ones win.",
                    refuted_by="the score is worse without it",
                    files=workspace.apply(self.commit_of(base), workspace.diff(after, before)),
                )

    # --- ideas ------------------------------------------------------------------------------------------------------

    def _ideas(self, base: Experiment, context: Context) -> Iterator[Idea]:
        """Changes in the order in which they are worth trying now."""
        groups = {CONSTANT: self._constants, EDIT: self._edits}
        drawn = {name: belief_of(name, context.tree).draw(context.rng) for name in groups}
        for name in sorted(groups, key=lambda name: -drawn[name]):
            yield from groups[name](base, context)
        yield from self._edits(base, context, again=True)

    def _constants(self, base: Experiment, context: Context) -> Iterator[Idea]:
        """The next numbers of each editable Python file, by what all experiments scored with theirs."""
        sources = dict(self._sources(base))
        for path, source in sources.items():
            found = constants_of(self.session.versions, _tree(base), path, source)
            # What people closed is not moved, alone or beside others.
            free = [one for one in found if not context.barred(f"{CONSTANT}.{one.name}")]
            tried = [self._tried(node, path) for node in context.tree.all() if _moves_numbers(node)]
            for _ in range(ONWARDS):
                setting = next_setting(free, tried, "max", context.rng.getrandbits(31))
                if setting is None:
                    break
                yield Idea(
                    kind=f"{CONSTANT}.{next(iter(setting.values))}",
                    change=setting.words,
                    why=f"Numbers of {path} by what was scored so far: {setting.why}.",
                    refuted_by="the score is no better than before",
                    files={path: applied(source, found, setting).encode()},
                )
                # Somebody else than the tuner tried these files: on to its next numbers.
                tried = [*tried, Tried(values={**values_of(found), **setting.values}, pending=True)]

    def _tried(self, node: Experiment, path: str) -> Tried:
        """What its numbers of a file were, and what it scored. The same text beside the same texts is read once."""
        versions = self.session.versions
        blobs = versions.beside(_tree(node), path)
        if blobs and (path, *blobs) not in self._values:
            text, *others = versions.texts(blobs)
            self._values[path, *blobs] = values_of(constants(path, text, tuple(others)))
        known = self._values.get((path, *blobs), {})
        return Tried(values=known, score=node.foreseen, pending=node.state is State.PENDING)

    def _sources(self, base: Experiment) -> Iterator[tuple[str, str]]:
        """The editable Python files of an experiment."""
        prepared = self.session.prepared
        assert prepared is not None and prepared.script is not None, "the repository is there before it is changed"
        return sources(self.session.versions, _tree(base), prepared.script.editable)

    def _edits(self, base: Experiment, context: Context, again: bool = False) -> Iterator[Idea]:
        """Small safe edits that apply to the files as they are, in their usual order, none that takes a step towards
        them back: that is for paring.

        Args:
            again: those that were tried in this run, those that did harm last; else the others. On other files an edit
                may do something else, but what was never tried says more.
        """
        tried = {node.proposed.proposal.kind for node in context.tree.all()}
        harm = {node.proposed.proposal.kind for node in context.tree.all() if _harmed(node, context.tree)}
        found = [(path, source, edit) for path, source in self._sources(base) for edit in edits_for(source)]
        steps = list(self._steps(base, context.tree))
        for path, source, edit in sorted(found, key=lambda each: each[2].kind in harm):
            if (edit.kind in tried) is not again or not edit.applies(source):
                continue
            if not any(edit.applies(after) and edit.apply(after) == before for before, after in steps):
                yield Idea(edit.kind, edit.words, edit.why, edit.refuted_by, {path: edit.apply(source).encode()})

    def _steps(self, base: Experiment, tree: Tree) -> Iterator[tuple[str, str]]:
        """The text of a file before and after each step that led to an experiment."""
        for node in tree.path(base.id):
            if node.parent is not None:
                before = dict(self._sources(tree[node.parent]))
                yield from ((before[path], after) for path, after in self._sources(node) if path in before)

    def _recipe(self, base: Experiment, idea: Idea, context: Context) -> Recipe | None:
        """The files with an idea as a commit; None where they were tried, or it changes nothing."""
        workspace = self.session.workspace
        parent = self.commit_of(base)
        commit = workspace.commit(f"e{context.index:04d}", parent, idea.files, f"{idea.kind}: {idea.change}")
        tree = workspace.tree_of(commit)
        recipe = Recipe(stage=Stage(backend="script", params={"tree": tree}))
        is_new = tree != workspace.tree_of(workspace.baseline) and not context.tree.has_tried(recipe)
        return recipe if is_new else None

    def commit_of(self, node: Experiment) -> str:
        """The commit of an experiment: its own, or that of the first one with its files."""
        commits, workspace = self.session.workspace.commits(), self.session.workspace
        tree = _tree(node)
        if not tree:
            return workspace.baseline
        if node.id in commits and workspace.tree_of(commits[node.id]) == tree:
            return commits[node.id]
        first = self.session.tree.first_with(node.proposed.proposal.recipe)
        assert first is not None, "an experiment has its own recipe"
        return commits[first.id]

    def _proposal(self, task: TaskSpec, choice: Choice, base: Experiment, idea: Idea, recipe: Recipe) -> Proposal:
        return Proposal(
            recipe=recipe,
            kind=idea.kind,
            hypothesis=idea.why,
            change=idea.change,
            expected_effect=idea.gain,
            refuted_by=idea.refuted_by,
            proposer=PLAYBOOK,
            seed=task.seed,
            carried_out=Choice(parent=base.id, move=Move.IMPROVE, reason=choice.reason, kinds=(idea.kind,)),
        )


def _tree(node: Experiment) -> str:
    return tree_of(node.proposed.proposal.recipe)


def _moves_numbers(node: Experiment) -> bool:
    """True for the source and for experiments that moved its numbers: edits make it another script."""
    return node.parent is None or node.proposed.proposal.kind.startswith(f"{CONSTANT}.")


def _harmed(node: Experiment, tree: Tree) -> bool:
    seen = effect_of(node, tree)
    return seen is not None and seen[0] < 0


def belief_of(group: str, tree: Tree) -> Belief:
    """What a change of this group brings, in units of the largest effect of the run: metrics of scripts are on any
    scale, and a failure is as bad on each."""
    nodes = [node for node in tree.all() if node.proposed.proposal.proposer == PLAYBOOK]
    effects = [(node, effect_of(node, tree)) for node in nodes]
    seen = [(node, effect[0]) for node, effect in effects if effect is not None]
    scale = max((abs(value) for node, value in seen if node.failure is None), default=0.0) or 1.0
    found = Belief(0.0, 0.3)
    for node, value in seen:
        if (node.proposed.proposal.kind.partition(".")[0] == CONSTANT) == (group == CONSTANT):
            found = found.updated(value / scale if node.failure is None else FAILED, 0.25)
    return found
