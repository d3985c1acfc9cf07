"""Guards: what the task file may say, what is measured on which answers, and who takes over from a broken champion."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from postgrad.bench.overhead import DoneHandle, SimulatedEngine, simulated_task
from postgrad.errors import PostgradError, UserError
from postgrad.evaluate.evaluator import UnitOutputs
from postgrad.evaluate.guards import KINDS, broken, holds, limit, named, unsure
from postgrad.evaluate.guards.base import Answered
from postgrad.evaluate.guards.metric import MetricGuard
from postgrad.evaluate.guards.patterns import PatternGuard, matches, share_interval
from postgrad.evaluate.guards.referee import GuardReferee, without
from postgrad.evaluate.guards.rows import GuardPlan, side_rows
from postgrad.evaluate.guards.saved_model import quantile_estimate
from postgrad.evaluate.splits import UnitPlan
from postgrad.events import Event, FinalModel
from postgrad.metrics.base import Answers
from postgrad.metrics.items import Items
from postgrad.prepare import load_parts
from postgrad.records import Budget, DataSpec, EngineSpec, Estimate, Guard, JobSpec, Limits, Row, Slice, TaskSpec
from postgrad.report import read_view
from postgrad.report.guards import prices
from postgrad.report.html import html_report
from postgrad.report.markdown import markdown_report
from postgrad.runner import drive, opened, start_run
from postgrad.session import Session
from postgrad.store.sqlite import SqliteStore

LABELS = 12


def started(folder: Path, guards: tuple[Guard, ...], experiments: int = 5, **changes: Any) -> Path:
    """A started run of simulated jobs with these guards."""
    task = simulated_task(folder, experiments).model_copy(update={"guards": guards, **changes})
    with start_run(task, folder / "runs") as store:
        return store.folder


def driven(folder: Path, engine: SimulatedEngine | None = None) -> tuple[Event, ...]:
    with opened(SqliteStore.open(folder, write=True), engine=engine or SimulatedEngine()) as session:
        drive(session)
    with SqliteStore.open(folder, write=False) as store:
        return tuple(store.events())


def side_file(folder: Path, rows: int = 24) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "brand_voice.csv"
    lines = [f"a side row {i} of kind {i % LABELS},L{i % LABELS:02d}" for i in range(rows)]
    path.write_text("\n".join(["text,label", *lines]) + "\n")
    return path


def answered(right: list[bool], texts: tuple[str, ...] = ()) -> Answered:
    """One answer a row: label 0 where it is right, label 1 where it is wrong."""
    n = len(right)
    predicted = np.where(np.array(right, dtype=bool), 0, 1).astype(np.int64)
    names = np.array([f"u/{i}" for i in range(n)])
    truth = np.zeros(n, dtype=np.int64)
    items = Items(names, names, Answers(truth, predicted, predicted, np.ones(n), 2))
    return Answered(items, texts or tuple("LR"[int(one)] for one in predicted))


# --- single kinds -----------------------------------------------------------------------------------------------------


def test_bounds_and_names() -> None:
    at_least, at_most = Guard(metric="accuracy", min=0.6), Guard(measure="latency_p95_ms", max=20)
    assert holds(at_least, 0.6) and not holds(at_least, 0.599)
    assert holds(at_most, 20.0) and not holds(at_most, 20.1)
    assert not holds(at_least, None) and not holds(at_least, float("nan"))
    assert (limit(at_least), limit(at_most)) == ("at least 0.6", "at most 20 ms")
    sliced = Guard(metric="accuracy", slice=Slice(column="language", equals="de"), min=0.5)
    assert list(named((at_least, at_most, sliced, at_least, Guard(name="tone", forbidden=("x",), max=0)))) == [
        "accuracy",
        "latency_p95_ms",
        "accuracy where language is de",
        "accuracy (2)",
        "tone",
    ]
    assert unsure(at_least, Estimate(value=0.65, low=0.55, high=0.7, n=9))
    assert not unsure(at_least, Estimate(value=0.65, low=0.61, high=0.7, n=9))
    said = broken((at_least, at_most), {"accuracy": Estimate(value=0.5, low=0.4, high=0.6, n=9)})
    assert said == [
        "accuracy is 0.5, and at least 0.6 was asked for",
        "latency_p95_ms is not defined, and at most 20 ms was asked for",
    ]


def test_a_metric_has_an_interval_that_is_never_certain() -> None:
    guard = Guard(metric="accuracy", min=0.9)
    some = MetricGuard().measured(guard, answered([True] * 15 + [False] * 5), 0)
    assert some.value == 0.75 and 0.4 < some.low < 0.75 < some.high < 1 and some.n == 20
    all_right = MetricGuard().measured(guard, answered([True] * 20), 0)
    assert all_right.value == all_right.high == 1.0
    assert all_right.low == pytest.approx(0.025 ** (1 / 20))  # Clopper and Pearson, 20 of 20
    assert unsure(guard, all_right)
    nothing = MetricGuard().measured(guard, answered([]), 0)
    assert nothing.n == 0 and not holds(guard, nothing.value)


def test_patterns_are_shares_of_answers() -> None:
    texts = ("I am a bot", "hello", "HELLO", "no promise")
    guard = Guard(forbidden=("(?i)hello", r"\bbot\b"), max=0.5)
    found = PatternGuard("forbidden").measured(guard, answered([True] * 4, texts), 0)
    assert found.value == 0.75 and not holds(guard, found.value)
    assert matches(("^no",), texts) == [False, False, False, True]
    for share, interval in ((0.0, (0.0, 1 - 0.025**0.1)), (1.0, (0.025**0.1, 1.0)), (0.5, (0.1871, 0.8129))):
        assert np.allclose(share_interval(share, 10), interval, atol=1e-4)


def test_the_95th_percentile_has_an_interval_of_ranks() -> None:
    found = quantile_estimate([float(i) for i in range(1, 201)])
    assert found.value == pytest.approx(190.05)
    assert (found.low, found.high, found.n) == (184.0, 197.0, 200)


def test_a_table_line_is_all_that_names_a_kind() -> None:
    assert set(KINDS) == {"metric", "forbidden", "required", "latency_p95_ms", "model_mb", "lm_eval"}


# --- side rows --------------------------------------------------------------------------------------------------------


def test_side_rows_are_asked_in_every_unit_and_enter_nothing_else(tmp_path: Path) -> None:
    side = side_file(tmp_path)
    bare, guarded = (
        started(tmp_path / "bare", ()),
        started(tmp_path / "guarded", (Guard(metric="accuracy", data=str(side), min=0.0),)),
    )

    class Watching(SimulatedEngine):
        """Counts the questions of each unit, and makes sure that none of them has a label."""

        def __init__(self) -> None:
            self.asked: dict[str, int] = {}

        def start(self, folder: Path, limits: Limits) -> DoneHandle:
            spec = JobSpec.model_validate_json((folder / "job.json").read_text())
            for unit in spec.units if spec.loads is None else ():
                lines = [json.loads(line) for line in (folder / unit.predict).read_text().splitlines()]
                assert all(set(line) == {"id", "text"} for line in lines)
                trained = [json.loads(line)["text"] for line in (folder / unit.train).read_text().splitlines()]
                mine = [line for line in lines if line["text"].startswith("a side row")]
                self.asked[spec.job + unit.name] = len(mine)
                assert not any(text.startswith("a side row") for text in trained)
            return super().start(folder, limits)

    plain_engine, guarded_engine = Watching(), Watching()
    driven(bare, plain_engine)
    driven(guarded, guarded_engine)
    assert set(plain_engine.asked.values()) == {0} and set(guarded_engine.asked.values()) == {24}
    with SqliteStore.open(bare, write=False) as first, SqliteStore.open(guarded, write=False) as second:
        plain, other = read_view(first), read_view(second)
    for one, two in zip(plain.tree.all(), other.tree.all(), strict=True):
        assert one.evaluation is not None and two.evaluation is not None
        assert one.evaluation.estimate.n == two.evaluation.estimate.n
        assert list(two.evaluation.guards) == ["accuracy on brand_voice"] and not one.evaluation.guards
        assert two.evaluation.guards["accuracy on brand_voice"].n == 24
    assert other.sealed is not None and plain.sealed is not None and other.sealed.n == plain.sealed.n


def test_a_unit_that_never_saw_a_label_says_nothing_about_its_side_rows() -> None:
    rows = {name: Row(name, name, label) for name, label in (("a~side0", "A"), ("b~side0", "B"), ("n~side0", "none"))}
    plan = GuardPlan(asked={"accuracy on s": tuple(rows)})
    guards = named((Guard(metric="accuracy", data="s.csv", min=0.5),))
    referee = GuardReferee(guards, plan, rows, ("A", "B"), "none", 0)
    probs, score = np.array([[0.9, 0.1]] * 3, dtype=np.float32), np.array([0.8, 0.8, 0.1], dtype=np.float32)
    outputs = UnitOutputs(tuple(rows), probs, score)
    whole, partly = UnitPlan(name="s0", train=(), items=()), UnitPlan(name="s1", train=(), items=(), held_out=("B",))
    # A is right and B wrong, each time; what is out of scope is rejected under 0.5. B counts in the first unit only.
    found = referee.of_side([(whole, outputs), (partly, outputs)], 0.5)["accuracy on s"]
    assert (found.value, found.n) == (4 / 5, 3)
    assert referee.of_side([(whole, outputs)], None)["accuracy on s"].value == 1 / 3
    assert without(outputs, rows).ids == ()


def test_train_rows_with_the_text_of_a_side_row_are_taken_out(tmp_path: Path) -> None:
    task = simulated_task(tmp_path, 3)
    side = tmp_path / "side.csv"
    lines = Path(task.data.train).read_text().splitlines()
    side.write_text("\n".join([lines[0], lines[1].upper().replace(",L00", " ,L00"), "not in train 3,L03"]) + "\n")
    task = task.model_copy(update={"guards": (Guard(metric="accuracy", data=str(side), min=0.0),)})
    with opened(start_run(task, tmp_path / "runs"), engine=SimulatedEngine()) as session:
        drive(session)
        leaked = lines[1].split(",")[0]
        assert all(row.text != leaked for part in ("train", "search", "sealed") for row in session.rows(part).values())
        assert {row.text for row in session.guards.side.values()} == {leaked.upper(), "not in train 3"}


def test_a_run_that_is_resumed_has_its_side_rows_although_the_file_is_gone(tmp_path: Path) -> None:
    side = side_file(tmp_path)
    folder = started(tmp_path, (Guard(metric="accuracy", data=str(side), min=0.0),))

    class Killed(SimulatedEngine):
        """Stops the controller at the third job."""

        count = 0

        def start(self, folder: Path, limits: Limits) -> DoneHandle:
            self.count += 1
            if self.count == 3:
                raise KeyboardInterrupt
            return super().start(folder, limits)

    with pytest.raises(KeyboardInterrupt):
        driven(folder, Killed())
    side.unlink()
    events = driven(folder)
    assert any(isinstance(event.body, FinalModel) and event.body.guards for event in events)


def test_prompts_and_labels_of_side_sets_are_checked(tmp_path: Path) -> None:
    task = simulated_task(tmp_path, 3)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("first\n\nsecond\nfirst\n")
    column = tmp_path / "prompts.csv"
    column.write_text("question,other\nwho are you,1\n")
    strange = tmp_path / "strange.csv"
    strange.write_text("text,label\nwhat,L0\nwho,L01\n")
    guards = (
        Guard(forbidden=("x",), data=str(prompts), max=0.0),
        Guard(required=("x",), data=str(column), input="question", min=0.5),
    )
    rows = side_rows(task.model_copy(update={"guards": guards})).of
    assert [row.text for row in rows["forbidden answers on prompts"]] == ["first", "second", "first"]
    assert len({row.id for row in rows["forbidden answers on prompts"]}) == 3
    assert [row.text for row in rows["required answers on prompts"]] == ["who are you"]
    for guard, message in (
        (
            Guard(metric="accuracy", data=str(strange), min=0.5),
            r"1 row of .*strange.csv with a label that no train row has \(L0\)",
        ),
        (Guard(metric="accuracy", data=str(column), min=0.5), "no column 'text'"),
        (Guard(metric="accuracy", slice=Slice(column="lang", equals="de"), min=0.5), "has no column 'lang'"),
        (Guard(metric="accuracy", slice=Slice(column="label", equals="L1"), min=0.5), "no search row has label = 'L1'"),
    ):
        faulty = task.model_copy(update={"guards": (guard,), "name": "faulty"})
        with pytest.raises(UserError, match=message), opened(start_run(faulty, tmp_path / "r")) as session:
            drive(session)


def test_a_slice_is_measured_on_its_rows_alone(tmp_path: Path) -> None:
    task = simulated_task(tmp_path, 3)
    train = Path(task.data.train)
    lines = train.read_text().splitlines()
    labels = [line.rsplit(",", 1)[1] for line in lines[1:]]
    spoken = ["de" if label in ("L00", "L01") else "en" for label in labels]
    kept = [f"{line},{language}" for line, language in zip(lines[1:], spoken, strict=True)]
    train.write_text("\n".join([f"{lines[0]},language", *kept]) + "\n")
    guard = Guard(metric="accuracy", slice=Slice(column="language", equals="de"), min=0.0)
    task = task.model_copy(update={"guards": (guard,)})
    with opened(start_run(task, tmp_path / "runs"), engine=SimulatedEngine()) as session:
        drive(session)
        name = "accuracy where language is de"
        inside = set(session.guards.plan.slices[name]["search"])
        assert {session.rows("search")[one].label for one in inside} == {"L00", "L01"}
        evaluation = session.tree.all()[1].evaluation
        assert evaluation is not None and evaluation.guards[name].n == len(inside) == 32
        assert session.sealed is not None and name in session.sealed.read.scores[0].guards


# --- who takes over ---------------------------------------------------------------------------------------------------


class Heavy(SimulatedEngine):
    """Final models of 3 MB; those of the experiments in `light` have none of it. Those in `fails` are not trained."""

    def __init__(self, light: tuple[str, ...] = (), fails: dict[str, int] | None = None) -> None:
        self.light = light
        self.fails = dict(fails or {})

    def start(self, folder: Path, limits: Limits) -> DoneHandle:
        spec = JobSpec.model_validate_json((folder / "job.json").read_text())
        if spec.save_model and self.fails.get(spec.experiment, 0) > 0:
            self.fails[spec.experiment] -= 1
            return self.timed_out()
        handle = super().start(folder, limits)
        if spec.save_model and spec.experiment not in self.light:
            (folder / "model" / "weights.safetensors").write_bytes(b"0" * 3_000_000)
        return handle


def reached(last: int, event: Event) -> bool:
    return event.seq >= last


def finals(events: tuple[Event, ...]) -> list[tuple[str, bool]]:
    return [(e.body.experiment, e.body.refused is not None) for e in events if isinstance(e.body, FinalModel)]


def certified(events: tuple[Event, ...]) -> list[str]:
    return [event.body.champion for event in events if event.body.type == "certified"]


SIZE = (Guard(measure="model_mb", max=1.0),)


def test_the_next_finalist_takes_over_from_one_that_is_too_large(tmp_path: Path) -> None:
    first = certified(driven(started(tmp_path / "plain", ())))[-1]
    with SqliteStore.open(next((tmp_path / "plain" / "runs").iterdir()), write=False) as store:
        ended = next(event.body for event in store.events() if event.body.type == "search_ended")
    others = tuple(name for name in ended.finalists if name != first)
    folder = started(tmp_path / "guarded", SIZE)
    events = driven(folder, Heavy(light=others))
    assert certified(events)[0] == first and certified(events)[-1] in others
    assert (first, True) in finals(events) and (certified(events)[-1], False) in finals(events)
    last = next(event.body for event in reversed(events) if event.body.type == "certified")
    assert f"{first} was put aside: its final model breaks a guard: model_mb is 3" in last.reason
    order = [event.body.type for event in events]
    assert order.index("final_model") < order.index("sealed_done") and order.count("sealed_done") == 1
    with SqliteStore.open(folder, write=False) as store:
        view = read_view(store)
    assert view.champion is not None and view.champion.id == certified(events)[-1]
    assert [check.holds for check in view.guards] == [True]


def test_a_run_without_a_finalist_that_keeps_its_guards_ends_with_a_clear_message(tmp_path: Path) -> None:
    folder = started(tmp_path, SIZE)
    for _ in range(2):
        with pytest.raises(PostgradError, match=r"(?s)every finalist was put aside.*model_mb is 3"):
            driven(folder, Heavy())
    with SqliteStore.open(folder, write=False) as store:
        assert not any(event.body.type == "sealed_done" for event in store.events())


class Kill(Exception):
    """The controller dies here."""


def go_on(folder: Path, light: tuple[str, ...], dies: Callable[[Event], bool] = lambda event: False) -> None:
    """Drive a run until an event at which its controller dies, if there is one."""

    def listen(event: Event) -> None:
        if dies(event):
            raise Kill

    with opened(SqliteStore.open(folder, write=True), listen, Heavy(light)) as session:
        drive(session)


def of_log(folder: Path) -> tuple[Event, ...]:
    with SqliteStore.open(folder, write=False) as store:
        return tuple(store.events())


def searched_and_ended(folder: Path) -> tuple[Path, tuple[str, ...], tuple[Event, ...]]:
    """A run that was killed when its search had ended, what is light in it, and the log of the same run when it is not
    killed again: one finalist is put aside there."""
    first = certified(driven(started(folder / "plain", (), 3)))[-1]
    light = tuple(name for name in ("e0000", "e0001", "e0002") if name != first)
    searched = started(folder / "searched", SIZE, 3)
    with pytest.raises(Kill):
        go_on(searched, light, lambda event: event.body.type == "search_ended")
    whole = Path(shutil.copytree(searched, folder / "whole"))
    go_on(whole, light)
    events = of_log(whole)
    assert len(set(certified(events))) == 2
    return searched, light, events


def test_killed_when_a_final_model_was_refused_the_next_one_takes_over(tmp_path: Path) -> None:
    searched, light, events = searched_and_ended(tmp_path)
    with pytest.raises(Kill):
        go_on(searched, light, lambda event: isinstance(event.body, FinalModel) and bool(event.body.refused))
    go_on(searched, light)
    again = of_log(searched)
    assert (certified(again), finals(again)) == (certified(events), finals(events))


@pytest.mark.slow
def test_killed_at_any_event_of_the_end_the_same_finalist_takes_over(tmp_path: Path) -> None:
    searched, light, events = searched_and_ended(tmp_path)
    begin = next(event.seq for event in events if event.body.type == "search_ended")
    for last in range(begin + 1, len(events) + 1):
        folder = Path(shutil.copytree(searched, tmp_path / f"killed-{last}"))
        with pytest.raises(Kill):
            go_on(folder, light, partial(reached, last))
        go_on(folder, light)
        again = of_log(folder)
        assert (certified(again), finals(again)) == (certified(events), finals(events)), last


@pytest.mark.parametrize(("failures", "falls"), [(1, False), (2, True)])
def test_a_final_training_is_tried_twice(tmp_path: Path, failures: int, falls: bool) -> None:
    first = certified(driven(started(tmp_path / "plain", (), 3)))[-1]
    events = driven(started(tmp_path / "failing", (), 3), Heavy(fails={first: failures}))
    assert (certified(events)[-1] != first) == falls
    assert ((first, True) in finals(events)) == falls
    if falls:
        last = next(event.body for event in reversed(events) if event.body.type == "certified")
        assert "its final training failed 2 times, the last time with resource/timeout" in last.reason


def test_no_champion_of_the_search_breaks_a_side_guard(tmp_path: Path) -> None:
    side = side_file(tmp_path, 60)
    guard = Guard(metric="accuracy", data=str(side), min=0.6)
    events = driven(started(tmp_path, (guard,), experiments=12))
    values = {
        event.body.evaluation.experiment: event.body.evaluation.guards["accuracy on brand_voice"].value
        for event in events
        if event.body.type == "evaluated" and event.body.evaluation.split == "search"
    }
    assert min(values.values()) < 0.6 <= max(values.values()), "the guard has to tell them apart"
    champions = {event.body.champion for event in events if event.body.type == "analysed"} - {None}
    assert champions and all(values[str(name)] >= 0.6 for name in champions)


# --- the report -------------------------------------------------------------------------------------------------------


def test_the_report_has_every_guard_and_the_price_of_the_gain(tmp_path: Path) -> None:
    side = side_file(tmp_path)
    guards = (
        Guard(metric="accuracy", min=0.0),
        Guard(name="brand voice", metric="accuracy", data=str(side), min=0.01),
        Guard(forbidden=("L0[0-3]",), max=0.99),
        Guard(measure="model_mb", max=5.0),
    )
    folder = started(tmp_path, guards, experiments=8)
    driven(folder, Heavy())
    with SqliteStore.open(folder, write=False) as store:
        view = read_view(store)
    checks = {check.name: check for check in view.guards}
    assert list(checks) == ["accuracy", "brand voice", "forbidden answers", "model_mb"]
    assert checks["model_mb"].final is not None and checks["model_mb"].final.value == pytest.approx(3.0, abs=0.2)
    assert checks["brand voice"].search is not None and checks["brand voice"].final is not None
    assert checks["accuracy"].sealed is not None and checks["forbidden answers"].sealed is not None
    lines = {line.what: line for line in prices(view)}
    assert list(lines) == ["MCC", "accuracy", "brand voice", "forbidden answers", "model_mb"]
    assert (lines["model_mb"].where, lines["model_mb"].champion) == ("final model", "3.0 MB")
    assert lines["accuracy"].where == "sealed" and lines["accuracy"].change
    assert "The price of each gain" in html_report(view) and "what each gain cost" in markdown_report(view)


# --- a real model -----------------------------------------------------------------------------------------------------

TEXTS = [f"{verb} my {noun} {extra}" for verb in ("open", "close", "find") for noun in ("account", "card", "order")
         for extra in ("now", "today", "please", "again", "quickly", "for me")]  # fmt: skip


def real_task(folder: Path, guards: tuple[Guard, ...]) -> TaskSpec:
    train = folder / "train.csv"
    train.write_text("text,label\n" + "".join(f"{text},{text.split()[0]}\n" for text in TEXTS))
    return TaskSpec(
        name="small",
        objective="tell verbs apart",
        data=DataSpec(train=str(train)),
        metric="accuracy",
        guards=guards,
        budget=Budget(experiments=2),
        engine=EngineSpec(workers=2, threads=1),
    )


def test_latency_and_size_of_a_real_model(tmp_path: Path) -> None:
    guards = (Guard(measure="latency_p95_ms", max=10_000), Guard(measure="model_mb", max=50))
    task = real_task(tmp_path, guards)
    assert load_parts(task).side == ()
    with opened(start_run(task, tmp_path / "runs")) as session:
        drive(session)
        assert session.certified is not None
        found = session.final_models[session.certified.champion].guards
        saved = session.store.folder / "model"
        size = sum(path.stat().st_size for path in saved.rglob("*") if path.is_file()) / 1e6
    assert found["model_mb"].value == pytest.approx(size)
    latency = found["latency_p95_ms"]
    assert latency.n >= 100 and 0 < latency.low <= latency.value <= latency.high


def test_a_model_that_cannot_be_timed_is_put_aside(tmp_path: Path) -> None:
    """The simulated engine saves no real model: nothing that is loaded answers."""
    folder = started(tmp_path, (Guard(measure="latency_p95_ms", max=10_000),), experiments=3)
    with pytest.raises(PostgradError, match="latency_p95_ms could not be measured: the process that loads the model"):
        driven(folder)


def test_guards_of_an_evaluation_of_an_older_run_are_its_metrics(tmp_path: Path) -> None:
    folder = started(tmp_path, (Guard(metric="accuracy", min=0.3),), experiments=3)
    driven(folder)
    with opened(SqliteStore.open(folder, write=True), engine=SimulatedEngine()) as session:
        _older(session)


def _older(session: Session) -> None:
    for node in session.tree.all():
        assert node.evaluation is not None
        older = node.evaluation.model_copy(update={"guards": {}})
        assert session.guards_hold(older) == session.guards_hold(node.evaluation)
