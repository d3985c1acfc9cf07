"""What a task may spend, and whether that can be counted: budgets of an experiment, devices, and the table of prices.

Nothing is priced that the person has not priced: a limit that nothing could ever reach is a problem, and is told.
"""

from __future__ import annotations

from typing import Any, Iterator, Mapping

from postgrad.engines.prices import ANY_DEVICE, CORE, unpriced
from postgrad.records import Budget, EngineSpec

PRICES = "engine: {prices: {cpu_core_hour: ..., default_gpu: ...}}"


def check_money(sections: Mapping[str, Any], problems: list[str]) -> None:
    """Add what is wrong with the budgets of money and devices."""
    engine: EngineSpec = sections.get("engine", EngineSpec())
    budget, one = (sections.get(key, Budget()) for key in ("budget", "experiment"))
    problems.extend(_numbers(one, engine))
    problems.extend(_devices(budget, one, engine))
    problems.extend(_dollars(budget, one, engine, sections.get("researcher", "playbook") != "playbook"))


def _numbers(one: Budget, engine: EngineSpec) -> Iterator[str]:
    if one.experiments is not None:
        yield "experiment: a number of experiments is no limit of one. Name it in the budget, or remove it."
    if one.disk_gb is not None:
        yield "experiment: disk is a limit of the run's whole folder. Name it in the budget, or remove it."
    for key, amount in one.model_dump(exclude={"experiments", "disk_gb"}).items():
        if amount is not None and not 0 < amount < float("inf"):
            yield f"experiment.{'wall' if key == 'wall_s' else key} is {amount}, and more than 0 was expected."
    for name, price in engine.prices.items():
        if not 0 <= price < float("inf"):
            yield f"engine.prices: '{name}' costs {price}, and 0 or more dollars an hour was expected."
        if not name.strip() or not name.isprintable():
            yield f"engine.prices: {name!r} is no kind of hardware. Write {CORE}, {ANY_DEVICE}, or as 'NVIDIA H100'."
        if "mig" in name.lower().split():
            yield (
                f"engine.prices: '{name}' names instances of MIG. Give the price of the whole card: an instance pays "
                "its share of it."
            )


def _devices(budget: Budget, one: Budget, engine: EngineSpec) -> Iterator[str]:
    """GPU hours are those of devices that jobs hold, and a job holds what was asked for it."""
    if engine.gpus or (engine.kind != "local" and engine.options):
        return
    for key, limits in (("budget", budget), ("experiment", one)):
        if (limits.gpu_hours or 0.0) > 0.0:
            yield (
                f"{key}.gpu_hours is {limits.gpu_hours:g}, and jobs hold no device, so nothing would be counted. Write "
                "engine: {gpus: 1}, or remove the limit."
            )


def _dollars(budget: Budget, one: Budget, engine: EngineSpec, asks: bool) -> Iterator[str]:
    if pays_for_hardware(budget, one, engine, asks):
        yield from (no_price(budget, one, missing) for missing in unpriced(engine))


def pays_for_hardware(budget: Budget, one: Budget, engine: EngineSpec, asks: bool) -> bool:
    """True where dollars are to limit hardware. Those of a run may be meant for language models alone.

    Args:
        asks: somebody else than the playbook proposes, which may cost dollars.
    """
    return (one.usd or 0.0) > 0.0 or ((budget.usd or 0.0) > 0.0 and (bool(engine.prices) or not asks))


def no_price(budget: Budget, one: Budget, missing: str) -> str:
    """What is said where money is a limit and something has no price."""
    key, amount = ("experiment", one.usd) if one.usd else ("budget", budget.usd)
    return (
        f"{key}.usd is {amount:g}, and {missing} has no price, so money cannot be a limit. Write what you pay for an "
        f"hour, as {PRICES}, or remove the limit."
    )
