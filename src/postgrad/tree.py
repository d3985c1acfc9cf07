"""A read-only view over the experiments of a run, derived from its events.

The tree is never stored. Experiments are numbered in the order they were proposed; index order is the only order that
anything here depends on, so the same events in another interleaving give the same tree.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from typing import Iterable, Iterator, Mapping, NamedTuple, Sequence

from postgrad.archived import WHOLE, to_archive, whole
from postgrad.events import Analysed, Body, Decided, Evaluated, Event, JobFinished, JobStarted, Pared, Proposed, Tested
from postgrad.experiment import Experiment, State
from postgrad.records import Approve, Edit, Evaluation, Recipe, Reject
from postgrad.shelf import PIECE, Entry, Grown, Key, Ranked, Row, Shelf

__all__ = ["Experiment", "Index", "State", "Tree", "best_first"]

#: Of more hidden ones than this, and a quarter of all, what is looked up is worked out anew.
MANY = 64


class Index(NamedTuple):
    """What is looked up often.

    Attributes:
        scored: best first. pending, failed: in index order.
    """

    scored: Ranked[Experiment]
    pending: Ranked[Experiment]
    failed: Ranked[Experiment]

    @classmethod
    def of(cls, nodes: Iterable[Experiment]) -> Index:
        """The index of these experiments, in time n log n."""
        ranked: tuple[list[tuple[Key, Experiment]], ...] = ([], [], [])
        for node in nodes:
            for found, key in zip(ranked, _keys(node), strict=True):
                found += [] if key is None else [(key, node)]
        return cls(*map(Ranked, ranked))

    def after(self, old: Experiment | None, new: Experiment) -> Index:
        """The index with a new experiment at the end, or with one that has changed."""
        before = (None, None, None) if old is None else _keys(old)
        return Index(*(each.with_entry(was, now, new) for each, was, now in zip(self, before, _keys(new), strict=True)))


def _old(length: int) -> slice:
    """The experiments that grow old when there are so many: a piece now and then."""
    last = length - WHOLE
    return slice(last - PIECE, last) if last > 0 and not last % PIECE else slice(0)


def _entry(node: Experiment) -> Entry:
    proposal = node.proposed.proposal
    return node.id, node.parent, proposal.recipe.hash, proposal.kind


def _shelved(nodes: Iterable[Experiment]) -> Shelf[Experiment]:
    """Experiments in index order as a tree holds them."""
    found, grown = tuple(nodes), Grown()
    for place, node in enumerate(found):
        grown = grown.add(place, _entry(node))
    return Shelf(Row(found), grown)


@dataclass(frozen=True)
class Tree:
    """The experiments by id, in index order. A tree never changes: an event makes a new one.

    What is looked up often (children, ranking) is worked out when it is first asked for, and goes on from there with
    every event: a step shares all but a few entries with the tree before, and sorts nothing again. `closed_off` are
    experiments that people do not want extended.
    """

    experiments: Mapping[str, Experiment] = field(default_factory=dict)
    champion: str | None = None
    carried: Index | None = field(default=None, compare=False, repr=False)
    closed_off: frozenset[str] = frozenset()

    @classmethod
    def from_events(cls, events: Iterable[Event]) -> Tree:
        """Fold events into a tree, in time linear in their number."""
        nodes: dict[str, Experiment] = {}
        champion: str | None = None
        ended = 0
        names: list[str] = []
        for event in events:
            if (node := _changed(nodes, event.body, ended)) is not None:
                nodes[node.id] = node
                ended += isinstance(event.body, Analysed)
                champion = _champion(champion, event.body)
            if isinstance(event.body, Proposed):
                names.append(event.body.experiment)
                nodes.update((each.id, each) for each in to_archive(nodes[name] for name in names[_old(len(names))]))
        return cls(_shelved(nodes.values()), champion)

    def with_event(self, event: Event) -> Tree:
        """Return the tree after one more event. Shares the experiments with this one."""
        node = _changed(self.experiments, event.body, self.ended())
        if node is None:
            return self
        tree = self.with_experiments((node,), _champion(self.champion, event.body))
        old = tree._all[_old(len(tree))] if isinstance(event.body, Proposed) else ()
        return tree.with_experiments(to_archive(old), tree.champion) if old else tree

    def with_experiments(self, changed: Iterable[Experiment], champion: str | None) -> Tree:
        """Return the tree with another champion and these experiments: new ones at the end, in index order, or others
        in place of those with their names."""
        row, grown, index = self.shelf.row, self.shelf.grown, self._index
        for node in changed:
            place = grown.at.get(node.id, len(row))
            old = row[place] if place < len(row) else None
            if old is None:
                place = len(row)
                grown = grown.add(place, _entry(node))
            row, index = row.put(place, node), index.after(old, node)
            if old is not None and old.proposed is not node.proposed and grown.entries[place] != _entry(node):
                grown = _shelved(row).grown  # A person edited it.
        return Tree(Shelf(row, grown), champion, index)

    def __len__(self) -> int:
        return len(self.experiments)

    def __getitem__(self, experiment: str) -> Experiment:
        return self.experiments[experiment]

    @cached_property
    def _index(self) -> Index:
        return Index.of(self._all) if self.carried is None else self.carried

    @cached_property
    def shelf(self) -> Shelf[Experiment]:
        """The experiments, with what trees that grew from each other share."""
        return self.experiments if isinstance(self.experiments, Shelf) else _shelved(self.experiments.values())

    @property
    def _all(self) -> Row[Experiment]:
        return self.shelf.row

    def all(self) -> Sequence[Experiment]:
        """Every experiment, in index order."""
        return self._all

    def view(self, closed: int) -> Tree:
        """The tree as it looked when exactly the first `closed` experiments had ended: later ones are pending.

        This is what policies see, so that a choice does not depend on which of two workers was faster. Its champion is
        that of the last one shown: a test that followed shows with the next experiment that ends.
        """
        nodes = self._all
        shown = min(max(0, closed), len(nodes))
        champion = next((nodes[i].champion for i in range(shown - 1, -1, -1) if nodes[i].analysis), None)
        last = nodes[shown:]
        bare = [node.bare() for node in last]
        hidden = [each for each, node in zip(bare, last, strict=True) if each != node]
        if not hidden and champion == self.champion:
            return self
        if len(hidden) > max(MANY, len(nodes) // 4):
            return Tree(Shelf(Row((*nodes[:shown], *bare)), self.shelf.grown), champion)
        return self.with_experiments(hidden, champion)

    def differing(self, before: Tree) -> Iterator[int]:
        """Indices of the experiments that are others than in an earlier tree of the run."""
        return self._all.differing(before._all)

    def closed(self) -> int:
        """How many experiments, counted from the first, have ended without a gap."""
        pending = self._index.pending
        return pending[0].index if pending else len(self)

    def as_of(self, ended: int) -> Tree:
        """The same as `view`, by the order in which experiments ended: one that waited for a person ends late."""
        nodes, champion, last = [], None, -1
        for node in self._all:
            if node.analysis is not None and node.ended is not None and node.ended < ended:
                if node.ended > last:
                    champion, last = node.champion, node.ended
            elif (bare := node.bare()) != node:
                nodes.append(bare)
        return self.with_experiments(nodes, champion) if nodes or champion != self.champion else self

    def ended(self) -> int:
        """How many experiments have ended, whichever they are."""
        return len(self.experiments) - len(self._index.pending)

    def waiting(self) -> tuple[Experiment, ...]:
        """The experiments that wait for a person's approval, in index order."""
        return tuple(node for node in self._index.pending if node.waits)

    def has_tried(self, recipe: Recipe) -> bool:
        """True when an experiment has this recipe, ended or not."""
        return self.first_with(recipe) is not None

    def first_with(self, recipe: Recipe) -> Experiment | None:
        """The first experiment with this recipe, ended or not; None where there is none."""
        return next(iter(self.shelf.alike(recipe.hash)), None)

    def all_with(self, recipe: Recipe) -> tuple[Experiment, ...]:
        """The experiments with this recipe, in index order."""
        return tuple(self.shelf.alike(recipe.hash))

    def children(self, experiment: str) -> Sequence[Experiment]:
        """The experiments that extend this one, in index order."""
        return self.shelf.below(experiment)

    def siblings(self, experiment: str) -> tuple[Experiment, ...]:
        """The other experiments with the same parent, in index order; the other roots, for a root."""
        return tuple(node for node in self.shelf.below(self[experiment].parent) if node.id != experiment)

    def roots(self) -> Sequence[Experiment]:
        """The experiments without a parent, in index order."""
        return self.shelf.below(None)

    def path(self, experiment: str) -> tuple[Experiment, ...]:
        """From the root to this experiment, both included."""
        steps = [self[experiment]]
        while (parent := steps[-1].parent) is not None:
            steps.append(self[parent])
        return tuple(reversed(steps))

    def depth(self, experiment: str) -> int:
        """How many changes lead from the root to this experiment; 0 for a root."""
        return len(self.path(experiment)) - 1

    def scored(self) -> Sequence[Experiment]:
        """Experiments with a complete search score that may be extended, best first; ties go to the earlier one."""
        return self._open(self._index.scored)

    def measured(self) -> Sequence[Experiment]:
        """The same with those that are closed off: what they say is true."""
        return self._index.scored

    def _open(self, nodes: Sequence[Experiment]) -> Sequence[Experiment]:
        return tuple(node for node in nodes if node.id not in self.closed_off) if self.closed_off else nodes

    def best(self) -> Experiment | None:
        """The first of `scored`."""
        scored = self.scored()
        return scored[0] if scored else None

    def leader(self) -> Experiment | None:
        """What to build on: the champion, whose lead the referee holds for more than luck and which keeps every guard;
        before there is one, the best score."""
        name = self.champion
        return self.best() if name is None or name in self.closed_off else self.experiments[name]

    def leaves(self) -> tuple[Experiment, ...]:
        """The experiments that nothing extends, in index order."""
        return tuple(node for node in self._all if not self.shelf.has_below(node.id))

    def pending(self) -> Ranked[Experiment]:
        """The experiments that have not ended, in index order."""
        return self._index.pending

    def failed(self) -> Sequence[Experiment]:
        """The experiments that ended in a failure and may be mended, in index order."""
        return self._open(self._index.failed)


def _changed(nodes: Mapping[str, Experiment], body: Body, ended: int) -> Experiment | None:
    """The experiment that an event is about as it is after it; None where the event is not of the tree."""
    if isinstance(body, Proposed):
        return Experiment(id=body.experiment, index=len(nodes), proposed=body)
    if isinstance(body, JobStarted) and body.purpose == "search":
        node = whole(nodes[body.experiment])
        others = tuple(start for start in node.started if start.job != body.job)
        return replace(node, started=(*others, body))
    if isinstance(body, JobFinished) and body.purpose == "search":
        node = whole(nodes[body.experiment])
        return replace(node, results=(*node.results, body.result))
    if isinstance(body, Evaluated):
        return _evaluated(whole(nodes[body.evaluation.experiment]), body.evaluation)
    if isinstance(body, Analysed):
        return replace(whole(nodes[body.experiment]), analysis=body.analysis, champion=body.champion, ended=ended)
    if isinstance(body, Pared):
        return nodes[body.experiment]
    if isinstance(body, Decided):
        return _decided(nodes, body)
    return replace(whole(nodes[body.experiment]), tested=body) if isinstance(body, Tested) else None


def _decided(nodes: Mapping[str, Experiment], body: Decided) -> Experiment | None:
    """A proposal that waited, as a person left it."""
    wish = body.order.wish
    if not body.took_effect or not isinstance(wish, Approve | Reject | Edit):
        return None
    node = whole(nodes[wish.experiment])
    if isinstance(wish, Edit) and body.proposal is not None:
        told = {"proposal": body.proposal, "nominal_s": body.nominal_s, "forecast_s": body.forecast_s}
        node = replace(node, proposed=node.proposed.model_copy(update=told))
        return replace(node, decided=body) if wish.approve else node
    return replace(node, decided=body)


def _evaluated(node: Experiment, evaluation: Evaluation) -> Experiment | None:
    if evaluation.split == "search":
        return replace(node, evaluation=evaluation)
    return replace(node, select=(*node.select, evaluation)) if evaluation.split == "select" else None


def _champion(before: str | None, body: Body) -> str | None:
    """The champion after an event."""
    return body.champion if isinstance(body, Analysed | Tested | Pared) else before


def _keys(node: Experiment) -> tuple[Key | None, ...]:
    """Where an experiment stands among the scored, the pending and the failed ones. NaN is last."""
    score, place = node.score, (0.0, node.index)
    rank = None if score is None else (-score if score == score else inf, node.index)
    return rank, place if node.state is State.PENDING else None, place if node.state is State.FAILED else None


def best_first(nodes: Iterable[Experiment]) -> Sequence[Experiment]:
    """Those of some experiments that have a score, in the order of `Tree.scored`."""
    return Index.of(nodes).scored
