"""Budgets as people write them, and the ledger: reserve before, charge after, count the looks."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postgrad.budget import Ledger, Remaining, Spent, format_budget, format_duration, merge, parse_budget
from postgrad.errors import UserError
from postgrad.events import Body, RunEnded, RunResumed, SealedDone
from postgrad.records import Budget, Difference, Failure, SealedRead, Usage
from postgrad.testing.events import a_start, evaluated, job_finished, job_started, numbered, proposed

# --- what a user writes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("20m", Budget(wall_s=1200)),
        ("8h", Budget(wall_s=28800)),
        ("90s", Budget(wall_s=90)),
        ("1h30m", Budget(wall_s=5400)),
        ("1h 30m", Budget(wall_s=5400)),
        ("1.5h", Budget(wall_s=5400)),
        ("2 days", Budget(wall_s=172800)),
        ("20 Minutes", Budget(wall_s=1200)),
        ("40 experiments", Budget(experiments=40)),
        ("1 experiment", Budget(experiments=1)),
        ("2 cpu_hours", Budget(cpu_hours=2)),
        ("2 cpu-hours", Budget(cpu_hours=2)),
        ("0.5 gpu hours", Budget(gpu_hours=0.5)),
        ("5 usd", Budget(usd=5)),
        ("$5", Budget(usd=5)),
        ("$0", Budget(usd=0)),
        ("20 GB", Budget(disk_gb=20)),
        ("1.5TB", Budget(disk_gb=1500)),
        ("8h, 40 experiments,$2.50", Budget(wall_s=28800, experiments=40, usd=2.5)),
    ],
)
def test_budgets_that_people_write(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize(
    ("text", "part_of_message"),
    [
        ("", "Cannot read ''"),
        ("20", "Cannot read '20'"),
        ("-5m", "Cannot read '-5m'"),
        ("20m,", "Cannot read ''"),
        ("1e9h", "'1e9h'"),
        ("nan h", "Cannot read"),
        ("inf", "Cannot read"),
        ("9999999999s", "Cannot read"),
        ("9" * 5000 + "h", "Cannot read"),
        ("$", "Cannot read '\\$'"),
        ("ten minutes", "Cannot read"),
        ("20 parsecs", "Unknown unit 'parsecs'"),
        ("3 experimets", "Did you mean 'experiments'"),
        ("0m", "grants no time"),
        ("0 experiments", "grants no experiments"),
        ("0 cpu-hours", "grants no cpu hours"),
        ("1.5 experiments", "whole number"),
        ("20m, 1h", "limits time twice"),
        ("1h1h", "same unit twice"),
        ("20m 5 usd", "comma"),
    ],
)
def test_what_is_no_budget_gets_a_clear_message(text: str, part_of_message: str) -> None:
    with pytest.raises(UserError, match=part_of_message):
        parse_budget(text)


@given(st.text(max_size=12) | st.text("0123456789.,hms $eusdxpr-_", max_size=16))
@settings(deadline=None, database=None)
def test_any_text_is_a_budget_or_gets_a_message(text: str) -> None:
    try:
        budget = parse_budget(text)
    except UserError:
        return
    assert any(limit is not None for limit in budget.model_dump().values())


@given(st.integers(1, 10**8))
@settings(deadline=None, database=None)
def test_a_duration_that_was_written_is_read_back(seconds: int) -> None:
    assert parse_budget(format_duration(seconds)) == Budget(wall_s=seconds)


@given(
    st.builds(
        Budget,
        wall_s=st.none() | st.integers(1, 10**7),
        experiments=st.none() | st.integers(1, 10**6),
        cpu_hours=st.none() | st.integers(1, 4000).map(lambda n: n / 8),
        disk_gb=st.none() | st.integers(1, 4000).map(lambda n: n / 8) | st.just(0.0005),
        gpu_hours=st.none() | st.integers(1, 4000).map(lambda n: n / 8),
        usd=st.none() | st.integers(0, 10**5).map(lambda n: n / 100),
    )
)
@settings(deadline=None, database=None)
def test_a_budget_that_was_written_is_read_back(budget: Budget) -> None:
    if budget == Budget():
        assert format_budget(budget) == "no limit"
    else:
        assert parse_budget(format_budget(budget)) == budget


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.04, "0s"),
        (4.26, "4.3s"),
        (9.97, "10s"),
        (59.6, "1m"),
        (90, "1m30s"),
        (3599.7, "1h"),
        (5400, "1h30m"),
        (3601, "1h1s"),
        (90000, "1d1h"),
        (-75, "-1m15s"),
    ],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_merge_takes_what_the_override_sets() -> None:
    base = Budget(wall_s=60, experiments=5)
    assert merge(base, Budget(wall_s=120, usd=0)) == Budget(wall_s=120, experiments=5, usd=0)
    assert merge(base, Budget()) == base


# --- the ledger ------------------------------------------------------------------------------------------------------


def ledger_of(*bodies: Body) -> Ledger:
    return Ledger.from_events(Budget(), numbered(bodies))


def test_an_empty_ledger_has_spent_nothing_and_limits_nothing() -> None:
    ledger = Ledger.from_events(Budget(), ())
    assert ledger.spent == Spent()
    assert ledger.looks == {"search": 0, "select": 0, "sealed": 0}
    assert ledger.remaining(1e9) == Remaining(fraction=1.0)
    assert not ledger.remaining(1e9).empty


def test_the_grant_is_the_task_s_until_a_resume_changes_it() -> None:
    started = a_start(Budget(wall_s=60, experiments=3))
    assert Ledger.from_events(Budget(wall_s=7), ()).granted == Budget(wall_s=7)
    assert Ledger.from_events(Budget(wall_s=7), numbered([started])).granted == Budget(wall_s=60, experiments=3)
    assert ledger_of(started, RunResumed()).granted == Budget(wall_s=60, experiments=3)
    more = RunResumed(budget=Budget(wall_s=600))
    assert ledger_of(started, more).granted == Budget(wall_s=600, experiments=3)


def test_a_job_is_reserved_for_and_then_charged() -> None:
    usage = Usage(wall_s=20.0, cpu_s=36.0, gpu_s=7.2, usd=0.25, max_rss_mb=300.0)
    before: list[Body] = [a_start(Budget(cpu_hours=1.0)), proposed("a"), job_started("a", reserved_s=360.0)]
    under_way = ledger_of(*before)
    assert under_way.reserved == 360.0
    assert under_way.spent.jobs == 0
    assert under_way.remaining(0.0).cpu_hours == pytest.approx(0.9)
    done = ledger_of(*before, job_finished("a", usage=usage))
    assert done.reserved == 0.0
    assert done.spent == Spent(
        wall_s=4.0, cpu_s=36.0, gpu_s=7.2, usd=0.25, experiments=1, jobs=1, failures=0, max_rss_mb=300.0
    )
    assert done.remaining(0.0).cpu_hours == pytest.approx(0.99)


def test_charges_add_up_and_memory_is_the_largest() -> None:
    failure = Failure(boundary="resource", kind="memory", message="Too much.")
    spent = ledger_of(
        proposed("a"),
        proposed("b"),
        job_started("a"),
        job_started("b"),
        job_finished("a", usage=Usage(cpu_s=1.0, usd=0.5, max_rss_mb=900.0)),
        job_finished("b", usage=Usage(cpu_s=2.0, usd=0.25, max_rss_mb=100.0), failure=failure),
    ).spent
    assert (spent.cpu_s, spent.usd, spent.max_rss_mb) == (3.0, 0.75, 900.0)
    assert (spent.experiments, spent.jobs, spent.failures, spent.wall_s) == (2, 2, 1, 6.0)


def test_reservations_of_a_controller_that_died_are_given_back() -> None:
    assert ledger_of(job_started("a"), job_started("b"), RunResumed()).reserved == 0.0
    assert ledger_of(job_started("a"), RunResumed(), job_started("a")).reserved == 30.0
    assert ledger_of(job_started("a"), job_started("a")).reserved == 30.0


def test_every_look_counts() -> None:
    read = SealedRead(
        metric="accuracy", scores=(), difference=Difference(value=0, low=0, high=0, p=1, n=1), mcnemar_p=1.0, n=1
    )
    ledger = ledger_of(
        evaluated("a", 0.5),
        evaluated("b", 0.5),
        evaluated("a", 0.5, "select"),
        SealedDone(read=read),
    )
    assert ledger.looks == {"search": 2, "select": 1, "sealed": 1}


def test_wall_time_is_the_clock_and_nothing_is_below_zero() -> None:
    ledger = ledger_of(a_start(Budget(wall_s=60.0)), job_started("a", reserved_s=500.0))
    assert ledger.remaining(15.0).wall_s == 45.0
    assert ledger.remaining(15.0).fraction == 0.75
    assert not ledger.remaining(59.0).empty
    over = ledger.remaining(61.0)
    assert (over.wall_s, over.fraction, over.empty) == (0.0, 0.0, True)


def test_the_scarcest_limit_decides() -> None:
    ledger = ledger_of(a_start(Budget(wall_s=100.0, experiments=4, usd=1.0)), proposed("a"), proposed("b"))
    left = ledger.remaining(10.0)
    assert (left.wall_s, left.experiments, left.usd, left.fraction) == (90.0, 2, 1.0, 0.5)
    assert isinstance(left.experiments, int)
    assert left.cpu_hours is None
    assert ledger_of(a_start(Budget(experiments=1)), proposed("a")).remaining(0.0).empty


def test_no_dollars_means_do_without_and_no_experiments_means_stop() -> None:
    without: list[Body] = [a_start(Budget(usd=0.0, gpu_hours=0.0)), job_started("a")]
    assert ledger_of(*without).remaining(0.0).fraction == 1.0
    assert ledger_of(*without, job_finished("a", usage=Usage(usd=0.01))).remaining(0.0).empty
    assert ledger_of(a_start(Budget(experiments=0))).remaining(0.0).empty


def test_more_budget_after_running_out_goes_on() -> None:
    out: list[Body] = [a_start(Budget(experiments=1)), proposed("a"), RunEnded(reason="budget", wall_s=2.0)]
    assert ledger_of(*out).remaining(3.0).empty
    left = ledger_of(*out, RunResumed(budget=Budget(experiments=4))).remaining(3.0)
    assert (left.experiments, left.fraction) == (3, 0.75)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 1e6)), max_size=12))
@settings(deadline=None, database=None)
def test_what_was_reserved_is_given_back_when_every_job_has_ended(jobs: list[tuple[str, float]]) -> None:
    starts = [job_started(name, job=f"{name}{n}", reserved_s=seconds) for n, (name, seconds) in enumerate(jobs)]
    ends = [job_finished(body.experiment, job=body.job) for body in reversed(starts)]
    ledger = ledger_of(*starts)
    assert ledger.reserved == pytest.approx(sum(seconds for _, seconds in jobs))
    after = ledger_of(*starts, *ends)
    assert after.reserved == 0.0
    assert after.spent.jobs == len(jobs)


def test_a_ledger_does_not_change() -> None:
    before = ledger_of(a_start(), job_started("a"))
    for event in numbered([job_finished("a"), evaluated("a", 0.5), RunResumed(budget=Budget(usd=9))]):
        before.with_event(event)
    assert before == ledger_of(a_start(), job_started("a"))
