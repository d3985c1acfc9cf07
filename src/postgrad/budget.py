"""The one account of a run: what was granted, what is spent, what is left, and how often the referee was asked.

The ledger is derived from the events and never stored. It reserves before a job and charges after it; running out is a
normal end. It does not decide what a job may cost, and it stops nothing: the loop does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Iterable

from postgrad.errors import UserError, near_miss
from postgrad.events import (
    AskedInVain,
    BadCasesDescribed,
    Decided,
    Evaluated,
    Event,
    JobFinished,
    JobStarted,
    JobStopped,
    Proposed,
    Rebuilt,
    Reopened,
    RunResumed,
    RunStarted,
    SealedDone,
    Waiting,
    WentOn,
)
from postgrad.records import Asked, Budget, Grant, Record, Reject, Usage

HOUR = 3600.0
# The engine whose jobs die with their controller.
LOCAL = "local"

# Nothing granted of these means "do without", not "stop at once".
_MAY_BE_ZERO = ("gpu_hours", "usd")
_SECONDS = {"d": 86400.0, "h": HOUR, "m": 60.0, "s": 1.0}
_TIME_WORDS = {
    **dict.fromkeys(("d", "day", "days"), "d"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
}
_OTHER_WORDS = {
    **dict.fromkeys(("experiment", "experiments"), "experiments"),
    **dict.fromkeys(("cpu_hour", "cpu_hours"), "cpu_hours"),
    **dict.fromkeys(("gpu_hour", "gpu_hours"), "gpu_hours"),
    **dict.fromkeys(("usd", "dollar", "dollars"), "usd"),
}
_DISK_WORDS = {"mb": 0.001, "gb": 1.0, "tb": 1000.0}
# Nine digits are 31 years of seconds: more is a slip of the finger.
_AMOUNT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) *([a-z]+(?:[ _-][a-z]+)*)")
_EXAMPLES = (
    "Write it as '20m', '1h30m', '40 experiments', '2 cpu-hours', '$5', '20 GB', or several with commas: '8h, $5'."
)


# --- what a user writes ----------------------------------------------------------------------------------------------


def parse_budget(text: str) -> Budget:
    """Read a budget as a person writes it: "20m", "1h30m", "40 experiments", "2 cpu_hours", "$5", or several.

    Several limits are separated by commas. Upper and lower case mean the same.

    Raises:
        UserError: the text is no budget; the message shows how to write one.
    """
    limits: dict[str, float] = {}
    for part in text.lower().split(","):
        kind, amount = _parse_limit(part.strip(), text)
        if kind in limits:
            raise UserError(f"The budget '{text}' limits {_called(kind)} twice. Give each limit once. {_EXAMPLES}")
        if amount <= 0 and kind not in _MAY_BE_ZERO:
            raise UserError(f"The budget '{text}' grants no {_called(kind)}. Give more than 0. {_EXAMPLES}")
        limits[kind] = amount
    count = limits.pop("experiments", None)
    if count is not None and count != int(count):
        raise UserError(f"The budget '{text}' asks for {count:g} experiments. Give a whole number.")
    return Budget(experiments=None if count is None else int(count), **limits)


def _called(kind: str) -> str:
    return {"wall_s": "time", "disk_gb": "disk"}.get(kind, kind.replace("_", " "))


def _parse_limit(part: str, text: str) -> tuple[str, float]:
    """Return the kind of one limit (a field of Budget) and its amount."""
    plain = f"{part[1:].strip()} usd" if part.startswith("$") else part
    amounts = _AMOUNT.findall(plain)
    if not amounts or _AMOUNT.sub("", plain).strip():
        raise UserError(f"Cannot read '{part}' in the budget '{text}'. {_EXAMPLES}")
    words = [re.sub(r"[ -]", "_", word) for _, word in amounts]
    units = [_TIME_WORDS.get(word) for word in words]
    if len(amounts) == 1 and words[0] in _OTHER_WORDS:
        return _OTHER_WORDS[words[0]], float(amounts[0][0])
    if len(amounts) == 1 and words[0] in _DISK_WORDS:
        return "disk_gb", float(amounts[0][0]) * _DISK_WORDS[words[0]]
    if None in units:
        known = (*_TIME_WORDS, *_OTHER_WORDS, *_DISK_WORDS)
        wrong = next((w for w in words if w not in known), None)
        if wrong is None:
            raise UserError(f"Put a comma between the limits in the budget '{text}'. {_EXAMPLES}")
        hint = near_miss(wrong, known)
        raise UserError(f"Unknown unit '{wrong}' in the budget '{text}'.{hint} {_EXAMPLES}")
    if len(set(units)) < len(units):
        raise UserError(f"The budget '{text}' names the same unit twice in '{part}'. {_EXAMPLES}")
    return "wall_s", sum(
        float(amount) * _SECONDS[unit] for (amount, _), unit in zip(amounts, units, strict=True) if unit
    )


def format_duration(seconds: float) -> str:
    """Return whole seconds as "1h30m"; one decimal below ten seconds. `parse_budget` reads whole seconds back."""
    sign = "-" if seconds < 0 else ""
    left = abs(seconds)
    if left < 9.95:
        return f"{sign}{left:.1f}".removesuffix(".0") + "s"
    whole = round(left)
    parts = []
    for unit, size in _SECONDS.items():
        count, whole = divmod(whole, int(size))
        if count:
            parts.append(f"{count}{unit}")
    return sign + "".join(parts)


def format_budget(budget: Budget) -> str:
    """Return a budget as a person writes it, "no limit" when nothing is limited. `parse_budget` reads it back, to whole
    seconds and six digits."""
    parts = []
    if budget.wall_s is not None:
        parts.append(format_duration(budget.wall_s))
    if budget.experiments is not None:
        parts.append(f"{budget.experiments} experiment{'' if budget.experiments == 1 else 's'}")
    if budget.cpu_hours is not None:
        parts.append(f"{budget.cpu_hours:g} cpu-hours")
    if budget.gpu_hours is not None:
        parts.append(f"{budget.gpu_hours:g} gpu-hours")
    if budget.usd is not None:
        parts.append(f"${budget.usd:g}")
    if budget.disk_gb is not None:
        small = budget.disk_gb < 0.1
        parts.append(f"{1000 * budget.disk_gb:g} MB" if small else f"{budget.disk_gb:g} GB")
    return ", ".join(parts) or "no limit"


def merge(base: Budget, override: Budget) -> Budget:
    """Return `base` with every limit that `override` sets."""
    return base.model_copy(update={k: v for k, v in override.model_dump().items() if v is not None})


# --- what was spent --------------------------------------------------------------------------------------------------


class Spent(Record):
    """What a run has used.

    `wall_s` is controller time up to the last event, less what the run only waited for a person; the other amounts are
    sums over finished jobs and over trainings that made again what was lost, `max_rss_mb` the largest of them.
    `experiments` counts proposals that nobody rejected, `jobs` finished jobs, `failures` those that ended in a Failure.
    `asked` counts questions to language models and other programs, `tokens_in` and `tokens_out` what models read and
    wrote; their dollars are in `usd`, and by themselves in `asked_usd`; those of a model without a known price are in
    no sum. The other dollars are those of hardware, by the person's prices; `unpriced_gpu_s` has none.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    usd: float = 0.0
    experiments: int = 0
    jobs: int = 0
    failures: int = 0
    max_rss_mb: float = 0.0
    asked: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    asked_usd: float = 0.0
    unpriced_gpu_s: float = 0.0

    def with_usage(self, usage: Usage) -> Spent:
        """The same with what a job used."""
        return self.model_copy(
            update={
                "cpu_s": self.cpu_s + usage.cpu_s,
                "gpu_s": self.gpu_s + usage.gpu_s,
                "usd": self.usd + usage.usd,
                "max_rss_mb": max(self.max_rss_mb, usage.max_rss_mb),
                "unpriced_gpu_s": self.unpriced_gpu_s + usage.unpriced_gpu_s,
            }
        )


class Remaining(Record):
    """What is left. `None` is no limit of that kind; nothing is below zero.

    `fraction` is the left share of the scarcest limit, in [0, 1]; 1.0 when nothing is limited. A grant of no GPU hours
    or no dollars is not scarce: the run does without them. `affordable_s` is what one more experiment may cost, in
    nominal seconds, where somebody who knows the machine and what certifying needs has worked it out.
    """

    wall_s: float | None = None
    experiments: int | None = None
    cpu_hours: float | None = None
    gpu_hours: float | None = None
    usd: float | None = None
    fraction: float = 1.0
    affordable_s: float | None = None

    @property
    def empty(self) -> bool:
        """True when a limit is used up."""
        return self.fraction <= 0.0


class Open(Record):
    """A job that has started and not finished.

    Attributes:
        clock: controller seconds when it began.
        reserved_s: seconds set aside for it.
        expected: what it is expected to use, where it holds devices or has a price.
    """

    clock: float
    reserved_s: float
    expected: Usage | None = None

    def until(self, clock: float) -> Usage:
        """What it has used of devices and money by then, as far as the log says: nobody measured it to its end."""
        expected = self.expected
        if expected is None or expected.wall_s <= 0.0:
            return Usage()
        wall_s = max(0.0, clock - self.clock)
        share = wall_s / expected.wall_s
        return Usage(wall_s=wall_s, gpu_s=expected.gpu_s * share, usd=expected.usd * share)


def _no_looks() -> dict[str, int]:
    return {"search": 0, "select": 0, "sealed": 0}


@dataclass(frozen=True)
class Ledger:
    """The account after some events. An event makes a new ledger.

    Attributes:
        granted: the limits. RunStarted sets them; RunResumed, Reopened and a person's order may change some.
        spent: what is charged.
        looks: how often each split was read: one per Evaluated, one per SealedDone.
        open: the jobs that have started and not finished, and what is set aside for them.
        dies_with_us: jobs end with their controller: those of this machine do, those of a cluster go on.
        waited: controller seconds in which the run only waited for a person.
        waits_since: the clock when it began to wait; None where it does not wait.
    """

    granted: Budget = Budget()
    spent: Spent = Spent()
    looks: dict[str, int] = field(default_factory=_no_looks)
    open: dict[str, Open] = field(default_factory=dict)
    dies_with_us: bool = True
    waited: float = 0.0
    waits_since: float | None = None

    @classmethod
    def from_events(cls, granted: Budget, events: Iterable[Event]) -> Ledger:
        """Fold events. `granted` holds until a RunStarted says otherwise."""
        ledger = cls(granted=granted)
        for event in events:
            ledger = ledger.with_event(event)
        return ledger

    def with_event(self, event: Event) -> Ledger:
        """Return the ledger after one more event."""
        body = event.body
        wall_s = max(self.spent.wall_s, self.charged(event.clock))
        after = replace(self, spent=self.spent.model_copy(update={"wall_s": wall_s}))
        if isinstance(body, RunStarted):
            return replace(after, granted=body.task.budget, dies_with_us=body.task.engine.kind == LOCAL)
        if isinstance(body, RunResumed | Reopened):
            granted = merge(self.granted, body.budget) if body.budget else self.granted
            return replace(after._left_alone(event.clock), granted=granted)
        if isinstance(body, Waiting):
            return replace(after, waits_since=event.clock)
        if isinstance(body, WentOn):
            since = event.clock if self.waits_since is None else self.waits_since
            return replace(after, waited=self.waited + event.clock - since, waits_since=None)
        if isinstance(body, Decided):
            return after._decided(body)
        if isinstance(body, Proposed):
            return after._proposed(body)
        if isinstance(body, AskedInVain | BadCasesDescribed):
            return after._asked(body.asked)
        if isinstance(body, JobStarted):
            return after._opened(body, event.clock)
        if isinstance(body, JobFinished):
            return after._charged(body)
        if isinstance(body, JobStopped):
            return replace(after, spent=after.spent.with_usage(body.usage), open=after._without(body.job))
        if isinstance(body, Rebuilt):
            return replace(after, spent=after.spent.with_usage(body.usage))
        if isinstance(body, Evaluated):
            return after._looked(body.evaluation.split)
        if isinstance(body, SealedDone):
            return after._looked("sealed")
        return after

    def _opened(self, body: JobStarted, clock: float) -> Ledger:
        found = Open(clock=clock, reserved_s=body.reserved_s, expected=body.expected)
        return replace(self, open={**self.open, body.job: found})

    def _without(self, job: str) -> dict[str, Open]:
        return {name: each for name, each in self.open.items() if name != job}

    def _left_alone(self, clock: float) -> Ledger:
        """The controller that ended left its jobs: those still owed are started, and reserved for, again. Of those that
        ended with it, what they held until then counts; those of a cluster say all of it at their own end."""
        spent = self.spent
        for each in self.open.values() if self.dies_with_us else ():
            spent = spent.with_usage(each.until(clock))
        return replace(self, spent=spent, open={})

    def _proposed(self, body: Proposed) -> Ledger:
        counted = self.spent.model_copy(update={"experiments": self.spent.experiments + 1})
        after, asked = replace(self, spent=counted), body.proposal.asked
        return after if asked is None else after._asked(asked)

    def _asked(self, asked: Asked) -> Ledger:
        """A question to a language model or another program."""
        spent = self.spent
        charged = {
            "asked": spent.asked + 1,
            "tokens_in": spent.tokens_in + asked.tokens_in,
            "tokens_out": spent.tokens_out + asked.tokens_out,
            "usd": spent.usd + (asked.usd or 0.0),
            "asked_usd": spent.asked_usd + (asked.usd or 0.0),
        }
        return replace(self, spent=spent.model_copy(update=charged))

    def charged(self, clock: float) -> float:
        """Controller seconds that count at `clock`: those in which the run did not only wait for a person."""
        return (clock if self.waits_since is None else min(clock, self.waits_since)) - self.waited

    def _decided(self, body: Decided) -> Ledger:
        """An order that took effect: another budget, or a proposal that nobody will try."""
        if body.took_effect and isinstance(body.order.wish, Grant):
            return replace(self, granted=merge(self.granted, body.order.wish.budget))
        if body.took_effect and isinstance(body.order.wish, Reject):
            return replace(self, spent=self.spent.model_copy(update={"experiments": self.spent.experiments - 1}))
        return self

    def _looked(self, split: str) -> Ledger:
        return replace(self, looks={**self.looks, split: self.looks[split] + 1})

    def _charged(self, body: JobFinished) -> Ledger:
        spent = self.spent.with_usage(body.result.usage)
        counted = {"jobs": spent.jobs + 1, "failures": spent.failures + (body.result.failure is not None)}
        return replace(self, spent=spent.model_copy(update=counted), open=self._without(body.job))

    @cached_property
    def reserved(self) -> float:
        """Seconds set aside for the jobs under way, summed."""
        return sum(each.reserved_s for each in self.open.values())

    @cached_property
    def expected(self) -> Usage:
        """What the jobs under way are expected to use of devices and money, summed."""
        found = [each.expected for each in self.open.values() if each.expected is not None]
        return Usage(gpu_s=sum(each.gpu_s for each in found), usd=sum(each.usd for each in found))

    def remaining(self, clock: float) -> Remaining:
        """Return what is left at controller time `clock` (seconds).

        Reserved seconds count against CPU hours, as one core each, and not against wall time: jobs under way run side
        by side on the clock that is already ticking. What they are expected to use of devices and money counts too.
        """
        granted, spent, expected = self.granted, self.spent, self.expected
        used: dict[str, float] = {
            "wall_s": max(self.charged(clock), spent.wall_s),
            "experiments": spent.experiments,
            "cpu_hours": (spent.cpu_s + self.reserved) / HOUR,
            "gpu_hours": (spent.gpu_s + expected.gpu_s) / HOUR,
            "usd": spent.usd + expected.usd,
        }
        limits = {name: limit for name, limit in granted.model_dump(exclude={"disk_gb"}).items() if limit is not None}
        left = {name: max(0, limit - used[name]) for name, limit in limits.items()}
        unused = {name for name in _MAY_BE_ZERO if limits.get(name) == 0 and used[name] == 0}
        scarce = {name: limit for name, limit in limits.items() if name not in unused}
        shares = [left[name] / limit if limit > 0 else 0.0 for name, limit in scarce.items()]
        return Remaining(**left, fraction=min(shares, default=1.0))
