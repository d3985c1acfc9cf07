"""Causes of bad cases move the search: they are recorded, and what addresses them is tried more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from typer.testing import CliRunner

from postgrad.analyze.blame import LEAST, blamed
from postgrad.analyze.causes import CAUSES, CauseKind
from postgrad.analyze.matrix import right_or_wrong
from postgrad.bench.overhead import SimulatedEngine, simulated_task
from postgrad.cli.main import app
from postgrad.data import OPERATORS
from postgrad.events import Analysed
from postgrad.metrics.base import Answers
from postgrad.metrics.items import Items
from postgrad.records import Analysis, Blame, Choice, Move, Recipe, Row
from postgrad.research.base import Context
from postgrad.research.binding import bound
from postgrad.research.drafts import drafts
from postgrad.research.options import PlaybookOptions
from postgrad.research.playbook import Playbook
from postgrad.research.promises import DOUBT, LEAST_SD, SOLVED, promises
from postgrad.runner import drive, opened, start_run
from postgrad.search.posterior import Posterior, PosteriorParams
from postgrad.search.prospects import Prospects
from postgrad.store.sqlite import SqliteStore
from postgrad.testing.policy import PLENTY, references
from postgrad.testing.researcher import REJECTING
from postgrad.testing.simulation import nominal_s
from postgrad.testing.trees import Node, tree_of
from postgrad.tree import Tree

TUNED = next(draft.recipe for draft in drafts(REJECTING.base_models[0]) if draft.kind == "draft.tuned")
COUNT = 200


def items(right: np.ndarray, outside: np.ndarray | None = None) -> Items:
    """Items r000, r001, ... of two labels: truth 0, and -1 for those outside; a wrong answer is label 1."""
    names = np.array([f"s0/r{n:03d}" for n in range(len(right))])
    truth = np.where(outside if outside is not None else np.zeros(len(right), bool), -1, 0)
    said = np.where(right, truth, 1)
    return Items(names, names, Answers(truth, said, said, np.ones(len(right)), 2))


def first(count: int, wrong: int) -> np.ndarray:
    """(count,) False for the first `wrong`."""
    return np.arange(count) >= wrong


# --- what is blamed ---------------------------------------------------------------------------------------------------


def test_shares_of_the_search_items_are_recorded_the_largest_first() -> None:
    outside = np.arange(COUNT) < 60
    found = blamed(items(first(COUNT, 40), outside), None, (), right_or_wrong, 1.0)
    assert found == (Blame(cause="accepted", share=0.2, moves=CAUSES["accepted"].moves),)


def test_what_the_parent_solved_is_forgetting_where_more_is_lost_than_won() -> None:
    before = items(first(COUNT, 10))
    lost = items(~first(COUNT, 190) | first(COUNT, COUNT))
    worse = blamed(items(np.arange(COUNT) % 5 > 0), before, (), right_or_wrong, 1.0)
    assert [each.cause for each in worse] == ["forgetting"]
    assert worse[0].share == pytest.approx(38 / COUNT)
    assert blamed(lost, before, (), right_or_wrong, 1.0) == ()


def test_a_falling_loss_concerns_all_wrong_items() -> None:
    falling = [(step, 2.0 - 0.04 * step) for step in range(40)]
    found = blamed(items(first(COUNT, 50)), None, [falling, falling], right_or_wrong, 1.0)
    assert [(each.cause, each.share) for each in found] == [("underfit", 0.25)]


def test_single_items_are_left_to_chance() -> None:
    outside = np.arange(1000) < 60
    wrong = int(LEAST * 1000) - 1
    assert blamed(items(first(1000, wrong), outside), None, (), right_or_wrong, 1.0) == ()


def test_a_run_records_what_is_blamed(tmp_path: Path) -> None:
    with start_run(simulated_task(tmp_path, 6), tmp_path / "runs") as store:
        folder = store.folder
    with opened(SqliteStore.open(folder, write=True), engine=SimulatedEngine()) as session:
        drive(session)
    with SqliteStore.open(folder, write=False) as store:
        found = [event.body.analysis for event in store.events() if isinstance(event.body, Analysed)]
    causes = {each.cause for analysis in found for each in analysis.blamed}
    assert causes and causes <= set(CAUSES)
    for each in found:
        shares = [blame.share for blame in each.blamed]
        assert shares == sorted(shares, reverse=True)
        assert Analysis.model_validate_json(each.model_dump_json()) == each


# --- what it promises -------------------------------------------------------------------------------------------------


def analysis(**shares: float) -> Analysis:
    found = tuple(Blame(cause=kind, share=share, moves=_moves(kind)) for kind, share in shares.items())
    return Analysis(verdict="tie", against=None, difference=None, cause="", blamed=found)


def _moves(kind: str) -> tuple[str, ...]:
    return next(known.moves for name, known in CAUSES.items() if name == kind)


def test_a_promise_is_as_unsure_as_it_is_large() -> None:
    found = promises(analysis(accepted=0.2, rejected=0.02))
    assert found["score.knn"].gain == pytest.approx(SOLVED * 0.2)
    assert found["score.knn"].sd == pytest.approx(DOUBT * SOLVED * 0.2)
    assert found["negatives.uniform"].gain == pytest.approx(SOLVED * 0.02)
    assert found["negatives.uniform"].sd == LEAST_SD
    assert promises(None) == promises(analysis()) == promises(analysis(accepted=0.5), solved=0.0) == {}


def with_blame(tree: Tree, name: str, **shares: float) -> Tree:
    node = tree[name]
    assert node.analysis is not None
    told = node.analysis.model_copy(update={"blamed": analysis(**shares).blamed})
    return tree.with_experiments((replace(node, analysis=told),), tree.champion)


def kinds_of(tree: Tree, draws: int = 120) -> list[str]:
    contexts = (Context(tree, Random(seed), len(tree), None, nominal_s) for seed in range(draws))
    asked = Choice(parent="a", move=Move.IMPROVE)
    return [Playbook().propose(REJECTING, asked, context).kind for context in contexts]


def test_the_playbook_tries_what_addresses_a_cause() -> None:
    plain = tree_of([Node("a", recipe=TUNED)])
    kind = "data.near_misses"
    before, after = kinds_of(plain).count(kind), kinds_of(with_blame(plain, "a", accepted=0.4)).count(kind)
    assert after > 2 * before + 5
    told = with_blame(plain, "a", accepted=0.4)
    contexts = (Context(told, Random(seed), 1, None, nominal_s) for seed in range(99))
    proposed = [Playbook().propose(REJECTING, Choice(parent="a", move=Move.IMPROVE), each) for each in contexts]
    said = next(each.hypothesis for each in proposed if each.kind == kind)
    assert "addresses what 40.0% of the search items fail by (accepted)" in said


def grown() -> Tree:
    scores = (0.6, 0.602, 0.598, 0.599)
    recipes = [TUNED, *(_after(kind) for kind in ("data.balance", "head.cosine", "head.logistic"))]
    nodes = [Node(f"e{3 + i:04d}", score=s, recipe=r) for i, (s, r) in enumerate(zip(scores, recipes, strict=True))]
    return tree_of([*references(), *nodes])


def _after(kind: str) -> Recipe:
    from postgrad.research.moves import PLAYS

    return next(play for play in PLAYS if play.kind == kind).apply(TUNED, REJECTING)


@pytest.mark.parametrize(
    ("cause", "kind"), [("mislabelled", "data.relabel"), ("missing", "data.word_dropout"), ("accepted", "score.knn")]
)
def test_the_posterior_believes_a_part_of_what_is_promised(cause: CauseKind, kind: str) -> None:
    tree = grown()
    leader = tree.leader()
    assert leader is not None and kind in _moves(cause)
    recipe, options = leader.proposed.proposal.recipe, PlaybookOptions(REJECTING, nominal_s)
    asked = next(each.features for each in options.changes(recipe) if each.kind == kind)

    def believed(about: Tree, solved: float) -> float:
        prospects = Prospects(about, options, 0.02, True, solved)
        return prospects.believed(asked) - prospects.believed(options.features(recipe))

    told = with_blame(tree, leader.id, **{cause: 0.4})
    assert believed(told, 0.0) == believed(tree, 0.25) == believed(tree, 0.0), "without causes nothing changes"
    assert believed(tree, 0.0) + 0.003 < believed(told, 0.25) < 0.05, "0.1 is promised, and not believed as it stands"


def test_a_run_of_the_policy_goes_where_causes_point() -> None:
    told = with_blame(grown(), "e0004", accepted=0.5)
    policy, linked = bound(Posterior(), REJECTING, nominal_s), set(_moves("accepted"))

    def chosen(solved: float) -> int:
        params = [PosteriorParams(solved=solved, changes=1)] * 6
        kinds = [policy.choose(told, PLENTY, Random(seed), each).kinds for seed, each in enumerate(params)]
        return sum(bool(linked & set(each)) for each in kinds)

    assert chosen(0.25) > chosen(0.0)


# --- the step that addresses wrong labels -----------------------------------------------------------------------------


def planted() -> tuple[tuple[Row, ...], set[str]]:
    """240 rows of four labels with words of their own; some of them stand under the next label."""
    random = np.random.default_rng(3)
    rows, wrong = [], set()
    for n in range(240):
        label, given = n % 4, n % 4
        if n % 21 == 0:
            given = (label + 1) % 4
            wrong.add(f"r{n:03d}")
        own = [f"w{label}x{word}" for word in random.integers(8, size=5)]
        shared = [f"common{word}" for word in random.integers(60, size=3)]
        rows.append(Row(f"r{n:03d}", " ".join(random.permutation(own + shared)), f"label {given}"))
    copies = [row._replace(id=f"{row.id}+typos", text=f"{row.text} x") for row in rows[:40]]
    return (*rows, *copies, Row("r001+near_misses", "common1 common2", "none")), wrong


def test_rows_with_planted_labels_are_left_out_with_their_copies() -> None:
    rows, wrong = planted()
    step = OPERATORS.get("clean_labels")
    kept, report = step.apply(rows, step.Params(), Random(0), out_of_scope="none", base_model=None)
    gone = {row.id for row in rows} - {row.id for row in kept}
    assert wrong <= gone and {"r000+typos", "r021+typos"} <= gone
    assert {name.split("+")[0] for name in gone} - wrong == set()
    assert "r001+near_misses" in {row.id for row in kept}
    assert report.dropped == len(gone) and set(report.removed["another label is far likelier"]) == wrong


def test_planted_labels_are_given_the_likelier_one() -> None:
    rows, wrong = planted()
    step = OPERATORS.get("clean_labels")
    params = step.Params.model_validate({"action": "relabel"})
    kept, report = step.apply(rows, params, Random(0), out_of_scope="none", base_model=None)
    assert report.dropped == 0 and len(kept) == len(rows)
    right = {row.id: f"label {int(row.id[1:4]) % 4}" for row in rows if row.label != "none"}
    assert all(row.label == right[row.id] for row in kept if row.label != "none")
    assert {row.id for row in kept if row.label == "none"} == {"r001+near_misses"}
    assert f"{len(wrong)} of 240 labels look wrong" == report.note


def test_show_says_what_an_experiment_is_blamed_on(tmp_path: Path) -> None:
    with start_run(simulated_task(tmp_path, 6), tmp_path / "runs") as store:
        folder = store.folder
    with opened(SqliteStore.open(folder, write=True), engine=SimulatedEngine()) as session:
        drive(session)
        told = next(node for node in session.tree.all() if node.analysis and node.analysis.blamed)
    done = CliRunner().invoke(app, ["show", folder.name, told.id, "--runs-dir", str(folder.parent)])
    assert done.exit_code == 0
    assert told.analysis is not None
    assert f"{told.analysis.blamed[0].cause} (" in done.output and "of items)" in done.output
