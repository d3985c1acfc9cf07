"""Workers that cheat, in the sandbox of this machine: each is caught, or gains nothing by it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from postgrad.engines.local import LocalEngine
from postgrad.evaluate import evaluator
from postgrad.evaluate.evaluator import items_of
from postgrad.evaluate.statistics import estimate
from postgrad.execute.executor import Executor
from postgrad.metrics import METRICS
from postgrad.records import Estimate, JobResult, Recipe, Stage
from postgrad.selftest.base import Observation, Sentinel, above, shown
from postgrad.selftest.folds import reads_folds
from postgrad.selftest.place import ENGINE, Place, cheat
from postgrad.session import Job, Session
from postgrad.store.sqlite import EVENTS, SqliteStore

POLL_S = 0.05
RECIPE = Recipe(stage=Stage(backend="classic"))


@dataclass(frozen=True)
class Cheat:
    """One cheat, and how it is caught.

    Attributes:
        which: its function in `cheats.py`.
        boundary: of the failure that it must end in; None where it must come to nothing: it may end as an honest job
            does, and its score must not be above chance.
        says: a part of the failure's message. A cheat that crashed by itself was not caught.
    """

    which: str
    what: str
    boundary: str | None
    says: str = ""
    save_model: bool = False


CHEATS = (
    Cheat("false_metric", "prints a false metric", None),
    Cheat("false_score", "writes a score into its result", "predict"),
    Cheat("edits_scorer", "edits the scorer", "isolation"),
    Cheat("edits_scorer_quietly", "edits the scorer past the tripwire", "train", "code 13"),
    Cheat("reads_store", "reads the store", "isolation"),
    Cheat("reads_store_quietly", "reads labels in the store past the tripwire", None),
    Cheat("reads_order", "reads labels off the order of its questions", None),
    Cheat("swaps_weights", "swaps the weights", "isolation", save_model=True),
)


def play(place: Place) -> Iterator[Observation]:
    """Each cheat gets one real fold of a real run, whose store lies where a run's store lies."""
    folder = place.plain
    for number, each in enumerate(CHEATS):
        place.say(f"a worker that {each.what}")
        yield caught(each, folder, number)
    place.say("a foreign backend that reads the labels of other folds")
    yield reads_folds(place)


def caught(each: Cheat, folder: Path, number: int = 0) -> Observation:
    """Let a cheat have a fold of the run in `folder`. `number` tells several jobs of one cheat apart."""
    with SqliteStore.open(folder, write=True) as store:
        return _said(each, *_played(each, store, number))


def _played(each: Cheat, store: SqliteStore, number: int) -> tuple[JobResult, Estimate | None, str]:
    """The cheat's result, what the referee's own score of its answers is, and the sandbox it ran in. Nothing of it
    enters the run's log."""
    engine, referee = cheat(each.which, **_facts(store)), LocalEngine()
    with closing(engine), closing(referee):
        for opened in (engine, referee):
            opened.open(ENGINE)
        executor = Executor(engine, store.artifacts, store.folder / "scratch", referee)
        session = Session(store, executor, lambda event: None)
        unit = session.plan.search[0]
        job = Job("e0000", "search", (unit,), RECIPE, number, save_model=each.save_model)
        running = executor.start(session.job_spec(job), session.inputs(job))
        while (result := running.poll(POLL_S)) is None:
            continue
        executor.clear()
        if not result.units:
            return result, None, engine.sandbox
        outputs = session.outputs(result.units[0].outputs)
        items = items_of(unit.name, outputs, session.rows("search"), session.plan)
        return result, estimate(METRICS.get("mcc"), items, seed=0), engine.sandbox


def _facts(store: SqliteStore) -> dict[str, str]:
    """Where things are. They are none of the job's business."""
    session = Session(store, Executor(LocalEngine(), store.artifacts, store.folder / "scratch"), lambda event: None)
    return {
        "scorer": str(evaluator.__file__),
        "events": str((store.folder / EVENTS).absolute()),
        "rows": str(store.artifacts.path(session.plan.rows["search"]).absolute()),
    }


def _said(each: Cheat, result: JobResult, score: Estimate | None, sandbox: str) -> Observation:
    failure = result.failure
    if failure is not None:
        found = f"{'refused, ' if failure.boundary == 'train' else ''}{failure.boundary}/{failure.kind}"
        ok = failure.boundary == each.boundary and each.says in failure.message
        ok = ok and not result.units and result.model is None
        return Observation(ok=ok, words=f"{each.what}: {found}")
    if each.boundary is not None or score is None:
        return Observation(ok=False, words=f"{each.what}: it worked (sandbox: {sandbox})")
    won = above(score, 0.0)
    words = f"{each.what}: {'it worked' if won else 'no effect'}, scored {shown(score)}"
    return Observation(ok=not won, words=words)


SENTINEL = Sentinel("workers", "workers that lie, snoop or swap are caught, or gain nothing", 13.0, play)
