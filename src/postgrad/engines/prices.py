"""What hardware costs, by the person's own table: nothing is priced that the person has not priced."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Iterator, Mapping, Sequence

from postgrad.records import EngineSpec, Hardware, Usage

HOUR = 3600.0
CORE, ANY_DEVICE = "cpu_core_hour", "default_gpu"
Prices = Mapping[str, float]


def device_price(kind: str, prices: Prices) -> float | None:
    """Dollars for an hour of a whole device of this kind: by the longest name in the table that is part of its kind,
    else `default_gpu`; None where neither is there. Of several kinds ("A+B") the dearest counts for all."""
    found = [_of_one(each, prices) for each in kind.split("+")]
    known = [price for price in found if price is not None]
    return max(known) if known and len(known) == len(found) else None


def _of_one(kind: str, prices: Prices) -> float | None:
    names = [name for name in prices if name not in (CORE, ANY_DEVICE) and name.lower() in kind.lower()]
    return prices[max(names, key=len)] if names else prices.get(ANY_DEVICE)


def rate(hardware: Hardware, prices: Prices) -> float:
    """The most that a job on it costs in a second, in dollars: all its threads busy. What has no price costs nothing
    here."""
    device = device_price(hardware.device, prices) if hardware.held else 0.0
    return (prices.get(CORE, 0.0) * hardware.threads + (device or 0.0) * hardware.held) * hardware.nodes / HOUR


def priced(used: Usage, prices: Prices) -> Usage:
    """The usage of one attempt with its dollars: on what it ran, the usage says itself."""
    where = used.hardware[-1] if used.hardware else Hardware()
    device = device_price(where.device, prices)
    usd = (prices.get(CORE, 0.0) * used.cpu_s + (device or 0.0) * used.gpu_s) / HOUR
    return used.model_copy(update={"usd": usd, "unpriced_gpu_s": used.gpu_s if prices and device is None else 0.0})


@dataclass(frozen=True)
class Meter:
    """Measures one attempt of a job: what it holds, and what that costs."""

    hardware: Hardware = Hardware()
    prices: Prices = field(default_factory=dict)

    def used(self, wall_s: float, cpu_s: float, max_rss_mb: float) -> Usage:
        """What was used after so much time."""
        hardware = self.hardware
        gpu_s = wall_s * hardware.held * hardware.nodes
        found = Usage(wall_s=wall_s, cpu_s=cpu_s, gpu_s=gpu_s, max_rss_mb=max_rss_mb, hardware=(hardware,))
        return priced(found, self.prices)

    def holding(self, gpus: float, nodes: int, *, granted: bool) -> Meter:
        """The same for a job that a scheduler gave so many devices on each of so many nodes.

        Args:
            granted: the devices that it sees are what it was given, where `gpus` says nothing.
        """
        hardware = self.hardware
        each = hardware.held / hardware.devices if hardware.devices and hardware.held else 1.0
        held = gpus * each if gpus else hardware.held * granted
        return replace(self, hardware=hardware.model_copy(update={"held": held, "nodes": nodes}))


def unpriced(engine: EngineSpec, kinds: Sequence[str] = ()) -> Iterator[str]:
    """What a job of this engine would use and the table has no price for, in words.

    Args:
        kinds: of the devices that its jobs would have; none where they are not known yet.
    """
    prices = engine.prices
    if not engine.gpus and CORE not in prices:
        yield f"an hour of a core ({CORE})"
    elif engine.gpus and ANY_DEVICE not in prices:
        if missing := [kind for kind in kinds if device_price(kind, prices) is None]:
            yield f"an hour of '{missing[0]}'"
        elif engine.kind != "local" or not set(prices) - {CORE}:
            yield f"an hour of whatever devices its jobs get ({ANY_DEVICE})"
