"""Starting, driving and closing a run: what `run`, `resume` and the benchmarks share. No screen, no signals."""

from __future__ import annotations

import os
import platform
import shutil
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Callable, Collection, Iterator, Sequence

from postgrad import __version__
from postgrad.budget import Ledger, format_budget, merge
from postgrad.engines import ENGINES
from postgrad.engines.base import Engine, Placed
from postgrad.engines.local import LocalEngine
from postgrad.engines.remote.engine import RemoteEngine
from postgrad.errors import PostgradError, UserError
from postgrad.evaluate.hardware import time_bound, told
from postgrad.events import Event, JobFinished, Reopened, RunResumed, RunStarted, current
from postgrad.execute.executor import Executor, RunningJob
from postgrad.keeping import Keeper
from postgrad.loop import Control, Loop
from postgrad.recall import new_name, remember
from postgrad.records import Budget, Hardware, TaskSpec
from postgrad.research.assemble import ready
from postgrad.research.base import Researcher
from postgrad.scripts.asking import editor_of
from postgrad.scripts.executor import COMMAND as SCRIPT_WORKER
from postgrad.scripts.executor import ScriptExecutor
from postgrad.scripts.session import ScriptSession
from postgrad.session import Session, run_started
from postgrad.store.sqlite import SqliteStore, new_run_folder

PACKAGES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "transformers",
    "sentence-transformers",
    "peft",
    "optuna",
    "cmaes",
)
LONGEST_REASON = 500
# What tells machines apart in the first event of a run.
KINDS = ("system", "machine", "cores")

Tick = Callable[[str, Sequence[RunningJob]], None]


def machine() -> dict[str, str]:
    """What ran this: scores do not depend on it beyond floating point, times do."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
    }


def packages() -> dict[str, str]:
    """Versions of the libraries that make the numbers."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def start_run(task: TaskSpec, root: Path, task_file: Path | None = None, *, memory: bool = False) -> SqliteStore:
    """Make a new run folder under `root` and write the first event; `task_file` is where the task was read from.

    Args:
        memory: let finished runs teach this one and this one teach later ones, where the task and the person want it.
            Only for runs on somebody's real task: what a benchmark or a sentinel plants is no experience.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = new_run_folder(root, task.name)
    store = SqliteStore.create(folder)
    store.append(
        RunStarted(
            run=folder.name,
            task=task,
            task_file=str(task_file.resolve()) if task_file else None,
            postgrad=__version__,
            machine=machine(),
            packages=packages(),
            memory=new_name(task) if memory else None,
        )
    )
    return store


@contextmanager
def opened(
    store: SqliteStore,
    listener: Callable[[Event], None] = lambda event: None,
    engine: Engine | None = None,
    unsandboxed: bool = False,
) -> Iterator[Session]:
    """The run in `store` with its engine; both are closed at the end, whatever happens.

    Args:
        unsandboxed: run jobs without a sandbox this time, whatever the task says.

    Raises:
        UserError: the run has no event yet, or the engine cannot be used.
    """
    scratch = store.folder / "scratch"
    with closing(store):
        task = run_started(store).task
        with closing(engine or engine_of(task)) as used:
            wanted = task.engine.model_copy(update={"sandbox": "none"}) if unsandboxed else task.engine
            used.open(wanted)
            same_machine(store, used)
            session = _session(store, used, task, listener)
            session.task = task.model_copy(update={"engine": wanted})
            yield session
        if scratch.exists() and not any(scratch.iterdir()):
            scratch.rmdir()


def same_machine(store: SqliteStore, engine: Engine) -> None:
    """Within a fixed time, another machine trains more or less: its scores are not compared. Where the nodes of a
    cluster train, it does not matter which machine asks them to. A run of a version that recorded no hardware is held
    to the machine on which it began.

    Raises:
        UserError: experiments of a script would go on on another kind of machine.
    """
    began = run_started(store)
    if not isinstance(engine, Placed) or not time_bound(began.task):
        return
    ended = "search_ended" in current(store.in_order(("search_ended", "reopened")))
    # What is trained at the end is compared among itself.
    purposes = ("sealed",) if ended else ("search", "select")
    first = _trained_on(store, purposes)
    if first is None:
        return
    there, here = told(first), told((engine.usual,))
    if not first:
        now = machine()
        there, here = (", ".join(f"{key} {of.get(key, 'unknown')}" for key in KINDS) for of in (began.machine, now))
    if there == here:
        return
    raise UserError(
        f"The run '{store.folder.name}' trained on {there}, and here is {here}. A script trains for a fixed time, so "
        "its scores on different machines say nothing of each other. Go on where it began, or on a machine of the same "
        "kind with the same engine.threads and engine.workers, or start a new run here."
    )


def _trained_on(store: SqliteStore, purposes: Collection[str]) -> tuple[Hardware, ...] | None:
    """What the first training ran on that says so; () where none does, None where there is none."""
    found: tuple[Hardware, ...] | None = None
    for event in store.in_order(("job_finished",)):
        if isinstance(body := event.body, JobFinished) and body.purpose in purposes:
            found = body.result.hardware
            if found:
                break
    return found


def engine_of(task: TaskSpec) -> Engine:
    """The engine of a task, with the program that its jobs begin with."""
    if task.script is not None and task.engine.kind == "local":
        return LocalEngine(SCRIPT_WORKER)
    engine = ENGINES.get(task.engine.kind)
    if task.script is not None and isinstance(engine, RemoteEngine):
        engine.command = SCRIPT_WORKER
    return engine


def _session(store: SqliteStore, engine: Engine, task: TaskSpec, listener: Callable[[Event], None]) -> Session:
    scratch = store.folder / "scratch"
    if task.script is not None:
        made = ScriptSession(store, ScriptExecutor(engine, store.artifacts, scratch, task.script), listener)
        made.put_in_step()
        return made
    return Session(store, Executor(engine, store.artifacts, scratch), listener)


def drive(
    session: Session,
    *,
    control: Control | None = None,
    tick: Tick = lambda phase, jobs: None,
    researcher: Researcher | None = None,
) -> str | None:
    """Bring a run to its end. What a kill left half done is done again.

    Args:
        researcher: proposes in place of the one that the task names.

    Returns:
        Why later runs will not learn from this one, where that failed: it is no reason for the run to fail.

    Raises:
        PostgradError: there is no champion, or the final training failed.
        UserError: the data cannot be used.
    """
    if researcher is None and session.search_ended is None:
        ready(session.task)
        if isinstance(session, ScriptSession):
            researcher = editor_of(session)
    Loop(session, control or Control(), Keeper(session).beside(tick), researcher).run()
    publish_model(session, session.store.folder / "model")
    session.executor.clear()
    return remember(session)


def resume_event(store: SqliteStore, budget: Budget | None, note: str) -> None:
    """Record that a run goes on, perhaps with another budget."""
    store.append(RunResumed(note=note, budget=budget))


def reopen(store: SqliteStore, reason: str, budget: Budget | None, note: str = "") -> None:
    """Record that a run that has ended goes on: the search first, at its end one more read of the sealed labels.

    Raises:
        UserError: no reason, a run whose sealed labels were not read yet, or nothing left to search with.
    """
    name, why = store.folder.name, " ".join(reason.split())
    if not any(letter.isalnum() for letter in why):
        raise UserError(
            "A second read of the sealed split needs a reason in words: it is kept for ever and printed in every later "
            f'report. Write it as: postgrad resume {name} --again "the reason"'
        )
    if len(why) > LONGEST_REASON:
        raise UserError(f"The reason has {len(why):,} characters. Say it in at most {LONGEST_REASON}.")
    if "sealed_done" not in current(store.in_order()):
        raise UserError(
            f"The sealed split of {name} has not been read since the run was started or reopened, so there is nothing "
            f"to do again. Go on without --again: postgrad resume {name}"
        )
    body = Reopened(reason=why, budget=budget, note=note)
    ledger = Ledger.from_events(run_started(store).task.budget, store.in_order())
    granted = merge(ledger.granted, budget) if budget else ledger.granted
    if replace(ledger, granted=granted).remaining(store.clock()).empty:
        raise UserError(
            f"The budget of {name} is spent ({format_budget(granted)}), so nothing new would be read a second time. "
            "Grant more, what is spent included: --budget"
        )
    store.append(body)


def champion_model(finished: Sequence[JobFinished], champion: str) -> str:
    """The artefact of the champion's final model.

    Raises:
        PostgradError: no such model is recorded.
    """
    for body in reversed(finished):
        if body.purpose == "sealed" and body.experiment == champion and body.result.model:
            return body.result.model
    raise PostgradError(f"No final model of {champion} is recorded. `postgrad resume` the run to train it.")


def publish_model(session: Session, folder: Path) -> None:
    """Put the champion's model where a person finds it: `RUN/model`."""
    assert session.certified is not None
    artefact = champion_model(list(session.finished.apart()), session.certified.champion)
    unfinished = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    session.store.artifacts.restore_folder(artefact, unfinished)
    if folder.exists():
        shutil.rmtree(folder)
    unfinished.rename(folder)
