"""What each split of a task can show, what the task's `min_effect` takes, and what that costs.

Noise is taken from an earlier finished run of the same task, where the runs folder has one; else it is assumed, and
said to be. Reads stores; spends nothing.
"""

from __future__ import annotations

from math import ceil
from pathlib import Path
from statistics import median
from typing import Callable, Iterator, Sequence

from postgrad.budget import HOUR, format_duration
from postgrad.engines.prices import CORE
from postgrad.errors import PostgradError, UserError
from postgrad.evaluate.power import DISCORDANT, SEED_SD, Need, Noise, need, recorded_seed_sd, smallest_effect
from postgrad.evaluate.sealed import discordance
from postgrad.evaluate.splits import SplitPlan, UnitPlan, group_of
from postgrad.events import Event, JobFinished, JobStarted, RunStarted, SealedDone, current
from postgrad.metrics import metric_of
from postgrad.metrics.items import load_items, shared_items
from postgrad.records import Budget, Record, TaskSpec
from postgrad.store.sqlite import SqliteStore, run_folders
from postgrad.tree import Tree

COMPARED = 20
PRESENT_SEEDS = 1
Cost = Callable[[Sequence[UnitPlan]], float]


class Measured(Record):
    """What an earlier run of the task says about noise and speed. None where it does not.

    Attributes:
        run: its name.
        seed_sd: standard deviation of one training's score over training seeds.
        search, sealed: shares of discordant texts: an experiment and what it was compared with; champion and baseline.
        speed: measured wall seconds for each nominal second.
    """

    run: str
    seed_sd: float | None = None
    search: float | None = None
    sealed: float | None = None
    speed: float | None = None


class SplitLine(Record):
    """One split: how many different texts are asked how often in how many trainings, and what they can show.

    `smallest_effect` is the smallest visible difference between two finished models, counting each text once: asking it
    again with other train rows is not a new item. `between_recipes` is that between two recipes, each trained with one
    seed. `need` is what the task's `min_effect` takes where it is not visible (sealed: between finished models), None
    where it is; `need_s` the training it takes, in seconds on one core beyond what a comparison takes now, and
    `need_usd` the price of that, where an hour of a core or the budget has one.
    """

    split: str
    texts: int
    questions: int
    trainings: int
    smallest_effect: float
    between_recipes: float
    noise: Noise
    need: Need | None = None
    need_s: float | None = None
    need_usd: float | None = None


def split_lines(task: TaskSpec, plan: SplitPlan, cost: Cost, measured: Measured | None) -> tuple[SplitLine, ...]:
    """What each split can show. `cost` gives the nominal seconds of one training of each unit of a comparison."""
    asked = {"search": plan.search, "select": plan.select, "sealed": _sealed_unit(plan)}
    lines = []
    for split, units in asked.items():
        texts = len({group_of(item) for unit in units for item in unit.items})
        noise = _noise(split, measured)
        compared = noise.of_items_alone() if split == "sealed" else noise
        wanted = need(task.min_effect, texts, compared, PRESENT_SEEDS)
        seconds = _more_s(wanted, texts, units, plan.mode == "cv" and split != "sealed", cost)
        speed = measured.speed if measured and measured.speed else 1.0
        price = task.engine.prices.get(CORE, price_per_hour(task.budget))
        lines.append(
            SplitLine(
                split=split,
                texts=texts,
                questions=sum(len(unit.items) for unit in units),
                trainings=len(units),
                smallest_effect=smallest_effect(texts, noise.of_items_alone()),
                between_recipes=smallest_effect(texts, noise, PRESENT_SEEDS),
                noise=noise,
                need=wanted,
                need_s=None if seconds is None else seconds * speed,
                need_usd=None if seconds is None or price is None else seconds * speed / HOUR * price,
            )
        )
    return tuple(lines)


def _sealed_unit(plan: SplitPlan) -> tuple[UnitPlan, ...]:
    """The one training that answers the sealed inputs."""
    rows = {name for unit in (*plan.search, *plan.select) for name in unit.train}
    return (UnitPlan(name="sealed", train=tuple(sorted(rows)), items=plan.sealed),)


def _noise(split: str, measured: Measured | None) -> Noise:
    if measured is None:
        return Noise()
    found = measured.sealed if split == "sealed" else measured.search
    seed_sd = SEED_SD if measured.seed_sd is None else measured.seed_sd
    share = DISCORDANT if found is None else min(1.0, max(found, 1e-3))
    return Noise(discordant=share, seed_sd=seed_sd, run=measured.run)


def _more_s(wanted: Need | None, texts: int, units: Sequence[UnitPlan], rows_grow: bool, cost: Cost) -> float | None:
    """Nominal seconds that the cheapest way of showing the effect takes for both recipes, less what is spent now.

    More seeds where they are enough, else more texts, else both. In a cross-validation the texts are train rows too.
    """
    if wanted is None:
        return None
    items, seeds = _way(wanted, texts)
    if items is None:
        return None
    factor = items / max(1, texts)
    grown = [
        unit.model_copy(
            update={
                "items": _grown(unit.items, factor),
                "train": _grown(unit.train, factor) if rows_grow else unit.train,
            }
        )
        for unit in units
    ]
    return max(0.0, 2 * (seeds * cost(grown) - PRESENT_SEEDS * cost(units)))


def _way(wanted: Need, texts: int) -> tuple[int | None, int]:
    """(texts, seeds) of the way that is costed; no texts where there is no way."""
    if wanted.seeds is not None:
        return texts, wanted.seeds
    if wanted.items is not None:
        return wanted.items, PRESENT_SEEDS
    return wanted.both or (None, PRESENT_SEEDS)


def _grown(names: tuple[str, ...], factor: float) -> tuple[str, ...]:
    """As many names as there would be; only their number counts."""
    return tuple("" for _ in range(ceil(len(names) * factor)))


def price_per_hour(budget: Budget) -> float | None:
    """Dollars an hour of work may cost by the budget: it has a price where it grants both money and time."""
    hours = budget.wall_s / HOUR if budget.wall_s else budget.gpu_hours or budget.cpu_hours
    return budget.usd / hours if budget.usd and hours else None


# --- in words -------------------------------------------------------------------------------------------------------


def assumption(lines: Sequence[SplitLine]) -> str:
    """What the figures rest on."""
    noise = lines[0].noise
    shares = f"disagree on {100 * noise.discordant:.0f} % of the texts"
    seeds = f"a training's score varies by {noise.seed_sd:.3f} (standard deviation) from seed to seed"
    if noise.run is None:
        return f"Assumed, before any run of this task: two models {shares}; {seeds}."
    sealed = f" ({100 * lines[-1].noise.discordant:.0f} % on sealed)"
    return f"As in {noise.run}, an earlier run of this task: two models {shares}{sealed}; {seeds}."


def needs_told(task: TaskSpec, lines: Sequence[SplitLine]) -> Iterator[str]:
    """A few sentences for each split: what the task's `min_effect` takes there."""
    search, select, sealed = lines
    if search.texts == select.texts:
        yield f"search, select: {_need_told(task, search)}"
    else:
        yield f"search: {_need_told(task, search)}"
        yield f"select: {_need_told(task, select)}"
    yield f"sealed: {_need_told(task, sealed)}"


def _need_told(task: TaskSpec, line: SplitLine) -> str:
    wanted, effect = line.need, f"{task.min_effect:g}"
    sealed = line.split == "sealed"
    if wanted is None:
        return f"its {line.texts:,} texts show {effect}" + ("." if sealed else ", one seed each.")
    if sealed:
        count = rounded(wanted.items or 0)
        return f"{effect} takes about {count:,} texts, there are {line.texts:,}. Seeds cannot make up for it."
    ways = []
    if wanted.items is not None:
        ways.append(f"about {rounded(wanted.items):,} texts at one seed, there are {line.texts:,}")
    if wanted.seeds is not None:
        ways.append(f"{wanted.seeds} seeds of each recipe on these texts")
    told = f"{effect} takes {', or '.join(ways)}." if ways else f"{effect} cannot be seen."
    if wanted.seeds is None:
        told += f" No number of seeds is enough: the texts limit it to {wanted.items_limit:.3f}."
    if wanted.items is None:
        told += f" No number of texts is enough at one seed: seed noise limits it to {wanted.seeds_limit:.3f}."
        if wanted.both is not None and wanted.seeds is None:
            told += f" Together: about {rounded(wanted.both[0]):,} texts and {wanted.both[1]} seeds."
    if line.need_s is not None:
        told += f" That is {format_duration(rounded(line.need_s))} more training for a comparison, on one core"
        told += f", about ${line.need_usd:.2f}." if line.need_usd is not None else "."
    return told


def rounded(amount: float) -> int:
    """To two digits: nothing here is surer than that."""
    return round(float(f"{amount:.2g}"))


# --- an earlier run -------------------------------------------------------------------------------------------------


def earlier_run(task: TaskSpec, runs_dir: Path) -> Measured | None:
    """What the newest finished run of the same task and data measured; None where there is none that can be read."""
    for folder in reversed(run_folders(runs_dir)):
        try:
            with SqliteStore.open(folder, write=False) as store:
                events = store.events()
                if _same_task(task, events) and "run_ended" in current(events):
                    return _measured(store, events)
        except (UserError, PostgradError):
            continue
    return None


def _same_task(task: TaskSpec, events: Sequence[Event]) -> bool:
    first = events[0].body if events else None
    if not isinstance(first, RunStarted):
        return False
    then = first.task
    return (then.name, then.data, then.metric) == (task.name, task.data, task.metric)


def _measured(store: SqliteStore, events: Sequence[Event]) -> Measured:
    bodies = current(events)
    sealed = bodies.get("sealed_done")
    return Measured(
        run=store.folder.name,
        seed_sd=recorded_seed_sd(events),
        search=_search_discordance(store, Tree.from_events(events)),
        sealed=sealed.read.discordant if isinstance(sealed, SealedDone) else None,
        speed=_speed(events),
    )


def _search_discordance(store: SqliteStore, tree: Tree) -> float | None:
    """The median over the last experiments that were compared, on the items both answered."""
    shares = []
    for node in reversed(tree.all()):
        rival = tree.experiments.get(node.analysis.against or "") if node.analysis else None
        if rival is None or node.evaluation is None or rival.evaluation is None or node.score is None:
            continue
        mine, theirs = (load_items(store.artifacts.read(one.items)) for one in (node.evaluation, rival.evaluation))
        first, second = shared_items(mine, theirs)
        shares.append(discordance(metric_of(node.evaluation.metric), first, second))
        if len(shares) == COMPARED:
            break
    return median(shares) if shares else None


def _speed(events: Sequence[Event]) -> float | None:
    nominal: dict[str, float] = {}
    speeds = []
    for event in events:
        body = event.body
        if isinstance(body, JobStarted):
            nominal[body.job] = body.reserved_s
        elif isinstance(body, JobFinished) and body.result.failure is None and nominal.get(body.job):
            speeds.append(body.result.usage.wall_s / nominal[body.job])
    return median(speeds) if speeds else None
