"""Finding runs by name, and saying what state they are in. Reads stores; changes none."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any, Literal, Mapping

from postgrad.budget import Ledger, Spent
from postgrad.errors import PostgradError, UserError, near_miss
from postgrad.events import (
    Body,
    Certified,
    Event,
    JobFinished,
    Reopened,
    RunStarted,
    SealedDone,
    SearchEnded,
    Waiting,
    current,
    sealed_reads,
)
from postgrad.forecast import Forecast, at_end
from postgrad.people.standing import Standing
from postgrad.records import Budget, Record, SealedRead
from postgrad.store.sqlite import EVENTS, SqliteStore, run_folders
from postgrad.tree import Tree

State = Literal["running", "interrupted", "finished", "failed", "damaged"]
LAST = "last"


class RunLine(Record):
    """One run as `list` shows it. Scores are the champion's; `started` is Unix time, `spent_s` controller seconds;
    `waiting` are the experiments that wait for a person, `paused` who paused it, `waits_for` what it waits for
    while it does nothing else, `go_on` the command that makes it go on, `memory` the name that it is
    remembered under; `spent` and `granted` are the whole account, `expected` what a run that still searches will have
    used at its end."""

    run: str
    state: State
    folder: str
    task: str | None = None
    experiments: int = 0
    metric: str | None = None
    champion: str | None = None
    search: float | None = None
    sealed: float | None = None
    started: float | None = None
    spent_s: float = 0.0
    note: str = ""
    waiting: tuple[str, ...] = ()
    paused: str | None = None
    memory: str | None = None
    waits_for: str | None = None
    go_on: str | None = None
    spent: Spent = Spent()
    granted: Budget = Budget()
    expected: Forecast | None = None

    @property
    def asks(self) -> str | None:
        """What it wants of a person, in words and with the command; None where that is nothing."""
        what = f"waits for {self.waits_for}"
        if self.paused:
            what = f"paused by {self.paused}"
        elif self.waiting:
            what = f"{', '.join(self.waiting)} waiting for you"
        return f"{what}: {self.go_on}" if self.go_on else None


def find_run(runs_dir: Path, name: str) -> Path:
    """The folder of a run that is named in full, by an unambiguous beginning, as `last`, or as a path.

    Raises:
        UserError: there is no such run, or there are several.
    """
    for exact in (runs_dir / name, Path(name)):
        if (exact / EVENTS).is_file():
            return exact
    folders = run_folders(runs_dir)
    if not folders:
        raise UserError(
            f"There is no run in {runs_dir}. Start one with `postgrad run task.yaml`, or name the folder that holds "
            "the runs with --runs-dir or $POSTGRAD_RUNS."
        )
    if name == LAST:
        return folders[-1]
    found = [folder for folder in folders if folder.name.startswith(name)]
    if len(found) == 1:
        return found[0]
    names = [folder.name for folder in folders]
    if found:
        raise UserError(
            f"'{name}' is the beginning of {len(found)} runs: {', '.join(f.name for f in found)}. Add to it."
        )
    shown = ", ".join(names[-10:])
    raise UserError(f"There is no run '{name}' in {runs_dir}.{near_miss(name, names)} The newest: {shown}.")


def open_run(runs_dir: Path, name: str, *, write: bool = False) -> SqliteStore:
    """The store of a run; the caller closes it.

    Raises:
        UserError: there is no such run, it cannot be read, or, for writing, somebody else writes it.
    """
    return SqliteStore.open(find_run(runs_dir, name), write=write)


def is_being_written(folder: Path) -> bool:
    """True while a process holds the writer's lock of a run."""
    try:
        with (folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def state_of(events: tuple[Event, ...], *, written: bool) -> State:
    """What became of a run: `interrupted` can go on, `failed` ended without a champion or without its final model."""
    bodies = current(events)
    if "run_ended" in bodies:
        return "finished"
    if written:
        return "running"
    ended, last = bodies.get("search_ended"), bodies.get("job_finished")
    final_failed = isinstance(last, JobFinished) and last.purpose == "sealed" and last.result.failure is not None
    if (isinstance(ended, SearchEnded) and not ended.finalists) or final_failed:
        return "failed"
    return "interrupted"


def describe(folder: Path) -> RunLine:
    """One run as `list` shows it. A store that cannot be read is a line as well."""
    try:
        with SqliteStore.open(folder, write=False) as store:
            events = store.events()
    except (UserError, PostgradError) as problem:
        return RunLine(run=folder.name, state="damaged", folder=str(folder), note=str(problem))
    if not events or not isinstance(events[0].body, RunStarted):
        return RunLine(run=folder.name, state="interrupted", folder=str(folder), note="Stopped before its first event.")
    tree, first = Tree.from_events(events), events[0].body
    ledger = Ledger.from_events(first.task.budget, events)
    bodies = current(events)
    certified, done = bodies.get("certified"), bodies.get("sealed_done")
    sealed = done.read if isinstance(done, SealedDone) else None
    champion = certified.champion if isinstance(certified, Certified) else tree.champion
    waits = {} if "search_ended" in bodies else _waits(folder.name, tree, Standing.of(events), ledger, bodies)
    return RunLine(
        run=folder.name,
        state=state_of(events, written=is_being_written(folder)),
        folder=str(folder),
        task=first.task.name,
        experiments=len(tree),
        metric=first.task.metric,
        champion=champion,
        search=tree[champion].score if champion else None,
        sealed=next((s.estimate.value for s in sealed.scores if s.role == "champion"), None) if sealed else None,
        started=events[0].at,
        spent_s=ledger.spent.wall_s,
        note=_note(events, sealed),
        memory=first.memory,
        spent=ledger.spent,
        granted=ledger.granted,
        expected=None if "search_ended" in bodies else at_end(ledger, events[-1].clock),
        **waits,
    )


def _waits(name: str, tree: Tree, standing: Standing, ledger: Ledger, bodies: Mapping[str, Body]) -> dict[str, Any]:
    """What a run waits for: approvals, to be continued, or an idea from outside; and the command for it."""
    waiting, last = tuple(node.id for node in tree.waiting()), bodies.get("waiting")
    why = last.why if isinstance(last, Waiting) and ledger.waits_since is not None else None
    verb = None
    if standing.paused:
        verb = "continue"
    elif waiting:
        verb = f"approve {waiting[0]}"
    elif why is not None:
        verb = "inject FILE"
    return {
        "waiting": waiting,
        "paused": standing.paused.by if standing.paused else None,
        "waits_for": why,
        "go_on": f"postgrad inbox {name} {verb}" if verb else None,
    }


def _note(events: tuple[Event, ...], sealed: SealedRead | None) -> str:
    """What nobody may overlook in the sealed score of a run."""
    notes = [f"Not certified: {sealed.refused}."] if sealed and sealed.refused else []
    notes += [f"{said[0].upper()}{said[1:]}." for said in (sealed.remarks if sealed else ())]
    reasons = [body.reason for event in events if isinstance(body := event.body, Reopened)]
    if reasons:
        told = ", then because ".join(f"'{reason}'" for reason in reasons)
        count = len(sealed_reads(events))
        notes.append(f"The sealed split was read {count} time{'' if count == 1 else 's'}; reopened because {told}.")
    return " ".join(notes)
