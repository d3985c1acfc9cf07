"""Experiments of long ago say the same in less memory, and so do the ended jobs that are in the tree."""

from __future__ import annotations

import tracemalloc
from itertools import islice

import pytest

from postgrad import events
from postgrad import tree as trees
from postgrad.archived import Archived, to_archive, whole
from postgrad.bench.scale_trees import Growth
from postgrad.events import Event, JobFinished
from postgrad.finished import Finished
from postgrad.groups import among, by_kind, folded, has_child, those
from postgrad.research.tuner import BEST, HELD, _told, alike
from postgrad.search import legal
from postgrad.shelf import PIECE
from postgrad.tree import Tree
from postgrad.views import Views

SAID = ("id", "index", "proposed", "started", "results", "evaluation", "select", "analysis", "champion", "tested")
READ = (
    "decided",
    "ended",
    "parent",
    "state",
    "score",
    "foreseen",
    "verdict",
    "cost_s",
    "waits",
    "rejection",
    "failure",
)
N = 6 * PIECE


@pytest.fixture
def young(monkeypatch: pytest.MonkeyPatch) -> int:
    """Experiments grow old after one piece."""
    monkeypatch.setattr(trees, "WHOLE", PIECE)
    return PIECE


def grown(log: list[Event]) -> Tree:
    tree = Tree()
    for event in log:
        tree = tree.with_event(event)
    return tree


def test_an_archived_experiment_says_the_same() -> None:
    for node in Tree.from_events(Growth(3).events(400)).all():
        if node.analysis is None:
            continue
        old = Archived(node)
        assert all(getattr(old, name) == getattr(node, name) for name in (*SAID, *READ))
        assert old == node and node == old and whole(old) == node and not isinstance(whole(old), Archived)
        assert old.bare() == node.bare() and hash(old) == hash(Archived(node))
        assert old.proposed.proposal.recipe.hash == node.proposed.proposal.recipe.hash
    assert old != Tree.from_events(Growth(3).events(3)).all()[0]


def test_a_tree_archives_what_ended_long_ago(young: int) -> None:
    log = list(Growth(1).events(N))
    tree, at_once = grown(log), Tree.from_events(log)
    old = [isinstance(node, Archived) for node in tree.all()]
    assert all(old[: N - 2 * young]) and not any(old[N - young :])
    assert [isinstance(node, Archived) for node in at_once.all()] == old
    held = {id(node) for node in tree.all()}
    assert all(id(node) in held for node in (*tree.scored(), *tree.failed(), *tree.pending()))


def test_it_is_the_tree_that_it_would_be(young: int, monkeypatch: pytest.MonkeyPatch) -> None:
    log = list(Growth(2).events(N))
    tree = grown(log)
    monkeypatch.setattr(trees, "WHOLE", 10 * N)
    plain = grown(log)
    assert not any(isinstance(node, Archived) for node in plain.all())
    assert tree == plain and tree.scored() == plain.scored() and tree.failed() == plain.failed()
    for node in islice(plain.all(), 0, None, 50):
        assert tree.children(node.id) == plain.children(node.id) and tree.path(node.id) == plain.path(node.id)
        assert tree.all_with(node.proposed.proposal.recipe) == plain.all_with(node.proposed.proposal.recipe)
    assert legal.repairable(tree, 3) == legal.repairable(plain, 3) and legal.drafts(tree) == legal.drafts(plain)
    assert tree.view(N // 2) == plain.view(N // 2)


def test_what_happens_to_an_archived_experiment_later(young: int) -> None:
    tree = grown(list(Growth(4).events(N)))
    before = next(node for node in tree.scored() if isinstance(node, Archived))
    body = events.Tested(
        experiment=before.id, against="e000001", difference=None, level=0.05, kept=True, champion=before.id
    )
    after = tree.with_event(Event(seq=10**6, at=0.0, clock=1.0, body=body))
    assert after[before.id].verdict == "keep" and after[before.id].tested == body
    assert after.champion == before.id and after.shelf.grown is tree.shelf.grown


def test_views_let_go_of_what_is_archived(young: int) -> None:
    views, tree = Views(), Tree()
    for event in Growth(5).events(N):
        tree = tree.with_event(event)
        view = views.view(tree, max(0, len(tree) - 20))
    assert view == tree.view(len(tree) - 20)
    whole_ones = [node for node in view.all() if not isinstance(node, Archived)]
    assert len(whole_ones) < 2 * young + 20


def test_archiving_saves_memory(young: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(whole_ones: int) -> int:
        monkeypatch.setattr(trees, "WHOLE", whole_ones)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        tree = grown(list(Growth(6).events(N)))
        size = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert len(tree) == N
        return size

    held(PIECE)  # What is remembered beside trees is remembered now.
    assert held(PIECE) < 0.7 * held(10 * N)


def test_ended_jobs_are_read_off_the_tree() -> None:
    tree, finished, plain = Tree(), Finished(lambda: tree), dict[str, JobFinished]()
    for event in Growth(7).events(300):
        tree = tree.with_event(event)
        if isinstance(event.body, JobFinished):
            finished.add(event.body)
            plain[event.body.job] = event.body
    assert dict(finished) == plain and list(finished) == list(plain) and len(finished) == len(plain) > 200
    assert all(finished.served(name) for name in plain) and not finished.served("nobody's")
    for node in tree.all():
        own = [body.result for body in plain.values() if body.experiment == node.id]
        assert finished.of(node.id, "search") == own and finished.of(node.id, "select") == []
    some = next(iter(plain.values())).result
    final = JobFinished(job="e0001-sealed", experiment="e000001", purpose="sealed", result=some)
    finished.add(final)
    assert list(finished.apart()) == [final] and finished["e0001-sealed"] is final
    failed = next(body.result for body in plain.values() if body.result.failure)
    finished.add(final.model_copy(update={"result": failed}))
    assert not finished.served("e0001-sealed") and finished.of("e000001", "sealed") == [failed]


# --- groups -----------------------------------------------------------------------------------------------------------


def test_groups_are_what_a_look_at_all_finds() -> None:
    tree = Tree()
    for step, event in enumerate(Growth(8).events(500)):
        tree = tree.with_event(event)
        if step % 97:
            continue
        nodes = tree.all()
        for kind in {node.proposed.proposal.kind for node in nodes}:
            own = tuple(node for node in nodes if node.proposed.proposal.kind == kind)
            assert among(tree, by_kind(kind)) == own
            total = folded(tree, by_kind(kind), "count", 0, lambda sum_, node: sum_ + (node.score is not None))
            assert total == sum(node.score is not None for node in own)
            parents = {node.parent for node in own}
            assert all(has_child(tree, node.id, kind) == (node.id in parents) for node in nodes)
        assert legal.drafts(tree) == tuple(n for n in tree.roots() if not legal.is_reference(n))
        early = tree.view(len(tree) // 2)
        even = those("even", lambda node: node.index % 2 == 0)
        assert among(early, even) == tuple(node for node in early.all() if node.index % 2 == 0)


def test_a_study_holds_the_best_and_the_latest() -> None:
    tree = Tree.from_events(Growth(9).events(3000))
    most = max(tree.all(), key=lambda node: len(alike(tree, node.proposed.proposal.recipe)))
    recipe = most.proposed.proposal.recipe
    own = alike(tree, recipe)
    assert len(own) > HELD
    told = _told(tree, recipe)
    scored = [node for node in own if node.score is not None]
    best = sorted(scored, key=lambda node: (-(node.score or 0.0), node.index))[:BEST]
    names = [{node.id for node in (*best, *own[-count:])} for count in range(HELD + 1)]
    assert {node.id for node in told} in [each for each in names if len(each) == HELD]
    assert [node.index for node in told] == sorted(node.index for node in told)
    few = next(n for n in tree.all() if len(alike(tree, n.proposed.proposal.recipe)) < HELD)
    assert tuple(_told(tree, few.proposed.proposal.recipe)) == alike(tree, few.proposed.proposal.recipe)


def test_only_what_has_ended_is_archived() -> None:
    nodes = Tree.from_events(Growth(10).events(60)).all()
    assert {node.id for node in to_archive(nodes)} == {node.id for node in nodes if node.analysis is not None}
