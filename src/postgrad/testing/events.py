"""Events made by hand, for tests of what is derived from events. The numbers in them mean nothing."""

from __future__ import annotations

from typing import Iterable, Literal

from postgrad.events import Analysed, Body, Evaluated, Event, JobFinished, JobStarted, Proposed, RunStarted
from postgrad.records import (
    Analysis,
    Budget,
    Choice,
    DataSpec,
    Estimate,
    Evaluation,
    Failure,
    JobResult,
    Move,
    Proposal,
    Recipe,
    Split,
    Stage,
    TaskSpec,
    Usage,
)

Verdict = Literal["better", "worse", "tie", "raced", "failed", "unscored"]


def numbered(bodies: Iterable[Body]) -> tuple[Event, ...]:
    """Events with these bodies, one second apart."""
    return tuple(Event(seq=n, at=1e9 + n, clock=float(n), body=body) for n, body in enumerate(bodies, start=1))


def a_task(budget: Budget | None = None) -> TaskSpec:
    """A small task whose files are never read."""
    return TaskSpec(
        name="contract",
        objective="Tell what is asked",
        data=DataSpec(train="train.csv"),
        metric="accuracy",
        budget=budget or Budget(wall_s=60.0, experiments=3),
    )


def a_start(budget: Budget | None = None) -> RunStarted:
    """The first event of a run."""
    return RunStarted(run="contract-001", task=a_task(budget), postgrad="0", machine={"cores": "2"}, packages={})


def proposed(experiment: str, parent: str | None = None) -> Proposed:
    """A draft, or an improvement of `parent`."""
    recipe = Recipe(stage=Stage(backend="classic", params={"c": 0.5, "ngrams": (1, 2), "name": experiment}))
    proposal = Proposal(
        recipe=recipe,
        kind="draft",
        hypothesis="It may help",
        change="c",
        expected_effect=0.01,
        refuted_by="no gain",
        proposer="playbook",
        seed=0,
    )
    move = Move.DRAFT if parent is None else Move.IMPROVE
    choice = Choice(parent=parent, move=move)
    return Proposed(experiment=experiment, choice=choice, proposal=proposal, incumbent=parent, nominal_s=10.0)


def job_started(experiment: str, purpose: Split = "search", *, job: str = "", reserved_s: float = 30.0) -> JobStarted:
    """The start of the job `job`, by default the experiment's one for this split."""
    name = job or f"{experiment}-{purpose}"
    return JobStarted(job=name, experiment=experiment, purpose=purpose, units=("fold-0",), reserved_s=reserved_s)


def job_finished(
    experiment: str,
    purpose: Split = "search",
    *,
    job: str = "",
    usage: Usage | None = None,
    failure: Failure | None = None,
) -> JobFinished:
    """The end of the job `job`, by default the experiment's one for this split."""
    name = job or f"{experiment}-{purpose}"
    result = JobResult(job=name, usage=usage or Usage(wall_s=20.0, cpu_s=18.0, max_rss_mb=300.0), failure=failure)
    return JobFinished(job=name, experiment=experiment, purpose=purpose, result=result)


def evaluated(experiment: str, score: float, split: Split = "search") -> Evaluated:
    """A complete evaluation with this score."""
    return Evaluated(
        evaluation=Evaluation(
            experiment=experiment,
            split=split,
            seed=0,
            metric="accuracy",
            estimate=Estimate(value=score, low=score, high=score, n=100),
            metrics={"accuracy": score},
            threshold=None,
            items="0" * 64,
            units=1,
            units_planned=1,
        )
    )


def analysed(experiment: str, verdict: Verdict = "better", champion: str | None = None) -> Analysed:
    """The end of an experiment; `champion` is the run's from here on."""
    analysis = Analysis(verdict=verdict, against=None, difference=None, cause="")
    return Analysed(experiment=experiment, analysis=analysis, champion=champion)
