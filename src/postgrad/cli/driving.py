"""What `run` and `resume` share: the screen, Ctrl-C, the report, the summary."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Callable, Iterator, Sequence, TypeVar

from postgrad.cli.live import LiveScreen
from postgrad.cli.output import console, print_json
from postgrad.errors import Interrupted

if TYPE_CHECKING:
    from postgrad.execute.executor import RunningJob
    from postgrad.loop import Control
    from postgrad.records import TaskSpec
    from postgrad.session import Session
    from postgrad.store.sqlite import SqliteStore

Found = TypeVar("Found")

UNSANDBOXED = "Jobs run without a sandbox: what they run can read your files and use the network."


def say_source_since(store: SqliteStore, task: TaskSpec) -> None:
    """Of a script whose source is not what it was, say on standard error that the run keeps to what it began with."""
    from postgrad.scripts.history import source_since

    if task.script is not None and (said := source_since(store.folder, store.folder.name, task.script)):
        console(error=True).print(said, style="yellow", markup=False)


@contextmanager
def polite_interrupt(control: Control, screen: LiveScreen, run: str) -> Iterator[None]:
    """Ctrl-C once: no new experiments, then certify and report. Twice: stop now; `resume` goes on."""

    def handle(number: int, frame: FrameType | None) -> None:
        if control.finish:
            raise Interrupted(f"Stopped at once. Nothing is lost: go on with: postgrad resume {run}")
        control.finish = True
        screen.say("Finishing: no new experiments, then the champion is certified. Ctrl-C again stops at once.")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def drive_with_screen(store: SqliteStore, *, as_json: bool, unsandboxed: bool = False) -> None:
    """Drive a run to its end under the live screen, write its report, print its summary."""
    from postgrad.report import read_view
    from postgrad.report.summary import summary

    view = driven(store, lambda session: read_view(store), quiet=as_json, unsandboxed=unsandboxed)
    if as_json:
        print_json(summary(view))
    else:
        from postgrad.cli.summary import closing

        console().print(closing(view, store.folder))


def driven(
    store: SqliteStore,
    then: Callable[[Session], Found],
    *,
    quiet: bool,
    unsandboxed: bool = False,
    watch: Callable[[], None] = lambda: None,
) -> Found:
    """Drive a run to its end under the live screen and write its report; what `then` makes of it before it is closed.

    Args:
        watch: called many times a second; what it raises stops the run at once.
    """
    from postgrad.loop import Control
    from postgrad.report import read_view, write_report
    from postgrad.report.badcases import why_it_errs
    from postgrad.runner import drive, opened

    control = Control()
    with LiveScreen(quiet=quiet) as screen, opened(store, screen.listen, unsandboxed=unsandboxed) as session:
        screen.session = session
        if session.executor.engine.sandbox == "none":
            console(error=True).print(UNSANDBOXED, style="yellow", markup=False)

        def tick(phase: str, jobs: Sequence[RunningJob]) -> None:
            watch()
            screen.tick(phase, jobs)

        with polite_interrupt(control, screen, session.run):
            trouble = drive(session, control=control, tick=tick)
        write_report(read_view(store), store.folder, why_it_errs(store))
        found = then(session)
    if trouble:
        console(error=True).print(trouble, style="yellow", markup=False)
    return found
