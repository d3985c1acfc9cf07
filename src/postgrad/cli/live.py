"""The live screen of `run` and `resume`: budget used, champion with its interval, what is running and why.

On a terminal it is drawn in place; in a pipe each ended experiment is one line on standard error.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Sequence

from postgrad.cli.output import console, span
from postgrad.events import (
    Analysed,
    Certified,
    DataPrepared,
    Decided,
    Event,
    JobStarted,
    Pared,
    Proposed,
    SealedDone,
    SearchEnded,
    Waiting,
)

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.table import Table

    from postgrad.execute.executor import RunningJob
    from postgrad.records import Remembered
    from postgrad.session import Session
    from postgrad.tree import Experiment

SHOWN = 8
EVERY_S = 0.25
COLOURS = {
    "keep": "green",
    "better": "green",
    "discard": "red",
    "worse": "red",
    "retest": "yellow",
    "tie": "default",
    "raced": "yellow",
    "failed": "red",
    "unscored": "dim",
    "rejected": "dim",
}


class LiveScreen:
    """Draws a session. `listen` takes events, `tick` what is running; use as a context manager."""

    def __init__(self, quiet: bool) -> None:
        self.session: Session | None = None
        self.notice = ""
        self._console = console(error=True)
        self._quiet = quiet
        self._live: Live | None = None
        self._drawn = 0.0
        self._phase = "starting"
        self._jobs: Sequence[RunningJob] = ()

    def __enter__(self) -> LiveScreen:
        from rich.live import Live

        if self._console.is_terminal and not self._quiet:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def tick(self, phase: str, jobs: Sequence[RunningJob]) -> None:
        """Called many times a second by the loop; draws now and then."""
        if phase != self._phase and self._live is None and not self._quiet:
            self._console.print(f"[dim]{phase}[/dim]")
        self._phase, self._jobs = phase, jobs
        now = time.monotonic()
        if self._live is not None and now - self._drawn > EVERY_S:
            self._drawn = now
            self._live.update(self._screen(), refresh=True)

    def listen(self, event: Event) -> None:
        """Print what is worth keeping on the screen after the run."""
        line = self._line(event)
        if line is None or self._quiet or self.session is None:
            return
        (self._live.console if self._live is not None else self._console).print(line)

    def say(self, text: str) -> None:
        """A notice for the person, now."""
        self.notice = text
        if self._live is None:
            self._console.print(text)

    # --- lines ----------------------------------------------------------------------------------------------------

    def _line(self, event: Event) -> RenderableType | None:
        from rich.text import Text

        from postgrad.report.wording import ordinal, pared

        body = event.body
        session = self.session
        if session is None or isinstance(body, JobStarted):
            return None
        if isinstance(body, Analysed):
            node = session.tree[body.experiment]
            crowned = body.champion == body.experiment
            return Text.assemble(
                (f"{span(event.clock):>12}  ", "dim"),
                (f"{node.id}  ", "bold"),
                (f"{_score(node):>7}  ", COLOURS[body.analysis.verdict]),
                (f"{body.analysis.verdict:<9}", COLOURS[body.analysis.verdict]),
                node.proposed.proposal.change,
                ("  new champion" if crowned else "", "green bold"),
                (_costs_so_far(session, event.clock), "dim"),
            )
        if isinstance(body, Proposed | Decided | Waiting):
            return _people(session.run, event.clock, body)
        if isinstance(body, DataPrepared):
            return _prepared(event.clock, body)
        if isinstance(body, Pared):
            return Text(f"{span(event.clock):>12}  {pared(body)}", style="green" if body.dropped else "dim")
        if isinstance(body, SearchEnded):
            return Text(f"{span(event.clock):>12}  search ended: {body.reason}", style="dim")
        if isinstance(body, Certified):
            return Text(f"{span(event.clock):>12}  champion {body.champion}: {body.reason}", style="dim")
        if isinstance(body, SealedDone):
            times = "once" if body.number == 1 else f"for the {ordinal(body.number)} time"
            return Text(f"{span(event.clock):>12}  sealed split read {times}", style="dim")
        return None

    # --- screen ---------------------------------------------------------------------------------------------------

    def _screen(self) -> RenderableType:
        from rich.console import Group
        from rich.panel import Panel
        from rich.text import Text

        session = self.session
        if session is None:
            return Text(self._phase)
        parts: list[RenderableType] = [self._budget(session), self._champion(session), self._running(session)]
        if self.notice:
            parts.append(Text(self.notice, style="yellow"))
        title = Text.assemble((session.run, "bold"), f"  {self._phase}")
        return Panel(Group(*parts), title=title, title_align="left")

    def _budget(self, session: Session) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        from postgrad.forecast import at_end, in_words

        remaining = session.remaining()
        used = 1.0 - remaining.fraction
        spent = session.ledger.spent
        left = [span(remaining.wall_s) + " left"] if remaining.wall_s is not None else []
        left += [f"{remaining.experiments} experiments left"] if remaining.experiments is not None else []
        money = f"${spent.usd:.2f}" if spent.usd or session.ledger.granted.usd is not None else "no money spent"
        devices = f"{spent.gpu_s / 3600:.2f} GPU hours, " if spent.gpu_s else ""
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            "budget",
            ProgressBar(total=1.0, completed=used, width=24),
            f"{used:4.0%}  {', '.join(left) or 'no limit'}",
        )
        grid.add_row(
            "spent",
            "",
            f"{span(session.store.clock())}, {span(spent.cpu_s)} of CPU, {devices}{money}, {len(session.tree)} "
            f"experiments, {len(session.tree.failed())} failed",
        )
        expected = at_end(session.ledger, session.store.clock()) if session.search_ended is None else None
        if expected is not None:
            grid.add_row("at the end", "", in_words(expected, session.ledger.granted))
        return grid

    def _champion(self, session: Session) -> RenderableType:
        from rich.text import Text

        name = session.tree.champion
        if name is None:
            return Text("champion  none yet: the constant answer comes first", style="dim")
        node = session.tree[name]
        assert node.evaluation is not None
        found = node.evaluation.estimate
        return Text.assemble(
            "champion  ",
            (f"{name}  ", "bold green"),
            f"{node.evaluation.metric} {found.value:.3f} [{found.low:.3f}, {found.high:.3f}] on search  ",
            (node.proposed.proposal.change, "dim"),
        )

    def _running(self, session: Session) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        busy = {job.experiment: job for job in self._jobs}
        for node in session.tree.pending()[:SHOWN]:
            state = busy[node.id].progress() if node.id in busy else "waiting"
            state = f"for you to decide: postgrad inbox {session.run}" if node.waits else state
            proposal = node.proposed.proposal
            parent = f"on {node.parent}" if node.parent else "new"
            word = "running" if node.id in busy else "asks" if node.waits else "next"
            table.add_row(word, node.id, Text(parent, style="dim"), Text(proposal.change))
            table.add_row("", "", "", Text(f"why: {proposal.hypothesis}  {state}", style="dim"))
        pending = {node.id for node in session.tree.pending()}
        for job in self._jobs:
            if job.experiment not in pending:
                table.add_row("running", job.experiment, "", Text(job.progress(), style="dim"))
        return table


def _costs_so_far(session: Session, clock: float) -> str:
    """Devices and money so far, and at the end of the run at this pace; "" where there are none."""
    from postgrad.forecast import at_end

    spent, expected = session.ledger.spent, at_end(session.ledger, clock)
    parts = []
    if spent.gpu_s:
        end = f" of about {expected.gpu_hours:.2f}" if expected is not None else ""
        parts.append(f"{spent.gpu_s / 3600:.2f}{end} GPU hours")
    if spent.usd:
        end = f" of about ${expected.usd:.2f}" if expected is not None else ""
        parts.append(f"${spent.usd:.2f}{end}")
    return f"  ({', '.join(parts)})" if parts else ""


def _people(run: str, clock: float, body: Proposed | Decided | Waiting) -> RenderableType | None:
    """What waits for a person, and what a person decided; None for a proposal that needs no approval."""
    from rich.text import Text

    if isinstance(body, Proposed):
        words, style = f"{body.experiment} waits for you: {body.asks}. postgrad inbox {run}", "yellow"
        return Text(f"{span(clock):>12}  {words}", style=style) if body.asks else None
    if isinstance(body, Waiting):
        words = f"waiting: {body.why}. It costs no budget. postgrad inbox {run}"
        return Text(f"{span(clock):>12}  {words}", style="yellow")
    words = f"{body.order.by}: {body.order.wish.verb}: " + ("" if body.took_effect else "refused: ") + body.said
    return Text(f"{span(clock):>12}  {words}", style="" if body.took_effect else "yellow")


def _prepared(clock: float, body: DataPrepared) -> RenderableType | None:
    """What finished runs taught, and whether the judge can be believed; None where nothing is worth a line."""
    from rich.console import Group
    from rich.text import Text

    from postgrad.report.wording import judge_control

    taught = _remembered(clock, body.remembered) if body.remembered is not None else None
    if body.judge is None:
        return taught
    style = "dim" if body.judge.believed else "yellow"
    said = Text(f"{span(clock):>12}  {judge_control(body.judge)}", style=style)
    return said if taught is None else Group(taught, said)


def _remembered(clock: float, known: Remembered) -> RenderableType | None:
    """What finished runs taught; None where nothing is worth a line."""
    from rich.text import Text

    from postgrad.report.wording import plural

    said = list(known.notes)
    if known.runs:
        kinds = plural(len(known.priors), "kind")
        said.append(f"taught by {plural(known.runs, 'finished run')} about {kinds} of change")
    return Text(f"{span(clock):>12}  {' '.join(said)}", style="dim") if said else None


def _score(node: Experiment) -> str:
    if node.evaluation is None:
        return "-"
    return f"{node.evaluation.estimate.value:.3f}"
