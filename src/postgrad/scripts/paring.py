"""The changes of a script's files, for paring. An edit on the champion's path is taken back as a patch; a constant that
was moved, however often, is set to what it was before."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt
from typing import Iterator, NamedTuple, Sequence

from postgrad.evaluate.statistics.judge import Judge
from postgrad.records import Recipe, Stage
from postgrad.research.ablations import BROUGHT_NOTHING, Ablation
from postgrad.scripts.constants import Constant, constants, values_of
from postgrad.scripts.reading import CONSTANT, PATCH, constants_of, sources
from postgrad.scripts.session import ScriptSession, tree_of
from postgrad.scripts.splice import Change, spliced
from postgrad.tree import Experiment, Tree

#: Twice as many changed lines have to gain so much, in the run's unit, and a change that stays as much.
PRICE_OF_LINES = 0.002
# A change is doubted unless it is believed to bring more than its price with 95 %.
SURE = 1.645
LONGEST_CHANGE = 200


class Left(NamedTuple):
    """The tree of the champion's files without one change, what to call it, and who brought it."""

    tree: str
    what: str
    change: str
    node: Experiment


Step = tuple[Experiment, Experiment]


def _order(left: Left) -> int:
    return left.node.index


def _is_number(node: Experiment) -> bool:
    return node.proposed.proposal.kind.startswith(f"{CONSTANT}.")


def _word(kind: str) -> str:
    """A kind of edit in a word; of a patch, the file."""
    return kind.removeprefix(f"{PATCH}.") if kind.startswith(f"{PATCH}.") else kind.rpartition(".")[2]


def _put_back(source: str, now: Constant, was: Constant, beside: tuple[str, ...]) -> str | None:
    """A text with a constant as it was written once, so that equal numbers are equal files; None where it cannot stand
    there any more."""
    text = spliced(source, [Change(now.start, now.end, was.text)])
    again = {one.name: one.value for one in constants(now.path, text, beside)}
    return text if again.get(now.name) == was.value else None


class ScriptChanges:
    """The changes of a script, with the judge's belief (see `research.changes.Changes`)."""

    def __init__(self, session: ScriptSession, judge: Judge) -> None:
        self._session, self._judge = session, judge
        self._without: dict[tuple[str, str, str], str | None] = {}
        self._known: dict[str, dict[str, tuple[Constant, ...]]] = {}

    @property
    def price(self) -> float:
        return PRICE_OF_LINES * self._judge.unit

    def limit(self, champion: str, other: str) -> float:
        """A version has to measure as well as the champion: what a line costs is little beside a gain that is lost."""
        return self.price

    def same(self, recipe: Recipe) -> str | None:
        return self._tree(recipe)

    def ablations(self, path: Sequence[Experiment]) -> tuple[Ablation, ...]:
        own = self._tree(path[-1].proposed.proposal.recipe)
        found: dict[str, Ablation] = {}
        for left, what, change, node in sorted([*self._edits(path, own), *self._constants(path, own)], key=_order):
            if left != own:
                found.setdefault(left, Ablation(what, change, self._recipe(left), node.id))
        return tuple(found.values())

    def _edits(self, path: Sequence[Experiment], own: str) -> Iterator[Left]:
        for above, node in pairwise(path):
            before, after = (self._tree(each.proposed.proposal.recipe) for each in (above, node))
            proposal = node.proposed.proposal
            if before == after or node.proposed.choice.move in BROUGHT_NOTHING or _is_number(node):
                continue
            if (left := self._left(own, before, after)) is not None:
                yield Left(left, _word(proposal.kind), f"without {node.id} ({proposal.change[:LONGEST_CHANGE]})", node)

    def _constants(self, path: Sequence[Experiment], own: str) -> Iterator[Left]:
        """Where several steps moved it, the last of them is the one that brought it. What an edit set is the edit's: a
        constant goes back to what it was when it was moved first since."""
        moved: dict[tuple[str, str], tuple[Experiment, Experiment]] = {}
        for above, node in pairwise(path):
            for key in self._moved(above, node):
                if _is_number(node):
                    moved[key] = (moved[key][0] if key in moved else above, node)
                else:
                    moved.pop(key, None)
        for (file, name), (first, node) in moved.items():
            now, was, given = (self._named(each, file, name) for each in (path[-1], first, path[0]))
            if now is None or was is None or now.dimension is None or now.value == was.value:
                continue
            at = (own, file, name)
            if at not in self._without:
                source = self._session.workspace.read(own, file).decode("utf-8")
                beside = self._session.versions.texts(self._session.versions.beside(own, file)[1:])
                text = _put_back(source, now, was, tuple(beside))
                self._without[at] = text and self._session.workspace.tree_with(own, file, text.encode())
            if (left := self._without[at]) is not None:
                as_it_was = "in the source" if given is not None and given.value == was.value else f"in {first.id}"
                files = [each for each in self._read(path[-1]) if self._named(path[-1], each, name)]
                where = f" of {file}" if len(files) > 1 else ""
                yield Left(left, name, f"with {name} {was.text} as {as_it_was}{where}", node)

    def brings(self, tree: Tree, found: Sequence[Ablation]) -> list[float]:
        """What it surely brought when it came, as far as trainings so far tell: of a constant, all steps of it."""
        assert tree.champion is not None, "changes are those of a champion"
        pairs = list(pairwise(tree.path(tree.champion)))
        return [self._surely(tree, self._steps(pairs, each)) for each in found]

    @property
    def beyond(self) -> int:
        """What the judge has learnt."""
        return self._session.seq

    def _steps(self, pairs: Sequence[Step], change: Ablation) -> list[Step]:
        """The steps of a path that made a change."""
        own = next(pair for pair in pairs if pair[1].id == change.brought_by)
        if not _is_number(own[1]):
            return [own]
        keys = {key for key in self._moved(*own) if key[1] == change.what}
        return [pair for pair in pairs if _is_number(pair[1]) and keys.intersection(self._moved(*pair))]

    def _surely(self, tree: Tree, steps: Sequence[Step]) -> float:
        mean = variance = 0.0
        for above, node in steps:
            first, second = self._subject(tree, node), self._subject(tree, above)
            if self._judge.settled(first) and self._judge.settled(second):
                gain, doubt, _ = self._judge.gain(first, second)
                mean, variance = mean + gain, variance + max(0.0, doubt)
        return mean - SURE * sqrt(variance)

    def _moved(self, above: Experiment, node: Experiment) -> list[tuple[str, str]]:
        """(file, name) of the constants that an experiment moved."""
        before, after = self._read(above), self._read(node)
        return [
            (file, name)
            for file in after
            for name, value in values_of(after[file]).items()
            if values_of(before.get(file, ())).get(name, value) != value
        ]

    def _named(self, node: Experiment, file: str, name: str) -> Constant | None:
        return next((one for one in self._read(node).get(file, ()) if one.name == name), None)

    def _read(self, node: Experiment) -> dict[str, tuple[Constant, ...]]:
        """File -> its constants."""
        tree = self._tree(node.proposed.proposal.recipe)
        if tree not in self._known:
            versions, prepared = self._session.versions, self._session.prepared
            assert prepared is not None and prepared.script is not None, "experiments have files"
            found = sources(versions, tree, prepared.script.editable)
            self._known[tree] = {path: constants_of(versions, tree, path, source) for path, source in found}
        return self._known[tree]

    def _subject(self, tree: Tree, node: Experiment) -> str:
        first = tree.first_with(node.proposed.proposal.recipe)
        return first.id if first is not None else node.id

    def _tree(self, recipe: Recipe) -> str:
        workspace = self._session.workspace
        return tree_of(recipe) or workspace.tree_of(workspace.baseline)

    def _left(self, files: str, before: str, after: str) -> str | None:
        key = (files, before, after)
        if key not in self._without:
            self._without[key] = self._session.workspace.without(files, (before, after))
        return self._without[key]

    def _recipe(self, tree: str) -> Recipe:
        """The source as it was given is named without a tree."""
        workspace = self._session.workspace
        is_source = tree == workspace.tree_of(workspace.baseline)
        return Recipe(stage=Stage(backend="script", params={} if is_source else {"tree": tree}))
