"""The larger setting of a script: trained at the end, measured on the sealed file, told and never decided by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from postgrad.errors import UserError
from postgrad.events import SealedDone
from postgrad.records import Transfer
from postgrad.records.job import unit_seed
from postgrad.report.markdown import markdown_report
from postgrad.report.view import build_view
from postgrad.scripts.outlook import script_outlook
from postgrad.scripts.settings import LARGER
from postgrad.spec import load_task
from test_scripts import MEASURED, REFEREE, TRAIN, driven, events_of, run_of, task_of

# In the larger setting (the word `large`) the best learning rate may be another one.
BEST = '(0.04 if "large" not in sys.argv else {best}))'
LARGE = TRAIN.replace("import json", "import sys\nimport json").replace("0.04)", BEST)
CONFIRM = f"{MEASURED}\n  confirm: python train.py large\n  confirm_time: 4s"


def read_of(folder: Path, train: str, measured: str = CONFIRM, budget: str = "8 experiments") -> tuple[Transfer, Path]:
    run = run_of(folder, task_of(folder, train, budget=budget, measured=measured))
    events = driven(run)
    (done,) = [event.body for event in events if isinstance(event.body, SealedDone)]
    assert done.read.transfer is not None and done.read.refused is None
    jobs = [event.body for event in events if event.body.type == "job_finished" and "-larger-" in event.body.job]
    assert all(job.purpose == "sealed" for job in jobs)
    assert len(jobs) in (0, 6) and len({job.job for job in jobs}) == len(jobs), "three seeds of each side, once"
    return done.read.transfer, run


@pytest.mark.parametrize(("best", "holds"), [("0.04", True), ("0.005", False)])
def test_it_says_whether_a_gain_holds_there(tmp_path: Path, best: str, holds: bool) -> None:
    told, run = read_of(tmp_path, LARGE.replace("{best}", best))
    assert told.trainings == (3, 3) and told.said == "" and told.time_s == 4
    assert told.difference is not None and told.estimates is not None
    assert (told.difference.low > 0) if holds else (told.difference.high < 0)
    champion, baseline = told.estimates
    assert told.difference.value == pytest.approx(champion.value - baseline.value)
    view = build_view(events_of(run))
    assert "in a larger setting" in markdown_report(view) and "python train.py large" in markdown_report(view)


def test_trainings_that_fail_there_are_counted_and_the_result_stands(tmp_path: Path) -> None:
    train = LARGE.replace("{best}", "0.04").replace(
        "rng =", 'if "large" in sys.argv and LEARNING_RATE == 0.01:\n    raise SystemExit(3)\nrng ='
    )
    told, run = read_of(tmp_path, train)
    assert told.trainings == (3, 0) and told.difference is None
    assert "3 of 3 final trainings of e0000 failed" in told.said
    assert "3 of 3 final trainings of e0000 failed" in markdown_report(build_view(events_of(run)))


def of_baseline(folder: Path, failing: int, lacking: int) -> Transfer:
    """Of the baseline, so many trainings there fail, and so many items are not named."""
    seeds = [unit_seed(2_000 + 1_000 * number, LARGER) for number in range(failing)]
    baseline = 'if "large" in sys.argv and LEARNING_RATE == 0.01'
    train = LARGE.replace("{best}", "0.04")
    train = train.replace(
        "rng =", f'{baseline} and int(os.environ["POSTGRAD_SEED"]) in {seeds}:\n    raise SystemExit(3)\nrng ='
    )
    train += f'{baseline}:\n    Path("out/model.json").write_text(json.dumps({{"loss": loss, "lacks": {lacking}}}))\n'
    referee = REFEREE.replace(".split()", '.split()[json.loads(Path("out/model.json").read_text()).get("lacks", 0):]')
    run = run_of(folder, task_of(folder, train, measured=CONFIRM, more={"referee.py": referee}))
    (done,) = [event.body for event in driven(run) if isinstance(event.body, SealedDone)]
    assert done.read.transfer is not None and done.read.refused is None
    return done.read.transfer


@pytest.mark.parametrize(("fail", "difference"), [(1, True), (2, False)])
def test_one_training_alone_says_nothing_of_seeds_there(tmp_path: Path, fail: int, difference: bool) -> None:
    told = of_baseline(tmp_path, fail, 0)
    assert told.trainings == (3, 3 - fail) and (told.difference is not None) == difference
    assert f"{fail} of 3 final trainings of e0000 failed" in told.said


@pytest.mark.parametrize(("lacking", "difference"), [(3, True), (10, False)])
def test_items_that_one_side_lacks_are_told_there_or_leave_no_result(
    tmp_path: Path, lacking: int, difference: bool
) -> None:
    told = of_baseline(tmp_path, 0, lacking)
    assert told.trainings == (3, 3) and (told.difference is not None) == difference
    assert f"did not name {lacking} of 50 items of e0000" in told.said
    assert told.difference is None or told.difference.n == 50 - lacking


def test_what_the_budget_does_not_hold_is_left_out_and_said(tmp_path: Path) -> None:
    dear = CONFIRM.replace("4s", "10h")
    task = task_of(tmp_path / "asked", TRAIN, measured=dear, budget="60s")
    assert any("script.confirm" in warning for warning in script_outlook(task).warnings)
    told, _ = read_of(tmp_path, TRAIN, dear, "60s")
    assert told.difference is None and told.trainings == (0, 0) and "of the budget were left" in told.said


def test_what_is_wrong_with_it_is_said(tmp_path: Path) -> None:
    task_of(tmp_path, TRAIN, measured=CONFIRM.replace("train.py large", "other.py"))
    outlook = script_outlook(load_task(tmp_path / "task.yaml"))
    assert any("script.confirm: there is no file other.py" in problem for problem in outlook.problems)
    text = (tmp_path / "task.yaml").read_text()
    (tmp_path / "task.yaml").write_text(text.replace("confirm_time: 4s", "confirm_time: soon"))
    with pytest.raises(UserError, match="script.confirm_time is 'soon'"):
        load_task(tmp_path / "task.yaml")
    assert json.loads(json.dumps(outlook.task.model_dump(mode="json")))["script"]["confirm_time_s"] == 4
