"""True quality of what the rules delivered: every version trained again with fresh seeds, one at a time and in turns,
and measured on the sealed file. Kept in the work folder, a line for each training."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterable, Mapping

from postgrad.bench.search import kept
from postgrad.errors import PostgradError
from postgrad.records import Difference, Estimate, JobResult
from postgrad.scripts.evidence import compared, missing, too_little_shared
from postgrad.scripts.session import ScriptSession, tree_of
from postgrad.scripts.statistics import difference_of, estimate_of
from postgrad.session import Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Far from the seeds of a run, of its replicates, finalists and sealed read.
FRESH_SEED = 500_000
POLL_S = 0.05
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Version:
    """Files whose quality is wanted, by the first experiment that had them."""

    session: ScriptSession
    experiment: str

    @property
    def tree(self) -> str:
        """What names its files, in whichever run; "" for the source as it was given."""
        return tree_of(self.session.tree[self.experiment].proposed.proposal.recipe)


class Measured:
    """Versions and what their fresh trainings scored on the sealed file.

    Args:
        folder: where the trainings are kept.
        seeds: fresh seeds of each version.
    """

    def __init__(self, folder: Path, seeds: int, say: Callable[[str], None]) -> None:
        self._folder, self._seeds, self._say = folder, seeds, say
        self._found: dict[str, list[dict[str, float]]] = {}

    def measure(self, versions: Iterable[Version]) -> None:
        """Train what is not measured yet: seed after seed, all versions in turns, so that what else the machine does
        falls on all of them alike."""
        wanted = {version.tree: version for version in versions}
        lines = {
            tree: kept(self._folder / f"{tree[:12] or 'baseline'}.jsonl", self._seeds, self._player(version))
            for tree, version in wanted.items()
        }
        self._found |= {tree: [] for tree in wanted}
        for number in range(self._seeds):
            for tree in sorted(wanted):
                line = next(lines[tree])
                if line["items"] is not None:
                    self._found[tree].append(line["items"])
                self._say(f"fresh seed {number + 1} of {self._seeds}, {wanted[tree].experiment}: {_told(line)}")
        for said in filter(None, (too_little_shared(self._named()), *missing(self._named()))):
            self._say(f"items differ, and only those that all trainings have are compared: {said}")

    def _named(self) -> dict[str, list[dict[str, float]]]:
        """Version -> items of each fresh training that gave a number."""
        return {tree[:12] or "the source": found for tree, found in self._found.items() if found}

    def _player(self, version: Version) -> Callable[[int], dict[str, object]]:
        session = version.session
        recipe = session.tree[version.experiment].proposed.proposal.recipe

        def play(seed: int) -> dict[str, object]:
            job = Job(version.experiment, "sealed", (session.sealed_unit,), recipe, FRESH_SEED + seed)
            result = trained(session, job)
            items = None if result.failure is not None else values_of(session, result)
            failure = f"{result.failure.kind}: {result.failure.message}" if result.failure is not None else None
            return {"items": items, "failure": failure, "wall_s": round(result.usage.wall_s, 2), "load": load()}

        return play

    def grid(self, version: Version) -> NDArray[np.float64]:
        """(trainings, N) values of the sealed items.

        Raises:
            PostgradError: no training gave a number.
        """
        import numpy as np

        found = self._found[version.tree]
        if not found:
            raise PostgradError(
                f"No fresh training of {version.experiment} gave a number; the lines are in {self._folder}."
            )
        names = compared(self._named())
        return np.array([[items[name] for name in names] for items in found], dtype=np.float64)

    def quality(self, version: Version) -> Estimate:
        """The quality, where more is better, with the noise of items and of seeds."""
        return estimate_of(self.grid(version), CONFIDENCE)

    def gap(self, first: Version, second: Version) -> Difference:
        """The quality of one version less that of another; nothing between equal files."""
        if first.tree == second.tree:
            return Difference(value=0.0, low=0.0, high=0.0, p=1.0, n=self.grid(first).shape[1])
        return difference_of(self.grid(first), self.grid(second), CONFIDENCE)


def trained(session: ScriptSession, job: Job) -> JobResult:
    """Run a job that is no part of the run: nothing is recorded."""
    running = session.executor.start(session.job_spec(job), session.inputs(job))
    try:
        while (result := running.poll(POLL_S)) is None:
            continue
    finally:
        running.stop()
    return result


def values_of(session: ScriptSession, result: JobResult) -> dict[str, float]:
    """Item -> number, where more is better."""
    outputs = session.texts(result.units[0].outputs)
    return dict(zip(outputs.ids, map(float, outputs.texts), strict=True))


def load() -> float | None:
    """How many processes wanted a core in the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _told(line: Mapping[str, object]) -> str:
    items = line["items"]
    return f"{sum(items.values()) / len(items):.4f}" if isinstance(items, dict) else str(line["failure"])


def loads_of(folder: Path) -> list[float]:
    """The loads that were noted in the files of a folder."""
    found = [
        json.loads(line)["load"] for path in sorted(folder.rglob("*.jsonl")) for line in path.read_text().splitlines()
    ]
    return [one for one in found if one is not None]
