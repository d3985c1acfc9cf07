"""What simulated runs teach later ones: the memory of `postgrad bench search --meta`.

Priors come from runs that are played for nothing else, on seeds that no table uses, of the same policy with the same
budget. Landscapes of one family are independent draws, so what one taught is true of no other: there the memory must
cost nothing. Only in `kindred` do effects persist, within a clan of seeds; so seeds are taught by their own clan. On
recorded landscapes effects are what they are: `recorded` teaches a run what the other data sets taught.
"""

from __future__ import annotations

from functools import lru_cache

from postgrad.bench.landscapes import landscape
from postgrad.bench.landscapes_families import Kindred
from postgrad.bench.lessons import entry_of as recorded_entry
from postgrad.bench.record_data import SETS
from postgrad.bench.recorded_file import recording
from postgrad.bench.simulated import SimulatedRun
from postgrad.bench.simulated_parts import ROWS, Grant
from postgrad.memory.effects import brought
from postgrad.memory.entries import RunEntry, kind_entries, task_type
from postgrad.memory.prior import Normal, priors
from postgrad.records import Prior, TaskSpec
from postgrad.research.priors import table

OFF, OWN, RECORDED = "off", "own", "recorded"
LESSONS, FIRST_SEED, LABELS = 20, 10_000, 10


def taught(name: str, policy: str, grant: Grant, seed: int) -> dict[str, Prior]:
    """Kind of change -> what `LESSONS` runs of the seed's clan taught."""
    return _taught(name, policy, grant, seed % Kindred.clans)


@lru_cache(maxsize=64)
def _taught(name: str, policy: str, grant: Grant, clan: int) -> dict[str, Prior]:
    made = landscape(name)
    seeds = [FIRST_SEED + clan + Kindred.clans * number for number in range(LESSONS)]
    entries = []
    for seed in seeds:
        run = SimulatedRun(made(seed), policy, grant, seed)
        run.play()
        entries.append(entry_of(run, seed))
    return remembered(entries, run.task)


@lru_cache(maxsize=8)
def taught_by_recordings(name: str) -> dict[str, Prior]:
    """Kind of change -> what the recorded data sets taught, the landscape's own left out."""
    others = [of for of in SETS if f"recorded_{of}" != name]
    return remembered([recorded_entry(recording(of)) for of in others], landscape(name)(0).task)


def entry_of(run: SimulatedRun, seed: int) -> RunEntry:
    """What is kept of a simulated run."""
    kinds = kind_entries(brought(run.tree), table())
    about = task_type(run.task, ROWS, LABELS)
    return RunEntry(run=f"{seed:032x}", month="2000-01", postgrad="0", task=about, kinds=kinds)


def remembered(entries: list[RunEntry], task: TaskSpec) -> dict[str, Prior]:
    """The priors of a run on a simulated task."""
    known = {kind: Normal(belief.mean, belief.sd) for kind, belief in table().items()}
    return priors(entries, task_type(task, ROWS, LABELS), known)
