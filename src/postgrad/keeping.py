"""What of a run's folder stays, and what goes where the run may hold no more: after a quota, or when a person asks.

What events name as evidence always stays: rows, plan, answers, items. A final model stays while its experiment may be
the champion, and the folder of a job, with its checkpoints, while its experiment is not over. Experiments of the search
keep no weights, so a child needs none of its parent: it is trained from the base model by its recipe.

What is removed is an event first. What a later step needs of it is made again (`rebuild.py`, `seal.owed_job`), because
each step looks whether the bytes are there.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Callable, Collection, Iterable, Mapping, Sequence

from postgrad.engines.handle import sizes_under
from postgrad.errors import PostgradError
from postgrad.events import (
    Analysed,
    Body,
    Certified,
    Collected,
    Event,
    FinalModel,
    JobFinished,
    Proposed,
    Removed,
    SearchEnded,
    remember,
)
from postgrad.records import Record
from postgrad.removing import remove_tree
from postgrad.store.checked import NAME as CHECKED

if TYPE_CHECKING:
    from pathlib import Path

    from postgrad.execute.executor import RunningJob
    from postgrad.session import Session
    from postgrad.store.artifacts import Artifacts
    from postgrad.store.base import Store

GB = 1e9
LOOK_S = 5.0
RECHECK = "-recheck"
OPENING = b"{"
LARGEST_LIST = 64 << 20
SHOWN = 5
_HASHES = re.compile(r"[0-9a-f]{64}")


class Part(Record):
    """A part of what a run's folder holds.

    Attributes:
        kind: a `model`, the folder of a `job`, what a kill `left` half done, the champion as it is `published`, the
            `evidence` of the log, or the `log` itself with everything small.
        bytes: what would be free without it.
        stays: why it stays; "" where nothing needs it.
    """

    kind: str
    name: str
    experiment: str = ""
    bytes: int
    stays: str = ""


@dataclass(frozen=True)
class Known:
    """What the log says of a run, as far as it decides what stays.

    Attributes:
        experiments: those that were proposed; `pending` are not over.
        models: artefact of a final model -> its experiment, in the order in which they were made; none that is gone.
    """

    experiments: Collection[str]
    pending: Collection[str]
    bodies: Mapping[str, Body]
    refused: Collection[str]
    measured: Collection[str]
    models: Mapping[str, str]

    @classmethod
    def of_events(cls, events: Iterable[Event]) -> Known:
        """Read off a whole log, event by event: it may be too long to be held at once."""
        experiments: set[str] = set()
        pending: set[str] = set()
        bodies: dict[str, Body] = {}
        refused: dict[str, bool] = {}
        models: dict[str, str] = {}
        for event in events:
            body = event.body
            remember(bodies, body)
            count_models(models, body)
            if isinstance(body, Proposed):
                experiments.add(body.experiment)
                pending.add(body.experiment)
            if isinstance(body, Analysed):
                pending.discard(body.experiment)
            if isinstance(body, FinalModel):
                refused[body.experiment] = bool(body.refused)
        out = frozenset(name for name, gone in refused.items() if gone)
        return cls(experiments, pending, bodies, out, frozenset(refused), models)

    def why_model(self, experiment: str) -> str:
        """Why a final model of an experiment stays; "" where nothing needs it."""
        if experiment in self.refused:
            return ""
        certified = self.bodies.get("certified")
        if not isinstance(certified, Certified) or certified.champion in self.refused:
            return "it may still be the champion"
        if experiment == certified.champion:
            return "the champion"
        needed = experiment == certified.baseline and experiment not in self.measured
        return "its guards are still to be measured" if needed else ""

    def why_job(self, name: str, running: Collection[str]) -> str:
        """Why the folder of a job stays; "" where nothing needs it."""
        if name.removesuffix(RECHECK) in running:
            return "it is running"
        experiment, _, rest = name.partition("-")
        if experiment not in self.experiments or "run_ended" in self.bodies:
            return ""
        if rest.startswith("search"):
            return "its training goes on from here" if experiment in self.pending else ""
        ended = self.bodies.get("search_ended")
        if not isinstance(ended, SearchEnded):
            return "its training goes on from here"
        wanted = experiment in ended.finalists or rest.startswith("sealed")
        return "its training goes on from here" if wanted and experiment not in self.refused else ""


def count_models(models: dict[str, str], body: Body) -> None:
    """Bring `Known.models` to where it is after one more event; a model that is made again is there again."""
    if isinstance(body, JobFinished) and body.result.model is not None:
        models.pop(body.result.model, None)
        models[body.result.model] = body.experiment
    if isinstance(body, Collected):
        for gone in body.removed:
            models.pop(gone.name, None)


# --- looking ----------------------------------------------------------------------------------------------------------


def survey(
    folder: Path,
    artifacts: Artifacts,
    known: Known,
    running: Collection[str] = (),
    named: Collection[str] | None = None,
) -> tuple[Part, ...]:
    """What a run's folder holds: what may go first, the least worth first of all.

    Args:
        running: jobs under way.
        named: every artefact that the log names, where nothing is being written that it does not name yet.
    """
    sizes = artifacts.sizes()
    contents = {name: contents_of(artifacts, name) for name in known.models}
    shared = Counter(blob for blobs in contents.values() for blob in blobs)
    parts = _jobs(folder, known, running)
    left = 0
    if named is not None:
        left = sum(size for name, size in sizes.items() if name not in named)
        unfinished = sum(sizes_under(artifacts.folder / "unfinished"))
        parts.append(Part(kind="left", name="artifacts", bytes=left + unfinished))
    for name, experiment in known.models.items():
        own = sum(sizes.get(blob, 0) for blob in contents[name] if shared[blob] == 1)
        why = known.why_model(experiment)
        parts.append(Part(kind="model", name=name, experiment=experiment, bytes=own, stays=why))
    evidence = sum(sizes.values()) - left - sum(part.bytes for part in parts if part.kind == "model")
    parts.append(Part(kind="evidence", name="artifacts", bytes=max(0, evidence), stays="what the log refers to"))
    parts.append(Part(kind="published", name="model", bytes=sum(sizes_under(folder / "model")), stays="the champion"))
    parts.append(Part(kind="log", name="events and reports", bytes=_rest(folder), stays="the run itself"))
    return tuple(sorted((part for part in parts if part.bytes), key=lambda part: bool(part.stays)))


def contents_of(artifacts: Artifacts, model: str) -> frozenset[str]:
    """The list of a model's files, and what it names."""
    return frozenset({model, *(artifacts.files(model) or {}).values()})


def _jobs(folder: Path, known: Known, running: Collection[str]) -> list[Part]:
    scratch = folder / "scratch"
    found = []
    for place in sorted(scratch.iterdir()) if scratch.is_dir() else ():
        why = known.why_job(place.name, running)
        experiment = place.name.partition("-")[0]
        found.append(Part(kind="job", name=place.name, experiment=experiment, bytes=max(1, _size(place)), stays=why))
    return found


def _size(place: Path) -> int:
    """Bytes of a file, or of everything in a folder; 0 for what vanishes meanwhile."""
    if place.is_dir() and not place.is_symlink():
        return sum(sizes_under(place))
    with suppress(OSError):
        return place.lstat().st_size
    return 0


def _rest(folder: Path) -> int:
    """Bytes of everything but artefacts, jobs and the published model."""
    checked = _size(folder / "artifacts" / CHECKED)
    return checked + sum(
        _size(place) for place in folder.iterdir() if place.name not in ("artifacts", "scratch", "model")
    )


def named_in(store: Store, models: Collection[str]) -> set[str]:
    """Every artefact that a log names, by itself or through lists that it names; rather too many than too few. A final
    model is named only where it is one of `models`."""
    finals: set[str] = set()
    waiting: set[str] = set()
    for event in store.in_order():
        if isinstance(event.body, JobFinished) and event.body.result.model:
            finals.add(event.body.result.model)
        if not isinstance(event.body, Collected):
            waiting.update(_HASHES.findall(event.body.model_dump_json()))
    finals -= set(models)
    waiting -= finals
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= set(_HASHES.findall(_list_in(store.artifacts, name))) - found - finals
    return found


def _list_in(artifacts: Artifacts, name: str) -> str:
    """The text of an artefact that may name others; "" for any other."""
    with suppress(OSError, PostgradError), artifacts.path(name).open("rb") as file:
        if file.read(1) == OPENING:
            return file.read(LARGEST_LIST).decode("utf-8", "replace")
    return ""


# --- removing ---------------------------------------------------------------------------------------------------------


def free(
    store: Store,
    append: Callable[[Body], object],
    parts: Sequence[Part],
    why: str,
    enough: int | None = None,
) -> tuple[Removed, ...]:
    """Remove what nothing needs, the least worth first, and record it before.

    Args:
        append: of the store, or of who keeps count of its events.
        enough: bytes after which no more is removed; None for all.

    Raises:
        PostgradError: it cannot be recorded, and then nothing is removed; or the disk fails.
    """
    gone: list[Part] = []
    for part in parts:
        if not part.stays and (enough is None or sum(each.bytes for each in gone) < enough):
            gone.append(part)
    if not gone:
        return ()
    removed = tuple(Removed.model_validate(part.model_dump(exclude={"stays"})) for part in gone)
    append(Collected(why=why, removed=removed, held=sum(part.bytes for part in parts)))
    stay = {part.name for part in parts if part.kind == "model"} - {part.name for part in gone}
    named = named_in(store, stay)
    for part in gone:
        if part.kind == "job":
            remove_tree(store.folder / "scratch" / part.name)
        elif part.kind == "left":
            store.artifacts.sweep()
            _forget(store.artifacts, store.artifacts.sizes(), named)
        else:
            # The list goes first: a kill in between leaves bytes that nothing names, and no list without bytes.
            _forget(store.artifacts, (part.name, *contents_of(store.artifacts, part.name)), named)
    return removed


def _forget(artifacts: Artifacts, names: Iterable[str], named: Collection[str]) -> None:
    for name in names:
        if name not in named:
            artifacts.remove(name)


class Keeper:
    """Holds a run to the disk that it was granted, while its jobs run. Without such a grant it does nothing."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._next = 0.0
        self._artifacts: int | None = None

    def beside(self, tick: Callable[[str, Sequence[RunningJob]], None]) -> Callable[[str, Sequence[RunningJob]], None]:
        """A `tick` of the loop that also looks at the disk now and then."""

        def both(phase: str, jobs: Sequence[RunningJob]) -> None:
            self.look([job.spec.job for job in jobs])
            tick(phase, jobs)

        return both

    def look(self, running: Collection[str]) -> None:
        """Remove what nothing needs where the run holds too much.

        Raises:
            PostgradError: what is needed does not fit. Nothing is lost.
        """
        granted, now = self._session.ledger.granted.disk_gb, time.monotonic()
        if granted is None or now < self._next:
            return
        self._next = now + LOOK_S
        if (over := self._held() - round(granted * GB)) <= 0:
            return
        store = self._session.store
        parts = survey(store.folder, store.artifacts, Known.of_events(store.in_order()), running)
        freed = free(store, self._session.append, parts, f"more than {granted:g} GB of disk were taken", over)
        self._artifacts = None
        if sum(part.bytes for part in freed) < over and self._held() > granted * GB:
            raise PostgradError(_does_not_fit(self._session.run, granted, [part for part in parts if part.stays]))

    def _held(self) -> int:
        """Bytes of the run's folder. Artefacts are counted once, and from then on as they are put."""
        store = self._session.store
        if self._artifacts is None:
            self._artifacts = sum(store.artifacts.sizes().values()) - store.artifacts.written
        jobs = sum(sizes_under(store.folder / "scratch")) + sum(sizes_under(store.folder / "model"))
        return self._artifacts + store.artifacts.written + jobs + _rest(store.folder)


def _does_not_fit(run: str, granted: float, parts: Sequence[Part]) -> str:
    held = sum(part.bytes for part in parts)
    largest = sorted(parts, key=lambda part: -part.bytes)[:SHOWN]
    told = "; ".join(f"{told_size(part.bytes)}: {called(part)} ({part.stays})" for part in largest)
    return (
        f"The run '{run}' holds {told_size(held)}, more than the {granted:g} GB of disk that its budget grants, and "
        f"needs all of it. {told}. Nothing is lost. Grant more, what is there included: "
        f"postgrad resume {run} --budget '{ceil(15 * held / GB) / 10:g} GB'"
    )


def called(part: Part) -> str:
    """A part in words."""
    words = {
        "job": f"the job {part.name}",
        "model": f"the final model of {part.experiment}",
        "left": "what a kill left half done",
        "published": "the published model",
        "evidence": "rows, answers and items",
    }
    return words.get(part.kind, part.name)


def told_size(size: int) -> str:
    """Bytes as a person reads them: "1.3 GB", "12 MB"."""
    if size >= 0.95 * GB:
        return f"{size / GB:.1f} GB"
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
