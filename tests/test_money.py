"""What a run and an experiment may spend: the task file, the ledger, limits while it runs, and what is foreseen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from postgrad.bench.overhead import SimulatedEngine, simulated_task
from postgrad.budget import Ledger
from postgrad.engines.base import Exit
from postgrad.engines.prices import Meter
from postgrad.errors import UserError
from postgrad.events import AskedInVain, Body, Event, JobFinished, JobStarted, JobStopped, RunResumed
from postgrad.forecast import at_end, beforehand, in_words
from postgrad.records import Asked, Budget, EngineSpec, Hardware, JobSpec, Limits, TaskSpec, Usage
from postgrad.runner import drive, opened, start_run
from postgrad.session import Session
from postgrad.spec import load_task
from postgrad.testing.events import a_start, job_finished, job_started, numbered, proposed

ROWS = "text,label\n" + "".join(f"words {n} of {label},{label}\n" for n in range(30) for label in "ab")
HOUR = 3600.0


def task_with(folder: Path, **keys: Any) -> TaskSpec:
    (folder / "train.csv").write_text(ROWS)
    fields = {"objective": "Tell a from b", "data": {"train": "train.csv"}, "base_models": [], **keys}
    (folder / "task.yaml").write_text(yaml.safe_dump(fields))
    return load_task(folder / "task.yaml")


# --- the task file ----------------------------------------------------------------------------------------------------


def test_budgets_of_a_run_and_of_an_experiment_are_read(tmp_path: Path) -> None:
    prices = {"cpu_core_hour": 0.04, "NVIDIA H100": 2.5, "default_gpu": 1.2}
    found = task_with(
        tmp_path,
        budget={"wall": "8h", "gpu_hours": 40, "usd": 60},
        experiment={"wall": "20m", "gpu_hours": 1, "usd": 2},
        engine={"gpus": 1, "prices": prices},
    )
    assert found.budget == Budget(wall_s=8 * HOUR, gpu_hours=40.0, usd=60.0)
    assert found.experiment == Budget(wall_s=1200.0, gpu_hours=1.0, usd=2.0)
    assert found.engine.prices == prices
    assert task_with(tmp_path, experiment="20m").experiment == Budget(wall_s=1200.0)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"budget": "1h, $5"}, r"budget.usd is 5, and an hour of a core \(cpu_core_hour\) has no price"),
        ({"experiment": "$2"}, "experiment.usd is 2, and an hour of a core"),
        ({"budget": "$5", "engine": {"gpus": 1, "prices": {"cpu_core_hour": 0.1}}}, "default_gpu.* has no price"),
        ({"budget": "1h, 2 gpu-hours"}, "budget.gpu_hours is 2, and jobs hold no device"),
        ({"experiment": {"gpu_hours": 1}}, "experiment.gpu_hours is 1, and jobs hold no device"),
        ({"experiment": "3 experiments"}, "a number of experiments is no limit of one"),
        ({"experiment": {"wal": "20m"}}, "Unknown key 'experiment.wal'"),
        ({"experiment": {"cpu_hours": -1}}, "experiment.cpu_hours is -1"),
        ({"engine": {"prices": {"default_gpu": -1}}}, "'default_gpu' costs -1"),
        ({"engine": {"prices": {"H100 MIG 1g.10gb": 1}}}, "names instances of MIG"),
        ({"engine": {"prices": {" ": 1}}}, "is no kind of hardware"),
    ],
)
def test_limits_that_could_never_hold_are_problems(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        task_with(tmp_path, **keys)
    assert "has 1 problem:" in str(caught.value)


def test_dollars_of_language_models_need_no_price_of_hardware(tmp_path: Path) -> None:
    models = {"models": [{"provider": "ollama", "model": "qwen3"}]}
    assert task_with(tmp_path, budget="1h, $5", researcher=models).budget.usd == 5.0
    assert task_with(tmp_path, budget="1h, $0").budget.usd == 0.0, "none means to do without"
    priced = {"prices": {"cpu_core_hour": 0.04}}
    assert task_with(tmp_path, budget="$5", engine=priced).budget == Budget(usd=5.0), "priced dollars end a run"


# --- the ledger -------------------------------------------------------------------------------------------------------


def holding(name: str, wall_s: float, usd: float = 0.0) -> JobStarted:
    """A job that begins on one device."""
    expected = Usage(wall_s=wall_s, gpu_s=wall_s, usd=usd)
    return job_started(name).model_copy(update={"expected": expected})


def ledger_of(*bodies: Body) -> Ledger:
    return Ledger.from_events(Budget(), numbered(bodies))


def test_devices_and_money_are_set_aside_and_then_charged() -> None:
    start = a_start(Budget(gpu_hours=2.0, usd=10.0))
    under_way = ledger_of(start, holding("a", HOUR / 2, 1.0), holding("b", HOUR / 2, 1.0))
    left = under_way.remaining(3.0)
    assert (left.gpu_hours, left.usd, left.fraction) == (1.0, 8.0, 0.5)
    used = Usage(wall_s=HOUR, gpu_s=HOUR, usd=3.0)
    done = ledger_of(start, holding("a", HOUR / 2, 1.0), job_finished("a", usage=used))
    assert (done.remaining(3.0).gpu_hours, done.remaining(3.0).usd) == (1.0, 7.0)


def test_a_job_that_was_stopped_counts_and_is_no_result() -> None:
    used = Usage(wall_s=60.0, cpu_s=50.0, gpu_s=60.0, usd=0.5)
    stopped = JobStopped(job="a-search", experiment="a", purpose="search", usage=used)
    ledger = ledger_of(a_start(), holding("a", 100.0), stopped)
    assert (ledger.spent.gpu_s, ledger.spent.cpu_s, ledger.spent.usd, ledger.spent.jobs) == (60.0, 50.0, 0.5, 0)
    assert not ledger.open


def test_what_jobs_held_when_their_controller_died_counts_once() -> None:
    """Events are one second apart: the job began at 2 and the log ends at 4, before the run goes on at 5."""
    before: list[Body] = [a_start(Budget(gpu_hours=2.0)), holding("a", 10.0, 5.0), proposed("b"), proposed("c")]
    ledger = ledger_of(*before, RunResumed())
    assert ledger.spent.gpu_s == pytest.approx(3.0) and ledger.spent.usd == pytest.approx(1.5)
    again = ledger_of(*before, RunResumed(), holding("a", 10.0, 5.0), job_finished("a", usage=Usage(gpu_s=9.0)))
    assert again.spent.gpu_s == pytest.approx(12.0)
    start = a_start()
    slurm = start.model_copy(update={"task": start.task.model_copy(update={"engine": EngineSpec(kind="slurm")})})
    assert ledger_of(slurm, *before[1:], RunResumed()).spent.gpu_s == 0.0, "nodes go on, and say all of it at the end"


def test_dollars_of_models_and_of_hardware_are_told_apart() -> None:
    asked = AskedInVain(asked=Asked(proposer="language_model", provider="p", model="m", key="k", usd=2.0))
    used = Usage(usd=1.0, gpu_s=5.0, unpriced_gpu_s=5.0)
    spent = ledger_of(a_start(), asked, job_started("a"), job_finished("a", usage=used)).spent
    assert (spent.usd, spent.asked_usd, spent.unpriced_gpu_s) == (3.0, 2.0, 5.0)


# --- what is foreseen -------------------------------------------------------------------------------------------------


def test_the_end_is_foreseen_from_the_pace_so_far() -> None:
    used = Usage(wall_s=4.0, cpu_s=8.0, gpu_s=4.0, usd=0.5)
    bodies: list[Body] = [a_start(Budget(wall_s=100.0, usd=2.0)), proposed("a"), holding("a", 4.0)]
    assert at_end(ledger_of(*bodies), 4.0) is None, "nothing was measured"
    found = at_end(ledger_of(*bodies, job_finished("a", usage=used)), 10.0)
    assert found is not None and found.ends_by == "usd"
    assert (found.wall_s, found.usd, found.experiments) == pytest.approx((40.0, 2.0, 4.0))
    assert found.gpu_hours * HOUR == pytest.approx(16.0) and found.cpu_hours * HOUR == pytest.approx(32.0)
    said = in_words(found, Budget(wall_s=100.0, usd=2.0))
    assert "$2.00" in said and "dollars will run out first" in said and "measured on 1 job in 10s" in said
    unlimited = ledger_of(a_start(Budget()), proposed("a"), holding("a", 4.0), job_finished("a", usage=used))
    assert at_end(unlimited, 10.0) is None


def test_before_a_run_sizes_and_prices_say_what_it_will_cost() -> None:
    where = Hardware(device="NVIDIA H100", devices=1, held=1.0, threads=2)
    prices = {"H100": 3.0, "cpu_core_hour": 0.5}
    budget = Budget(wall_s=8 * HOUR, gpu_hours=4.0)
    found = beforehand(budget, HOUR / 4, 2, where, prices, basis="sizes alone", end=0.2)
    assert found is not None and found.ends_by == "gpu_hours"
    assert found.gpu_hours == pytest.approx(4.0) and found.wall_s == pytest.approx(2 * HOUR)
    assert found.usd == pytest.approx(4 * (3.0 + 2 * 0.5)) and found.experiments == pytest.approx(16 * 0.8)
    assert beforehand(Budget(), 1.0, 1, where, prices, basis="x", end=0.2) is None


# --- while a run goes on ----------------------------------------------------------------------------------------------


class Ended:
    """A job that has ended: what it used, and whether that was more than it may."""

    def __init__(self, used: Usage, limits: Limits) -> None:
        over = limits.allowed is not None and limits.allowed.over(used) is not None
        self._exit = Exit(code=-15 if over else 0, cause="budget" if over else None, usage=used)

    def wait(self, timeout: float) -> Exit | None:
        return self._exit

    def stop(self) -> None:
        """Nothing runs."""


class Priced(SimulatedEngine):
    """Simulated jobs on a device each, which take 5 to 15 s as the recipe decides."""

    usual = Hardware(cpu="simulated", threads=1, device="NVIDIA H100", devices=1, held=1.0)
    prices = {"H100": 36.0}

    def start(self, folder: Path, limits: Limits) -> Any:
        super().start(folder, limits)
        recipe = JobSpec.model_validate_json((folder / "job.json").read_text()).recipe
        wall_s = 5.0 + 10.0 * int(recipe.hash[:4], 16) / 65535
        return Ended(Meter(self.usual, self.prices).used(wall_s, wall_s, 1.0), limits)


def run_with(folder: Path, budget: Budget, experiment: Budget | None = None) -> tuple[Session, tuple[Event, ...]]:
    """A whole run of simulated jobs that cost a cent a second, and its events; the session is closed."""
    engine = EngineSpec(gpus=1, prices=Priced.prices)
    changes = {"budget": budget, "experiment": experiment or Budget(), "engine": engine}
    task = simulated_task(folder, 5).model_copy(update=changes)
    with opened(start_run(task, folder / "runs"), engine=Priced()) as session:
        drive(session)
        return session, tuple(session.store.events())


@pytest.mark.parametrize("budget", [Budget(gpu_hours=0.1), Budget(usd=3.6)])
def test_a_run_ends_with_its_devices_or_its_money_and_keeps_back_what_certifying_needs(
    tmp_path: Path, budget: Budget
) -> None:
    session, events = run_with(tmp_path, budget)
    spent, ended = session.ledger.spent, session.search_ended
    assert ended is not None and ("GPU hours" if budget.gpu_hours else "dollars") in ended.reason
    assert session.sealed is not None, "the end of the run was paid for"
    assert 180.0 < spent.gpu_s <= 1.15 * 360.0, "what the end costs beyond its forecast is still paid"
    assert spent.usd == pytest.approx(spent.gpu_s / 100)
    jobs = [e.body for e in events if isinstance(e.body, JobStarted | JobFinished)]
    assert sum(b.result.usage.gpu_s for b in jobs if isinstance(b, JobFinished)) == pytest.approx(spent.gpu_s)
    assert all(b.expected is not None and b.expected.gpu_s > 0 for b in jobs if isinstance(b, JobStarted))


@pytest.mark.parametrize("limit", [Budget(wall_s=10.0), Budget(gpu_hours=10 / HOUR), Budget(usd=0.1)])
def test_an_experiment_over_its_own_budget_fails_by_name_and_the_run_goes_on(tmp_path: Path, limit: Budget) -> None:
    session, _ = run_with(tmp_path, Budget(experiments=8), limit)
    over = [node for node in session.tree.all() if node.failure is not None]
    within = [node for node in session.tree.all() if node.score is not None]
    assert over and within and session.sealed is not None
    for node in over:
        assert node.failure is not None and (node.failure.boundary, node.failure.kind) == ("resource", "budget")
        assert "Raise experiment." in node.failure.message
        assert node.analysis is not None and node.analysis.root is not None and node.analysis.root.cause == "timeout"
    assert all(node.cost_s <= 10.0 for node in within) and all(node.cost_s > 10.0 for node in over)
