"""A finished run that is reopened: one more read of the sealed labels, with a reason, on the record for ever."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from postgrad.bench.overhead import DoneHandle, SimulatedEngine
from postgrad.budget import Ledger
from postgrad.cli.runs import describe
from postgrad.errors import PostgradError, UserError
from postgrad.evaluate.sealed import confidence_of
from postgrad.events import JobFinished, Reopened, SealedDone, SearchEnded, current, sealed_reads
from postgrad.export import export_champion
from postgrad.loop import Loop
from postgrad.records import Budget, JobSpec, Limits
from postgrad.report import read_view
from postgrad.report.card import model_card
from postgrad.report.html import html_report
from postgrad.report.markdown import markdown_report
from postgrad.report.summary import headline, summary
from postgrad.runner import drive, opened, reopen
from postgrad.seal import seal
from postgrad.session import Session
from postgrad.store.sqlite import SqliteStore
from recorded import write_run
from test_end_to_end import postgrad, write_task
from test_loop import fresh, outline, run_in_child

WHY = "the first search was cut <short> by a *power cut*"


def finished(folder: Path, experiments: int = 5, **changes: Any) -> Path:
    """A run that has ended, with its first sealed read."""
    made = fresh(folder, experiments=experiments, **changes)
    with opened(SqliteStore.open(made, write=True), engine=SimulatedEngine()) as session:
        drive(session)
    return made


def reopened(folder: Path, experiments: int, why: str = WHY) -> None:
    with SqliteStore.open(folder, write=True) as store:
        reopen(store, why, Budget(experiments=experiments))


def driven(folder: Path) -> None:
    with opened(SqliteStore.open(folder, write=True), engine=SimulatedEngine()) as session:
        drive(session)


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 5 experiments that was reopened for 3 more."""
    folder = finished(tmp_path_factory.mktemp("twice"))
    reopened(folder, 8)
    driven(folder)
    return folder


def reads(folder: Path) -> list[SealedDone]:
    with SqliteStore.open(folder, write=False) as store:
        return [e.body for e in sealed_reads(store.events()) if isinstance(e.body, SealedDone)]


# --- the run goes on ------------------------------------------------------------------------------------------------


def test_a_reopened_run_searches_on_and_reads_once_more(twice: Path) -> None:
    first, second = reads(twice)
    assert (first.number, first.reason, second.number, second.reason) == (1, None, 2, WHY)
    with SqliteStore.open(twice, write=False) as store:
        events = store.events()
        view = read_view(store)
    assert len(view.tree) == 8, "three more experiments, in the same tree"
    assert [event.body.type for event in events].count("search_ended") == 2
    assert Ledger.from_events(Budget(), events).looks["sealed"] == 2
    assert view.sealed == second.read
    assert (twice / "model" / "postgrad.json").exists()


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_killed_at_any_event_after_it_was_reopened_ends_the_same(tmp_path: Path, every: int) -> None:
    ended = finished(tmp_path / "whole")
    reopened(ended, 8)
    start = tmp_path / "start"
    shutil.copytree(ended, start)
    with SqliteStore.open(start, write=False) as store:
        at = len(store.events())
    assert run_in_child(ended, None) == 0
    with SqliteStore.open(ended, write=False) as store:
        expected, last = outline(store), len(store.events())
    assert last - at > 15
    for boundary in range(at + 1, last, every):
        folder = tmp_path / f"killed-{boundary}"
        shutil.copytree(start, folder)
        assert os.WTERMSIG(run_in_child(folder, boundary)) == signal.SIGKILL
        assert run_in_child(folder, None) == 0
        with SqliteStore.open(folder, write=False) as store:
            assert outline(store) == expected, f"killed after event {boundary}"
        shutil.rmtree(folder)


def test_three_reads_widen_the_interval_each_time(twice: Path, tmp_path: Path) -> None:
    folder = tmp_path / "third"
    shutil.copytree(twice, folder)
    reopened(folder, 9, "one more idea")
    driven(folder)
    found = reads(folder)
    assert [round(one.read.confidence, 4) for one in found] == [0.95, 0.975, 0.9833]
    assert [one.reason for one in found] == [None, WHY, "one more idea"]
    assert confidence_of(5) == pytest.approx(0.99)
    for before, after in zip(found, found[1:], strict=False):
        if before.read.scores[0].experiment == after.read.scores[0].experiment:
            assert after.read.difference.low <= before.read.difference.low
            assert after.read.difference.high >= before.read.difference.high


def test_the_same_champion_has_a_wider_interval_in_the_second_read(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    with SqliteStore.open(folder, write=True) as store:
        bodies = current(store.events())
        reopen(store, WHY, Budget(experiments=6))
        ended = bodies["search_ended"]
        assert isinstance(ended, SearchEnded)
        store.append(ended)  # The search goes on for no experiment: the same finalists are certified again.
    driven(folder)
    first, second = reads(folder)
    assert first.read.scores[0].experiment == second.read.scores[0].experiment
    assert first.read.difference.value == second.read.difference.value
    assert second.read.difference.low < first.read.difference.low
    assert second.read.difference.high > first.read.difference.high


def test_a_reference_that_becomes_champion_is_trained_again_to_keep_its_weights(tmp_path: Path) -> None:
    """Its final training of the first end kept no weights, and must not count as the one that is owed now."""
    folder = finished(tmp_path)
    champion, baseline = (score.experiment for score in reads(folder)[-1].read.scores[:2])
    assert champion != baseline
    with SqliteStore.open(folder, write=True) as store:
        reopen(store, WHY, Budget(experiments=6))
        store.append(SearchEnded(reason="by hand", finalists=(baseline,)))
    driven(folder)
    last = reads(folder)[-1].read
    assert last.scores[0].experiment == baseline
    with SqliteStore.open(folder, write=False) as store:
        kept = [e.body for e in store.events() if isinstance(e.body, JobFinished) and e.body.result.model]
    assert [body.job.endswith("-kept") for body in kept] == [False, True]
    assert [body.experiment for body in kept] == [champion, baseline]
    assert last.scores[0].outputs == kept[1].result.units[0].outputs, "the answers are those of the weights"


class Stuck(SimulatedEngine):
    """Final trainings of one experiment run into their limit. `asked` are the limits of them."""

    def __init__(self, experiment: str) -> None:
        self.experiment, self.asked = experiment, list[float]()

    def start(self, folder: Path, limits: Limits) -> DoneHandle:
        spec = JobSpec.model_validate_json((folder / "job.json").read_text())
        if spec.experiment == self.experiment and spec.units[0].name == "sealed":
            self.asked.append(limits.wall_s)
            return self.timed_out()
        return super().start(folder, limits)


def test_a_reference_that_takes_too_long_is_tried_once_and_left_out(tmp_path: Path) -> None:
    budget = Budget(experiments=5, wall_s=600.0)
    whole = reads(finished(tmp_path / "whole", budget=budget))[-1].read
    needed = {score.experiment for score in whole.scores if score.role in ("champion", "baseline")}
    spare = next(score for score in whole.scores if score.experiment not in needed)
    folder = fresh(tmp_path, budget=budget)
    engine = Stuck(spare.experiment)
    with opened(SqliteStore.open(folder, write=True), engine=engine) as session:
        drive(session)
    assert engine.asked == [600.0], "once, and for no longer than the budget"
    assert spare.role not in [score.role for score in reads(folder)[-1].read.scores]


# --- what is refused ------------------------------------------------------------------------------------------------


def run_jobs_never(jobs: object, phase: str) -> None:
    raise AssertionError("nothing is trained for a read that is refused")


def test_two_reads_of_one_end_are_impossible(twice: Path) -> None:
    with opened(SqliteStore.open(twice, write=True), engine=SimulatedEngine()) as session:
        with pytest.raises(PostgradError, match="refused"):
            seal(session, run_jobs_never)
        forget(session)
        with pytest.raises(PostgradError, match="--again"):
            Loop(session).run()
        assert len(sealed_reads(session.store.events())) == 2


def forget(session: Session) -> None:
    """What a bug might do: the session has lost that the sealed split was read."""
    del session.bodies["sealed_done"]


@pytest.mark.parametrize("why", ["", "   ", "...", "-"])
def test_a_reason_is_words(twice: Path, why: str) -> None:
    with SqliteStore.open(twice, write=True) as store, pytest.raises(UserError, match="needs a reason"):
        reopen(store, why, Budget(experiments=20))


def test_a_reason_is_short(twice: Path) -> None:
    with SqliteStore.open(twice, write=True) as store, pytest.raises(UserError, match="at most 500"):
        reopen(store, "why " * 200, Budget(experiments=20))


def test_nothing_is_reopened_that_has_not_been_read(tmp_path: Path) -> None:
    folder = fresh(tmp_path)
    with SqliteStore.open(folder, write=True) as store, pytest.raises(UserError, match="without --again"):
        reopen(store, WHY, None)


def test_a_run_that_is_reopened_already_is_not_reopened_again(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    reopened(folder, 8)
    with SqliteStore.open(folder, write=True) as store, pytest.raises(UserError, match="without --again"):
        reopen(store, "another reason", Budget(experiments=30))


def test_a_spent_budget_buys_no_second_read(twice: Path) -> None:
    with SqliteStore.open(twice, write=True) as store, pytest.raises(UserError, match="budget .* is spent"):
        reopen(store, WHY, None)


# --- what is said ---------------------------------------------------------------------------------------------------


def test_every_face_of_the_run_tells_of_both_reads(twice: Path) -> None:
    with SqliteStore.open(twice, write=False) as store:
        view = read_view(store)
    card = model_card(view, "model = load()")
    page, text, told = html_report(view), markdown_report(view), summary(view)
    for said in (page, text, card):
        assert "The sealed split was read 2 times" in said
        assert "Only the first read is untouched by selection" in said
        assert "97.5 %" in said and "power cut" in said
        assert said.index("was read 2 times") < said.index("power cut")
    assert page.index("was read 2 times") < page.index('id="sealed"'), "in the head of the page"
    assert "<short>" not in page
    assert [read["number"] for read in told["sealed_reads"]] == [1, 2]
    assert told["sealed_reads"][1]["reason"] == WHY
    assert told["sealed"]["confidence"] == pytest.approx(0.975)
    assert "97.5 % interval" in headline(view)


def test_the_list_of_runs_says_it_too(twice: Path) -> None:
    line = describe(twice)
    assert line.state == "finished" and "Not certified" in line.note
    assert "read 2 times; reopened because" in line.note and WHY in line.note


def test_a_run_that_is_reopened_has_no_result_and_keeps_its_history(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    reopened(folder, 8)
    with SqliteStore.open(folder, write=False) as store:
        view = read_view(store)
        with pytest.raises(UserError, match="postgrad resume"):
            export_champion(store, tmp_path / "model")
    assert view.sealed is None and len(view.readings) == 1
    assert "reopened" in (view.unsealed_reason or "")
    assert "read 1 time, and the run was reopened" in markdown_report(view)
    assert summary(view)["sealed"] is None and len(summary(view)["sealed_reads"]) == 1


def test_a_run_with_one_read_says_nothing_of_reads(tmp_path: Path) -> None:
    with SqliteStore.open(finished(tmp_path), write=False) as store:
        view = read_view(store)
    assert "was read" not in markdown_report(view)
    assert view.sealed is not None and view.sealed.confidence == 0.95


def test_events_of_an_end_do_not_outlive_reopening(twice: Path) -> None:
    with SqliteStore.open(twice, write=False) as store:
        events = store.events()
    at = next(number for number, event in enumerate(events) if isinstance(event.body, Reopened))
    assert {"search_ended", "certified", "sealed_done", "run_ended"} <= set(current(events[:at]))
    assert not {"search_ended", "certified", "sealed_done", "run_ended"} & set(current(events[: at + 1]))
    assert "data_prepared" in current(events[: at + 1])


# --- by command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a real run of three experiments that has ended."""
    folder = tmp_path_factory.mktemp("again")
    write_task(folder, "3 experiments")
    found = postgrad("run", "task.yaml", cwd=folder)
    assert found["certified"] is False and "18 different texts" in found["refused"], "the test file is tiny"
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--budget", "9 experiments"), "--again"),
        (("--budget", "9 experiments", "--again", ""), "needs a reason"),
        (("--budget", "9 experiments", "--again", "  !  "), "needs a reason"),
    ],
)
def test_a_second_read_is_refused_by_command(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    folder = write_run(tmp_path / "runs")
    found = postgrad("resume", "last", *words, cwd=tmp_path, code=2)
    assert said in found["error"]["message"]
    assert len(reads(folder)) == 1


@pytest.mark.slow
def test_a_run_that_has_ended_only_gets_its_report_again(tiny: Path) -> None:
    (tiny / "runs" / "tiny-001" / "report.html").unlink()
    found = postgrad("resume", "last", cwd=tiny)
    assert len(found["sealed_reads"]) == 1
    assert (tiny / "runs" / "tiny-001" / "report.html").exists()


@pytest.mark.slow
def test_again_searches_on_and_reads_a_second_time(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path, dirs_exist_ok=True)
    found = postgrad("resume", "last", "--budget", "4 experiments", "--again", "one more idea", cwd=tmp_path)
    assert found["experiments"] == 4
    assert [read["reason"] for read in found["sealed_reads"]] == [None, "one more idea"]
    assert found["looks"]["sealed"] == 2
    assert postgrad("list", cwd=tmp_path)[0]["state"] == "finished"
    shown = subprocess.run(
        [sys.executable, "-m", "postgrad", "resume", "last"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert "Not certified" in shown.stdout and "read 2 times" in shown.stdout and "one more idea" in shown.stdout
    refused = postgrad("resume", "last", "--budget", "5 experiments", cwd=tmp_path, code=2)
    assert "--again" in refused["error"]["message"]
