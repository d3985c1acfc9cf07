"""Collections that share what they have in common behave as tuples and dicts do, and views go on as a tree does."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from postgrad.bench.scale_trees import Growth
from postgrad.events import Evaluated, Event
from postgrad.research.learning import Belief, belief, effect_of
from postgrad.shelf import PIECE, Grown, Ranked, Row, Shelf
from postgrad.testing.events import evaluated
from postgrad.tree import Tree
from postgrad.views import Views


def test_a_row_is_a_tuple_that_grows() -> None:
    rng, row, plain = Random(0), Row[str](), list[str]()
    for step in range(4 * PIECE):
        at = rng.randrange(len(plain)) if plain and rng.random() < 0.5 else len(plain)
        plain[at : at + 1] = [f"entry {step}"]
        before, row = row, row.put(at, f"entry {step}")
        assert len(before) in (len(plain), len(plain) - 1)
        assert list(row.differing(before)) == [at]
    assert tuple(row) == tuple(plain) and row == Row(plain) and list(reversed(row)) == plain[::-1]
    assert row[-1] == plain[-1] and row[PIECE] == plain[PIECE] and row[3:300:7] == tuple(plain[3:300:7])
    with pytest.raises(IndexError):
        row[len(plain)]


def test_what_is_ranked_is_sorted_whatever_comes_and_goes() -> None:
    rng, ranked, plain = Random(1), Ranked[str](), dict[tuple[float, int], str]()
    for step in range(6 * PIECE):
        draw, old = rng.random(), rng.choice(list(plain)) if plain else None
        new = (round(rng.random(), 2), step)
        if old is None or draw < 0.6:
            ranked, plain[new] = ranked.with_entry(None, new, f"entry {step}"), f"entry {step}"
            continue
        entry = plain.pop(old)
        if draw < 0.75:
            ranked = ranked.with_entry(old, None, entry)
        else:
            place = old if draw < 0.85 else new
            ranked, plain[place] = ranked.with_entry(old, place, f"again {step}"), f"again {step}"
        assert tuple(ranked) == tuple(plain[key] for key in sorted(plain)), step
    expected = tuple(plain[key] for key in sorted(plain))
    assert ranked == expected and tuple(reversed(ranked)) == expected[::-1] and len(ranked) == len(expected)
    assert ranked[7] == expected[7] and ranked[-1] == expected[-1] and ranked[-9:] == expected[-9:]
    assert ranked[:9] == expected[:9] and ranked[-9:-2] == expected[-9:-2] and ranked[::-3] == expected[::-3]
    emptied = ranked
    for key in sorted(plain):
        emptied = emptied.with_entry(key, None, "")
    assert emptied == () and not emptied and ranked == expected


def test_shelves_that_went_different_ways_do_not_see_each_other() -> None:
    grown = Grown().add(0, ("a", None, "one", "x")).add(1, ("b", "a", "two", "y"))
    first = Shelf(Row(["A", "B", "C"]), grown.add(2, ("c", "a", "one", "x")))
    other = Shelf(Row(["A", "B", "D"]), grown.add(2, ("d", "b", "two", "y")))
    early = Shelf(Row(["A", "B"]), grown)
    assert first.grown is grown and other.grown is not grown and grown.add(2, ("c", "a", "one", "x")) is grown
    assert list(first) == ["a", "b", "c"] and list(other) == ["a", "b", "d"] and list(early) == ["a", "b"]
    assert first.below("a") == ("B", "C") and other.below("a") == ("B",) and early.below("a") == ("B",)
    assert list(first.alike("one")) == ["A", "C"] and list(early.alike("one")) == ["A"]
    assert "c" in first and "c" not in early and not early.has_below("b") and other.has_below("b")
    assert early.get("c") is None and dict(first) == {"a": "A", "b": "B", "c": "C"}
    with pytest.raises(KeyError):
        early["c"]


def same(one: Tree, two: Tree) -> bool:
    looks = (Tree.all, Tree.scored, Tree.pending, Tree.failed, Tree.roots, Tree.leaves, Tree.closed, Tree.leader)
    return one == two and all(look(one) == look(two) for look in looks)


@pytest.mark.parametrize("lookahead", [1, 7, 100])
def test_views_are_those_of_the_tree(lookahead: int) -> None:
    """With trainings that are tested long after they ended, and with looks back."""
    tree, views, rng = Tree(), Views(), Random(lookahead)
    for number, event in enumerate(Growth().events(300)):
        tree = tree.with_event(event)
        if number % 41 == 0 and len(tree) > 5:
            late = Evaluated(
                evaluation=evaluated(f"e{rng.randrange(3):06d}", 0.5).evaluation.model_copy(update={"split": "select"})
            )
            tree = tree.with_event(Event(seq=event.seq, at=0.0, clock=0.0, body=late))
        closed = len(tree) + 1 - lookahead
        if number % 53 == 0:
            closed = rng.randrange(len(tree) + 1)
        if number % 3:
            assert same(views.view(tree, max(0, closed)), tree.view(closed)), number


def test_an_edited_proposal_is_looked_up_by_its_new_recipe() -> None:
    tree = Tree.from_events(Growth().events(40))
    last, donor = tree.all()[-1], tree.all()[0].proposed.proposal
    edited = replace(last, proposed=last.proposed.model_copy(update={"proposal": donor}))
    other = tree.with_experiments((edited,), tree.champion)
    assert other.all_with(donor.recipe)[-1].id == last.id and tree.all_with(donor.recipe)[-1].id != last.id
    assert not other.has_tried(last.proposed.proposal.recipe) and tree.has_tried(last.proposed.proposal.recipe)


def test_a_fold_over_a_kind_is_the_same_however_often_and_of_whatever_view_it_is_asked() -> None:
    """The belief about a kind of change goes on from what it was, and views of fewer that ended do not see more."""
    tree, prior, rng = Tree(), Belief(0.01, 0.02), Random(3)
    for number, event in enumerate(Growth().events(250)):
        tree = tree.with_event(event)
        if number % 29:
            continue
        for view in (tree, tree.view(rng.randrange(len(tree) + 1)), tree.view(len(tree) // 2)):
            kind = rng.choice(tree.all()).proposed.proposal.kind
            expected = prior
            for node in view.all():
                if node.proposed.proposal.kind == kind and (seen := effect_of(node, view)) is not None:
                    expected = expected.updated(*seen)
            assert belief(kind, prior, view) == expected == belief(kind, prior, view)
