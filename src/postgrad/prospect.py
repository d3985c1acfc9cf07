"""What a run would have to itself and what it would cost, before anything is spent. Opens the engine; starts no job."""

from __future__ import annotations

from typing import Iterator

from postgrad.budget import HOUR, format_duration
from postgrad.certify import RESERVE_START
from postgrad.engines import ENGINES
from postgrad.engines.base import Placed
from postgrad.engines.prices import rate, unpriced
from postgrad.errors import UserError
from postgrad.forecast import Forecast, beforehand
from postgrad.records import Hardware, Record, TaskSpec
from postgrad.spec.money import no_price, pays_for_hardware


class Prospect(Record):
    """Jobs side by side, threads of each, and what each of them runs on."""

    workers: int = 0
    threads: int = 0
    where: Hardware = Hardware()


def looked(task: TaskSpec, problems: list[str]) -> Prospect:
    """What the engine of a task has; nothing, and a problem, where it cannot be used or has no price."""
    engine = ENGINES.get(task.engine.kind)
    try:
        engine.open(task.engine)
    except UserError as problem:
        problems.append(f"engine: {problem}")
        return Prospect()
    try:
        asked = Hardware(threads=engine.threads, held=task.engine.gpus, nodes=task.engine.nodes)
        where = engine.usual if isinstance(engine, Placed) else asked
        if pays_for_hardware(task.budget, task.experiment, task.engine, task.researcher != "playbook"):
            kinds = where.device.split("+") if where.devices else ()
            problems += [no_price(task.budget, task.experiment, missing) for missing in unpriced(task.engine, kinds)]
        return Prospect(workers=engine.slots, threads=engine.threads, where=where)
    finally:
        engine.close()


def foreseen(task: TaskSpec, prospect: Prospect, seconds: float, basis: str) -> Forecast | None:
    """What a run of experiments of so many wall seconds will have used; None without a limit."""
    if not prospect.workers:
        return None
    prices = task.engine.prices
    return beforehand(task.budget, seconds, prospect.workers, prospect.where, prices, basis=basis, end=RESERVE_START)


def too_dear(task: TaskSpec, prospect: Prospect, seconds: float) -> Iterator[str]:
    """Limits of one experiment that an ordinary one would not keep."""
    own, where = task.experiment, prospect.where
    cost = seconds * rate(where, task.engine.prices)
    needs = {
        "wall": (own.wall_s, seconds, format_duration),
        "cpu_hours": (own.cpu_hours, seconds / HOUR, "{:.2g}".format),
        "gpu_hours": (own.gpu_hours, seconds * where.held * where.nodes / HOUR, "{:.2g}".format),
        "usd": (own.usd, cost, "${:.2f}".format),
    }
    for name, (most, need, told) in needs.items():
        if most is not None and need > most:
            yield (
                f"experiment.{name} is {told(most)}, and one with the usual settings takes about {told(need)}: it "
                "would be ended on the way. Raise the limit, or expect only smaller ones to be measured."
            )
