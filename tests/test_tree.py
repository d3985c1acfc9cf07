"""The tree: what it says, that it never changes, and that it depends on the order of the experiments only."""

from __future__ import annotations

import gc
import time
from functools import reduce
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from postgrad.events import Analysed, Body, Event, Proposed, RunResumed
from postgrad.records import Failure, Stage
from postgrad.testing.events import (
    a_start,
    analysed,
    evaluated,
    job_finished,
    job_started,
    numbered,
    proposed,
)
from postgrad.tree import State, Tree


def one(experiment: str, parent: str | None, score: float | None, champion: str | None = None) -> list[Body]:
    """All events of one experiment; no score is a failure."""
    failure = Failure(boundary="train", kind="nan", message="The loss is not a number.") if score is None else None
    return [
        proposed(experiment, parent),
        job_started(experiment),
        job_finished(experiment, failure=failure),
        *([] if score is None else [evaluated(experiment, score)]),
        analysed(experiment, "failed" if score is None else "better", champion),
    ]


def tree_of(*bodies: Body) -> Tree:
    return Tree.from_events(numbered(bodies))


FAMILY = tree_of(
    a_start(),
    *one("a", None, 0.5, "a"),
    *one("b", "a", 0.7, "b"),
    *one("c", "a", None, "b"),
    *one("d", "b", 0.7, "b"),
    *one("e", None, 0.6, "b"),
    proposed("f", "d"),
    job_started("f"),
)


def ids(nodes: Any) -> list[str]:
    return [node.id for node in nodes]


def test_relations() -> None:
    assert ids(FAMILY.all()) == ["a", "b", "c", "d", "e", "f"]
    assert len(FAMILY) == 6
    assert ids(FAMILY.children("a")) == ["b", "c"]
    assert ids(FAMILY.children("f")) == []
    assert ids(FAMILY.roots()) == ["a", "e"]
    assert ids(FAMILY.siblings("b")) == ["c"]
    assert ids(FAMILY.siblings("a")) == ["e"]
    assert ids(FAMILY.siblings("f")) == []
    assert ids(FAMILY.leaves()) == ["c", "e", "f"]
    assert ids(FAMILY.path("f")) == ["a", "b", "d", "f"]
    assert [FAMILY.depth(name) for name in "abcdef"] == [0, 1, 1, 2, 0, 3]


def test_scores_rank_best_first_and_ties_go_to_the_earlier() -> None:
    assert ids(FAMILY.scored()) == ["b", "d", "e", "a"]
    best = FAMILY.best()
    assert best is not None
    assert best.id == "b"
    assert Tree().best() is None


def test_the_champion_leads_whatever_scored_higher_by_luck() -> None:
    unled = Tree(FAMILY.experiments)
    assert unled.leader() == unled.best() == FAMILY["b"]
    assert Tree(FAMILY.experiments, champion="e").leader() == FAMILY["e"]
    assert Tree().leader() is None


def test_a_recipe_was_tried_once_it_is_proposed() -> None:
    first, second = proposed("a"), proposed("b")
    other = first.proposal.recipe.model_copy(update={"stage": Stage(backend="classic", params={"C": 3.0})})
    body = second.model_copy(update={"proposal": second.proposal.model_copy(update={"recipe": other})})
    before = tree_of(a_start(), first)
    after = before.with_event(numbered([body])[0])
    assert before.has_tried(first.proposal.recipe) and not before.has_tried(other)
    assert after.has_tried(first.proposal.recipe) and after.has_tried(other)


def test_states() -> None:
    assert ids(FAMILY.pending()) == ["f"]
    assert ids(FAMILY.failed()) == ["c"]
    assert FAMILY["c"].score is None
    assert FAMILY["c"].failure is not None
    assert FAMILY["f"].state is State.PENDING
    raced = tree_of(proposed("a"), evaluated("a", 0.3), analysed("a", "raced"))
    assert raced["a"].state is State.RACED
    assert raced["a"].score is None
    unscored = tree_of(proposed("a"), evaluated("a", 0.3), analysed("a", "unscored"))
    assert unscored["a"].state is State.UNSCORED
    assert unscored.scored() == ()


def test_closed_counts_without_a_gap() -> None:
    assert FAMILY.closed() == 5
    assert tree_of(proposed("a"), *one("b", None, 0.5)).closed() == 0
    assert tree_of(*one("a", None, 0.5), proposed("b"), *one("c", None, 0.5)).closed() == 1
    assert Tree().closed() == 0


def test_only_search_jobs_and_the_split_of_an_evaluation_count() -> None:
    tree = tree_of(
        *one("a", None, 0.5),
        job_started("a", "select"),
        job_finished("a", "select"),
        evaluated("a", 0.4, "select"),
        evaluated("a", 0.3, "select"),
        job_started("a", "sealed"),
        job_finished("a", "sealed"),
        evaluated("a", 0.1, "sealed"),
    )
    node = tree["a"]
    assert (len(node.started), len(node.results), node.score) == (1, 1, 0.5)
    assert [look.estimate.value for look in node.select] == [0.4, 0.3]
    assert node.cost_s == 20.0


def test_a_job_that_is_started_again_after_an_interruption_is_there_once() -> None:
    interrupted = tree_of(proposed("a"), job_started("a"), RunResumed(), job_started("a"), *one("a", None, 0.5)[2:])
    assert interrupted == tree_of(*one("a", None, 0.5))


def test_a_view_hides_what_ended_later() -> None:
    view = FAMILY.view(2)
    assert ids(view.all()) == ids(FAMILY.all())
    assert [node.state for node in view.all()] == [State.DONE] * 2 + [State.PENDING] * 4
    assert ids(view.scored()) == ["b", "a"]
    assert view["d"].evaluation is None
    assert view["d"].started == ()
    assert view["d"].results == ()
    assert view["b"] == FAMILY["b"]


def test_a_view_has_the_champion_of_its_time() -> None:
    assert [FAMILY.view(closed).champion for closed in range(7)] == [None, "a", "b", "b", "b", "b", "b"]
    assert FAMILY.champion == "b"


def test_a_view_does_not_depend_on_what_happened_after() -> None:
    early = tree_of(*one("a", None, 0.5, "a"), proposed("b", "a"), job_started("b"))
    late = tree_of(*one("a", None, 0.5, "a"), *one("b", "a", 0.9, "b"))
    assert early.view(1) == late.view(1)
    assert early.view(1).champion == "a"


def test_an_event_makes_a_new_tree_and_leaves_the_old_one() -> None:
    before = tree_of(*one("a", None, 0.5, "a"))
    assert before.children("a") == ()
    after = reduce(Tree.with_event, numbered(one("b", "a", 0.7, "b")), before)
    assert (len(before), before.champion, ids(before.scored()), before.children("a")) == (1, "a", ["a"], ())
    assert (len(after), after.champion, ids(after.scored()), ids(after.children("a"))) == (2, "b", ["b", "a"], ["b"])
    assert after["a"] is before["a"]


def test_an_event_that_is_not_of_the_tree_changes_nothing() -> None:
    (event,) = numbered([RunResumed()])
    assert FAMILY.with_event(event) is FAMILY


@st.composite
def interleavings(draw: st.DrawFn) -> tuple[list[Body], list[Body]]:
    """The events of some experiments one after the other, and interleaved as workers side by side may do it.

    Each experiment's events keep their order, experiments are proposed in order, and closed in order.
    """
    stories: list[list[Body]] = []
    for number in range(draw(st.integers(1, 6))):
        parent = draw(st.sampled_from([None, *(f"e{earlier}" for earlier in range(number))]))
        score = draw(st.none() | st.floats(0.0, 1.0))
        stories.append(one(f"e{number}", parent, score, draw(st.sampled_from([None, f"e{number}"]))))
    ordered = [body for story in stories for body in story]
    left = [list(story) for story in stories]
    mixed: list[Body] = []
    while any(left):
        may_go = [story for number, story in enumerate(left) if story and _may_go(story[0], left[:number])]
        mixed.append(draw(st.sampled_from(may_go)).pop(0))
    return ordered, mixed


def _may_go(body: Body, earlier: list[list[Body]]) -> bool:
    if isinstance(body, Proposed):
        return not any(story and isinstance(story[0], Proposed) for story in earlier)
    if isinstance(body, Analysed):
        return not any(earlier)
    return True


@given(interleavings())
@settings(deadline=None, database=None, max_examples=150)
def test_the_same_events_in_another_interleaving_give_the_same_tree(orders: tuple[list[Body], list[Body]]) -> None:
    ordered, mixed = orders
    expected, tree = Tree.from_events(numbered(ordered)), Tree.from_events(numbered(mixed))
    assert tree == expected
    assert ids(tree.all()) == ids(expected.all())
    assert ids(tree.scored()) == ids(expected.scored())
    for closed in range(len(tree) + 1):
        assert tree.view(closed) == expected.view(closed)


@given(interleavings())
@settings(deadline=None, database=None, max_examples=50)
def test_event_by_event_gives_the_same_tree(orders: tuple[list[Body], list[Body]]) -> None:
    events = numbered(orders[1])
    assert reduce(Tree.with_event, events, Tree()) == Tree.from_events(events)


def many(experiments: int) -> tuple[Event, ...]:
    bodies: list[Body] = []
    for number in range(experiments):
        bodies += one(f"e{number}", f"e{number // 3}" if number else None, number % 997 / 997, "e0")
    return numbered(bodies)


def cpu_s(events: tuple[Event, ...]) -> float:
    """CPU seconds of folding, the better of three."""
    taken = []
    for _ in range(3):
        gc.collect()
        start = time.process_time()
        Tree.from_events(events)
        taken.append(time.process_time() - start)
    return min(taken)


def test_folding_is_linear() -> None:
    events = many(4000)
    small, large = cpu_s(events[: len(events) // 8]), cpu_s(events)
    assert large < 8 * small * 3 + 0.05, f"8 times the events took {large / small:.0f} times as long"
