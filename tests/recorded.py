"""A small run as the store would hold it, written event by event, without training anything."""

from __future__ import annotations

from pathlib import Path

from postgrad.evaluate.splits import Parts, dump_rows, split_task
from postgrad.events import (
    Analysed,
    Body,
    Certified,
    DataPrepared,
    Evaluated,
    JobFinished,
    JobStarted,
    Proposed,
    RunEnded,
    RunStarted,
    SealedDone,
    SearchEnded,
)
from postgrad.records import (
    Analysis,
    Budget,
    Choice,
    Confusion,
    DataCard,
    DataSpec,
    Difference,
    Estimate,
    Evaluation,
    Failure,
    JobResult,
    Lesson,
    Move,
    Proposal,
    Recipe,
    Row,
    SealedRead,
    SealedScore,
    Stage,
    Step,
    TaskSpec,
    UnitResult,
    Usage,
)
from postgrad.store.sqlite import SqliteStore, new_run_folder

LABELS = ("refund", "opening hours", "gift card")
OUT_OF_MEMORY = Failure(boundary="resource", kind="oom", message="Out of memory.")
CONSTANT = Recipe(stage=Stage(backend="constant"))
CLASSIC = Recipe(stage=Stage(backend="classic", params={"word_max": 2, "C": 1.0}))
TUNED = Recipe(data=(Step(op="dedup"),), stage=Stage(backend="classic", params={"word_max": 3, "C": 1.0}))


def rows() -> tuple[Row, ...]:
    """Ten texts for each label."""
    texts = [(f"{label} question number {n}", label) for label in LABELS for n in range(10)]
    return tuple(Row(f"r{n:02d}", text, label) for n, (text, label) in enumerate(texts))


def task() -> TaskSpec:
    data = DataSpec(train="train.csv")
    return TaskSpec(name="shop", objective="Route messages", data=data, metric="accuracy", budget=Budget(wall_s=600))


def write_run(root: Path, *, upto: int | None = None, final_fails: bool = False) -> Path:
    """Write a finished run under `root`, or the first `upto` events of one, and return its folder.

    With `final_fails` it stops where the training of the final model failed.
    """
    folder = new_run_folder(root, "shop")
    with SqliteStore.create(folder) as store:
        bodies = events(store, folder.name)[:upto]
        for body in [*bodies[:-3], _final_job("e0002", OUT_OF_MEMORY)] if final_fails else bodies:
            store.append(body)
    return folder


def events(store: SqliteStore, run: str) -> list[Body]:
    """All events of the run: three experiments that were scored, one that failed, and the end."""
    items = [row.id for row in rows()]
    confused = Confusion(truth="refund", predicted="gift card", count=3, ids=tuple(items[:3]))
    lesson = Lesson(claim="Longer n-grams help.", experiments=("e0002",), effect=_estimate(0.1), scope="shop")
    better = Analysis(
        verdict="better",
        against="e0001",
        difference=_difference(0.1),
        cause="It tells refunds apart.",
        confusions=(confused,),
        lesson=lesson,
    )
    hung = Failure(boundary="train", kind="nan", message="The loss is not a number.", evidence="step 12 loss nan")
    lost = Analysis(verdict="failed", against=None, difference=None, cause="The loss is not a number.")
    first = Analysis(verdict="better", against=None, difference=None, cause="It is the first.")
    tie = Analysis(verdict="better", against="e0000", difference=_difference(0.5), cause="It reads the text.")
    return [
        RunStarted(run=run, task=task(), postgrad="0.1.0", machine={"cores": "2"}, packages={"numpy": "2.4.6"}),
        _prepared(store),
        *_experiment(0, CONSTANT, None, 0.33, first, "always answer the most frequent label"),
        *_experiment(1, CLASSIC, None, 0.8, tie, "TF-IDF and a linear model"),
        *_experiment(2, TUNED, "e0001", 0.9, better, "word n-grams up to 3"),
        *_failed(3, TUNED, "e0002", hung, lost),
        SearchEnded(reason="the budget is spent", finalists=("e0002", "e0001")),
        Certified(champion="e0002", baseline="e0001", threshold=None, reason="the best of 2 finalists"),
        _final_job("e0002"),
        SealedDone(read=_sealed()),
        RunEnded(reason="the budget is spent", wall_s=42.0),
    ]


def _estimate(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.05, high=value + 0.05, n=24)


def _difference(value: float) -> Difference:
    return Difference(value=value, low=value - 0.08, high=value + 0.08, p=0.01, n=24)


def _prepared(store: SqliteStore) -> DataPrepared:
    plan, parts = split_task(task(), Parts(train=rows()))
    put = store.artifacts.put_bytes
    plan = plan.model_copy(update={"rows": {name: put(dump_rows(part)) for name, part in parts.items()}})
    card = DataCard(
        rows={"train": 30},
        labels=dict.fromkeys(LABELS, 10),
        out_of_scope={},
        duplicates=0,
        leaked={},
        words_median=4.0,
        warnings=(),
    )
    return DataPrepared(card=card, labels=LABELS, plan=put(plan.model_dump_json().encode()))


def _proposed(index: int, recipe: Recipe, parent: str | None, change: str) -> Proposed:
    proposal = Proposal(
        recipe=recipe,
        kind="reference.classic" if parent is None else "features",
        hypothesis="Customers repeat short phrases.",
        change=change,
        expected_effect=0.02,
        refuted_by="the interval of the difference lies below zero",
        proposer="playbook",
        seed=0,
    )
    choice = Choice(parent=parent, move=Move.IMPROVE if parent else Move.DRAFT, reason="the best so far")
    return Proposed(experiment=f"e{index:04d}", choice=choice, proposal=proposal, incumbent=parent, nominal_s=1.0)


def _job(name: str, purpose: str, result: JobResult) -> list[Body]:
    start = {"job": result.job, "experiment": name, "purpose": purpose, "units": ("s0",), "reserved_s": 1.0}
    end = {"job": result.job, "experiment": name, "purpose": purpose, "result": result}
    return [JobStarted.model_validate(start), JobFinished.model_validate(end)]


def _experiment(
    index: int, recipe: Recipe, parent: str | None, score: float, analysis: Analysis, change: str
) -> list[Body]:
    proposed = _proposed(index, recipe, parent, change)
    name = proposed.experiment
    units = (UnitResult(name="s0", outputs="0" * 16, wall_s=1.5),)
    evaluation = Evaluation(
        experiment=name,
        split="search",
        seed=0,
        metric="accuracy",
        estimate=_estimate(score),
        metrics={"accuracy": score, "macro_f1": score - 0.01},
        threshold=None,
        items="0" * 16,
        units=5,
        units_planned=5,
    )
    result = JobResult(job=f"{name}-search-s0-0", units=units, usage=Usage(wall_s=2.0, cpu_s=1.8, max_rss_mb=90))
    closed = Analysed(experiment=name, analysis=analysis, champion=name)
    return [proposed, *_job(name, "search", result), Evaluated(evaluation=evaluation), closed]


def _failed(index: int, recipe: Recipe, parent: str, failure: Failure, analysis: Analysis) -> list[Body]:
    proposed = _proposed(index, recipe, parent, "a larger step")
    result = JobResult(job=f"{proposed.experiment}-search-s0-0", usage=Usage(wall_s=1.0), failure=failure)
    closed = Analysed(experiment=proposed.experiment, analysis=analysis, champion=parent)
    return [proposed, *_job(proposed.experiment, "search", result), closed]


def _final_job(name: str, failure: Failure | None = None) -> Body:
    result = JobResult(job=f"{name}-sealed-sealed-0", usage=Usage(wall_s=3.0, cpu_s=2.5), failure=failure)
    return JobFinished(job=result.job, experiment=name, purpose="sealed", result=result)


def _sealed() -> SealedRead:
    def score(role: str, name: str, value: float) -> SealedScore:
        numbers = {"metrics": {"accuracy": value}, "threshold": None, "outputs": "0" * 16}
        return SealedScore.model_validate({"role": role, "experiment": name, "estimate": _estimate(value), **numbers})

    scores = (score("champion", "e0002", 0.85), score("baseline", "e0001", 0.75), score("constant", "e0000", 0.33))
    return SealedRead(metric="accuracy", scores=scores, difference=_difference(0.1), mcnemar_p=0.02, n=6)
