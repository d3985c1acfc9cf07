"""`postgrad bench lessons`: what each kind of change brought on recorded data, and so how far real tasks are kin.

From the recorded landscapes come pairs of recipes that differ in one change. What it brought is read off the search
items, as a finished run does it. `bench search --meta recorded` teaches a run what the other data sets taught.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import md5
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping, NamedTuple

from postgrad.bench.base import BenchSpec
from postgrad.bench.record_data import SETS
from postgrad.bench.record_names import exactly
from postgrad.bench.recorded_file import Recording, Tried, recording
from postgrad.memory.effects import BETWEEN_PARENTS, DRAFTS_AGAINST, Brought, Effect
from postgrad.memory.entries import RunEntry, kind_entries, task_type
from postgrad.research.drafts import drafts
from postgrad.research.moves import PLAYS
from postgrad.research.priors import table
from postgrad.research.references import reference_recipes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The data sets have 2 to 28 labels, which a recording does not say. Entered as one class, they count for more to each
# other than finished runs on them would: 0.8 for each class between two tasks is left out.
LABELS = 10


class Lessons:
    """The benchmark."""

    options = {
        "sets": (",".join(SETS), "names with commas"),
    }

    def run(self, spec: BenchSpec, say: Callable[[str], None]) -> dict[str, Any]:
        """Return one table row for each kind of change."""
        names = [name.strip() for name in spec.options["sets"].split(",") if name.strip()]
        rows = table_of({name: entry_of(recording(name)) for name in names})
        return {"table": rows, "markdown": markdown(rows)}


class Pair(NamedTuple):
    """A recipe and the one that a change of this kind makes of it, both recorded."""

    kind: str
    before: Tried
    after: Tried


@dataclass
class _Seen:
    """The pairs of one kind: what each brought in the mean, and to every group of items."""

    means: list[float] = field(default_factory=list)
    groups: list[NDArray[np.float64]] = field(default_factory=list)


def entry_of(recorded: Recording) -> RunEntry:
    """What a recording teaches, as if it were a finished run."""
    import numpy as np

    return RunEntry(
        run=md5(recorded.task.name.encode(), usedforsecurity=False).hexdigest(),
        month="2000-01",
        postgrad="0",
        task=task_type(recorded.task, len(np.unique(recorded.group)), LABELS),
        kinds=kind_entries(brought(recorded), table()),
    )


def brought(recorded: Recording) -> dict[str, Brought]:
    """Kind of change -> what it brought. The variance holds what chance in the items makes, which all pairs share, and
    how much the pairs differ, which is at least what changes of one kind on different parents do."""
    import numpy as np

    found: dict[str, Brought] = {}
    seen: dict[str, _Seen] = {}
    names, of_group = np.unique(recorded.group, return_inverse=True)
    for pair in pairs(recorded):
        here = found.setdefault(pair.kind, Brought())
        here.costs_s.append(sum(pair.after.fold_s) / len(pair.after.fold_s))
        if not pair.after.stood:
            here.failures += 1
            continue
        here.count += 1
        gained = pair.after.search[pair.after.stood].mean(axis=0) - pair.before.search[pair.before.stood].mean(axis=0)
        told = seen.setdefault(pair.kind, _Seen())
        told.means.append(float(gained.mean()))
        told.groups.append(np.bincount(of_group, weights=gained) * len(names) / len(gained))
    for kind, told in seen.items():
        per_group = np.mean(told.groups, axis=0)
        by_chance = float(per_group.var(ddof=1)) / len(per_group)
        apart = max(float(np.var(told.means)), BETWEEN_PARENTS**2) / len(told.means)
        found[kind].effect = Effect(float(np.mean(told.means)), by_chance + apart)
    return found


def pairs(recorded: Recording) -> Iterator[Pair]:
    """Every starting point beside the classic reference, and every recipe beside what a play makes of it."""
    task = recorded.task
    by_name = {exactly(tried.recipe): tried for tried in recorded.tried.values()}
    against = next(each.recipe for each in reference_recipes(task) if each.kind == DRAFTS_AGAINST)
    starts = [draft for base in task.base_models or (None,) for draft in drafts(base)]
    asked = [(draft.kind, against, draft.recipe) for draft in starts]
    for tried in recorded.tried.values():
        fitting = (play for play in PLAYS if play.applies(tried.recipe, task))
        asked += [(play.kind, tried.recipe, play.apply(tried.recipe, task)) for play in fitting]
    for kind, before, after in asked:
        first, second = by_name.get(exactly(before)), by_name.get(exactly(after))
        if first is not None and second is not None and first is not second and first.stood:
            yield Pair(kind, first, second)


def table_of(entries: Mapping[str, RunEntry]) -> list[dict[str, Any]]:
    """One row a kind: what it brought on each data set, in points, with how many pairs told."""
    kinds = sorted({kind.kind for entry in entries.values() for kind in entry.kinds})
    rows = []
    for name in kinds:
        row: dict[str, Any] = {"kind": name}
        for recorded, entry in entries.items():
            kind = next((one for one in entry.kinds if one.kind == name and one.count), None)
            row[recorded] = None if kind is None else round(100 * kind.mean, 1)
            row[f"{recorded}_error"] = None if kind is None else round(100 * kind.variance**0.5, 1)
            row[f"{recorded}_pairs"] = 0 if kind is None else kind.count
        rows.append(row)
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """The same as a table to read."""
    names = [key for key in rows[0] if f"{key}_error" in rows[0]] if rows else []
    lines = [f"| kind of change | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for row in rows:
        cells = [
            "" if row[name] is None else f"{row[name]:+.1f} ± {row[f'{name}_error']:.1f} ({row[f'{name}_pairs']})"
            for name in names
        ]
        lines.append(f"| {row['kind']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
