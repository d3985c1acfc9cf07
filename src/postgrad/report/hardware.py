"""What a run, or an experiment of it, ran on, and what that used, in words."""

from __future__ import annotations

from collections import Counter
from typing import Iterable, Iterator

from postgrad.budget import HOUR, format_duration
from postgrad.events import Event, JobFinished
from postgrad.records import Hardware, Usage


def ran_on(events: Iterable[Event]) -> dict[str, str]:
    """The kinds of hardware that the jobs of a run had, with how many each; nothing where none was recorded."""
    found = Counter(
        each.kind for event in events if isinstance(event.body, JobFinished) for each in event.body.result.hardware[-1:]
    )
    told = [f"{kind}: {count} job{'' if count == 1 else 's'}" for kind, count in found.most_common()]
    return {"jobs on": "; ".join(told)} if told else {}


def machines(used: Usage) -> Iterator[str]:
    """Each machine of a job or of some, on a line."""
    for each in used.hardware:
        yield machine(each)


def machine(found: Hardware) -> str:
    """A machine in words, with what does not decide how fast it is."""
    parts = [found.kind, f"{found.cores} cores and {found.memory_mb:,} MB there"]
    parts += ["bound to its own cores"] if found.bound else []
    parts += [f"{found.device_mb:,} MB on the device, driver {found.driver or 'not known'}"] if found.devices else []
    parts += [f"load {found.load:.1f} when it began"]
    return f"{', '.join(parts)}, on {found.host or 'a machine without a name'}"


def cost(used: Usage) -> str:
    """What was used, in words: the clock, and cores, devices and money where there are any."""
    parts = [format_duration(used.wall_s), f"{format_duration(used.cpu_s)} of CPU"]
    if used.gpu_s:
        parts.append(f"{used.gpu_s / HOUR:.3f} GPU hours")
    if used.usd:
        parts.append(f"${used.usd:.2f}")
    if used.unpriced_gpu_s:
        parts.append(f"{used.unpriced_gpu_s / HOUR:.3f} GPU hours without a price")
    return ", ".join(parts)
