"""Experiments that ended long ago, in as little memory as keeps them at hand.

A tree of a hundred thousand experiments takes gigabytes as records. What a search asks of all of them is kept as it is:
names, states, scores. The rest is JSON, compressed, and read again when somebody asks for it; what was read is
remembered for a while. Runs of ordinary length have no such experiments.
"""

from __future__ import annotations

import zlib
from functools import cache, lru_cache
from sys import intern
from typing import Any, Iterable, Iterator

from postgrad.events import Decided, JobStarted, Proposed, Tested
from postgrad.experiment import Experiment
from postgrad.records import Analysis, Evaluation, JobResult, Record
from postgrad.records.base import lean

#: The latest experiments stay whole, and so do those that have not ended.
WHOLE = 6144
# So many experiments show what those beside them look like as JSON.
SAMPLES = 2
# Of what was read again, so many are remembered.
REMEMBERED = 2048


class Outcome(Record):
    """What became of an experiment; the fields are its own."""

    started: tuple[JobStarted, ...]
    results: tuple[JobResult, ...]
    evaluation: Evaluation | None
    select: tuple[Evaluation, ...]
    analysis: Analysis | None
    tested: Tested | None
    decided: Decided | None


def _shared(name: str | None) -> str | None:
    return None if name is None else intern(name)


def _packed(data: bytes, words: bytes) -> bytes:
    pressing = zlib.compressobj(zdict=words)
    return pressing.compress(data) + pressing.flush()


def _unpacked(data: bytes, words: bytes) -> bytes:
    reading = zlib.decompressobj(zdict=words)
    return reading.decompress(data) + reading.flush()


@cache
def _fields() -> bytes:
    """What such JSON is full of: the names of fields, the commonest ones last."""
    found: dict[str, int] = {}
    for kind in (Decided, Tested, Proposed, Outcome):
        schema = kind.model_json_schema()
        for each in (*schema.get("$defs", {}).values(), schema):
            for name in each.get("properties", ()):
                found[name] = found.get(name, 0) + 1
    return "".join(f',"{name}":' for name in sorted(found, key=lambda name: found[name])).encode()


def _written(node: Experiment) -> tuple[bytes, bytes]:
    """An experiment as JSON: what was proposed, and what became of it."""
    outcome = Outcome.model_construct(**{name: getattr(node, name) for name in Outcome.model_fields})
    return node.proposed.model_dump_json().encode(), outcome.model_dump_json().encode()


@lru_cache(maxsize=REMEMBERED)
def _proposed(data: bytes, words: bytes) -> Proposed:
    found = Proposed.model_validate_json(_unpacked(data, words))
    lean(found)
    return found


@lru_cache(maxsize=REMEMBERED)
def _outcome(data: bytes, words: bytes) -> Outcome:
    found = Outcome.model_validate_json(_unpacked(data, words))
    lean(found)
    return found


def _read(name: str) -> Any:
    """A field of the outcome, read when it is asked for."""
    return property(lambda self: getattr(_outcome(self.kept.outcome, self.kept.words), name))


class _Kept:
    """What an archived experiment is made of; `words` are what its JSON is likely to say, and are shared."""

    __slots__ = ("words", "proposed", "outcome", "parent", "state", "score", "foreseen", "verdict", "cost_s", "waits")

    def __init__(self, node: Experiment, words: bytes) -> None:
        self.words = words
        self.proposed, self.outcome = (_packed(data, words) for data in _written(node))
        self.parent = _shared(node.parent)
        self.verdict = _shared(node.verdict)
        self.state, self.score, self.foreseen = node.state, node.score, node.foreseen
        self.cost_s, self.waits = node.cost_s, node.waits


def _own(name: str) -> Any:
    """What is kept as it is."""
    return property(lambda self: getattr(self.kept, name))


class Archived(Experiment):
    """An experiment that says the same in a tenth of the room. What is seldom asked for takes a tenth of a millisecond
    to read."""

    kept: _Kept

    def __init__(self, node: Experiment, words: bytes = b"") -> None:
        told = {"id": node.id, "index": node.index, "champion": _shared(node.champion), "ended": node.ended}
        for name, value in {**told, "kept": _Kept(node, words or _fields())}.items():
            object.__setattr__(self, name, value)

    proposed: Any = property(lambda self: _proposed(self.kept.proposed, self.kept.words))
    started, results, evaluation, select = map(_read, ("started", "results", "evaluation", "select"))
    analysis, tested, decided = map(_read, ("analysis", "tested", "decided"))
    parent, state, score, foreseen = map(_own, ("parent", "state", "score", "foreseen"))
    verdict, cost_s, waits = map(_own, ("verdict", "cost_s", "waits"))

    def __eq__(self, other: object) -> bool:
        return whole(self) == (whole(other) if isinstance(other, Experiment) else other)

    def __hash__(self) -> int:
        return hash(self.id)


def whole(node: Experiment) -> Experiment:
    """An experiment as records, whichever way it is kept."""
    if not isinstance(node, Archived):
        return node
    outcome = _outcome(node.kept.outcome, node.kept.words)
    told = {name: getattr(outcome, name) for name in Outcome.model_fields}
    return Experiment(node.id, node.index, node.proposed, champion=node.champion, ended=node.ended, **told)


def to_archive(nodes: Iterable[Experiment]) -> Iterator[Archived]:
    """Those of some experiments that have ended and are not archived yet, archived. Neighbours say much the same, so a
    few of them are what all are compressed against."""
    ended = [node for node in nodes if node.analysis is not None and not isinstance(node, Archived)]
    alike = ended[:: max(1, len(ended) // SAMPLES)][:SAMPLES]
    words = _fields() + b"".join(data for node in alike for data in _written(node))
    for node in ended:
        yield Archived(node, words)
