"""Operators that make out-of-scope negatives: `near_misses`, `background` and `held_out_intents`.

Train files often hold nothing to reject; these make something up from the train rows and from a list of everyday
messages that belong to no task. Where the task has no out-of-scope label they change nothing and say so.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from importlib.resources import files
from itertools import islice
from pathlib import Path
from random import Random
from typing import Iterable, Iterator, Literal, Mapping, Sequence

from pydantic import Field

from postgrad.data.similarity import encoder_similarity, ngram_similarity
from postgrad.data.text import AddedIds, normalise_text, text_id
from postgrad.records import Record, Row, StepReport

# Weight of all texts together as the prior of one label's words, and the z value from which a word marks a label.
PRIOR = 0.1
MARKS = 1.96
ROUNDS = 5


class NearMissesParams(Record):
    """How many, and how they are made.

    Attributes:
        share: negatives made, as a share of the in-scope rows.
        words: how many of the words that bear the intent are taken out of each.
        mode: take them out, put other words in their place, or one or the other by chance.
    """

    share: float = Field(default=0.5, gt=0.0, le=3.0)
    words: int = Field(default=2, ge=1, le=5)
    mode: Literal["delete", "replace", "mixed"] = "mixed"


class NearMisses:
    """Train texts without the words that bear their intent: what is left reads like the domain and asks for nothing
    the task covers.

    The idea is the negative augmentation of Arora, Jain and Merugu 2024 (arXiv 2410.01627). The words are ranked by
    the log-odds ratio with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008, "Fightin' Words",
    Political Analysis 16(4), equations 16 and 22).
    """

    Params: type[Record] = NearMissesParams

    def apply(
        self,
        rows: tuple[Row, ...],
        params: NearMissesParams,
        rng: Random,
        *,
        out_of_scope: str | None,
        base_model: Path | None,
    ) -> tuple[tuple[Row, ...], StepReport]:
        """See `Operator.apply`. Makes fewer than asked where the texts allow no more different ones."""
        if out_of_scope is None:
            return rows, _nothing_to_reject("near_misses", rows)
        in_scope = [row for row in rows if row.label != out_of_scope]
        wanted = round(params.share * len(in_scope))
        edits = _edits(in_scope, params, rng, {normalise_text(row.text) for row in rows})
        ids = AddedIds("near_misses", (row.id for row in rows))
        added = tuple(Row(ids.new(row.id), text, out_of_scope) for row, text in islice(edits, wanted))
        note = f"{wanted - len(added)} fewer than asked: no more different texts" if len(added) < wanted else ""
        return _with_added("near_misses", rows, added, note)


class BackgroundParams(Record):
    """How many, and how unlike the train rows.

    Attributes:
        share: negatives added, as a share of the rows.
        filter: how likeness is measured: by word and character n-grams, or by the base model as sentence encoder
            (n-grams where the recipe has no base model).
        max_similarity: a text whose cosine with any train text is higher is left out. None takes what suits the
            filter: 0.35 for n-grams, 0.5 for the encoder.
    """

    share: float = Field(default=0.5, gt=0.0, le=5.0)
    filter: Literal["ngrams", "encoder"] = "ngrams"
    max_similarity: float | None = Field(default=None, gt=0.0, le=1.0)


class Background:
    """Adds everyday messages from other domains as negatives, without those that are too close to a train text."""

    Params: type[Record] = BackgroundParams

    def apply(
        self,
        rows: tuple[Row, ...],
        params: BackgroundParams,
        rng: Random,
        *,
        out_of_scope: str | None,
        base_model: Path | None,
    ) -> tuple[tuple[Row, ...], StepReport]:
        """See `Operator.apply`. The source id of an added row is the id of its text."""
        if out_of_scope is None:
            return rows, _nothing_to_reject("background", rows)
        if not rows:
            return _with_added("background", rows, (), "")
        known = {normalise_text(row.text) for row in rows}
        texts = [text for text in background_texts() if normalise_text(text) not in known]
        by_encoder = params.filter == "encoder" and base_model is not None
        limit = params.max_similarity or (0.5 if by_encoder else 0.35)
        train = [row.text for row in rows if row.label != out_of_scope]
        close = _closeness(texts, train, base_model if by_encoder else None)
        far = [text for text, likeness in zip(texts, close, strict=True) if likeness <= limit]
        wanted = round(params.share * len(rows))
        chosen = rng.sample(far, min(wanted, len(far)))
        ids = AddedIds("background", (row.id for row in rows))
        added = tuple(Row(ids.new(text_id(text)), text, out_of_scope) for text in chosen)
        notes = [f"{len(texts) - len(far)} of {len(texts)} texts too close to a train text"]
        notes += [f"{wanted - len(added)} fewer than asked"] if len(added) < wanted else []
        notes += ["no base model: n-grams used"] if params.filter == "encoder" and base_model is None else []
        return _with_added("background", rows, added, "; ".join(notes))


class HeldOutIntentsParams(Record):
    """Attributes:
    share: share of the in-scope labels that become negatives; at least one, and at least two labels stay.
    """

    share: float = Field(default=0.15, gt=0.0, le=0.5)


class HeldOutIntents:
    """Turns whole labels into negatives: their rows keep text and id and get the out-of-scope label."""

    Params: type[Record] = HeldOutIntentsParams

    def apply(
        self,
        rows: tuple[Row, ...],
        params: HeldOutIntentsParams,
        rng: Random,
        *,
        out_of_scope: str | None,
        base_model: Path | None,
    ) -> tuple[tuple[Row, ...], StepReport]:
        """See `Operator.apply`. With fewer than three in-scope labels nothing changes."""
        if out_of_scope is None:
            return rows, _nothing_to_reject("held_out_intents", rows)
        labels = sorted({row.label for row in rows} - {out_of_scope})
        size = min(max(1, round(params.share * len(labels))), len(labels) - 2)
        gone = set(rng.sample(labels, max(0, size)))
        done = tuple(row._replace(label=out_of_scope) if row.label in gone else row for row in rows)
        note = f"negatives now: {', '.join(sorted(gone))}" if gone else "fewer than three in-scope labels: unchanged"
        return done, StepReport(op="held_out_intents", rows_in=len(rows), rows_out=len(done), note=note)


def background_texts() -> tuple[str, ...]:
    """The project's own list of everyday messages, in file order, without its comment lines."""
    lines = files("postgrad.data").joinpath("background.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def _nothing_to_reject(op: str, rows: tuple[Row, ...]) -> StepReport:
    return StepReport(op=op, rows_in=len(rows), rows_out=len(rows), note="the task has no out-of-scope label")


def _with_added(
    op: str, rows: tuple[Row, ...], added: tuple[Row, ...], note: str
) -> tuple[tuple[Row, ...], StepReport]:
    report = StepReport(op=op, rows_in=len(rows), rows_out=len(rows) + len(added), added=len(added), note=note)
    return (*rows, *added), report


def _closeness(texts: Sequence[str], train: Sequence[str], encoder: Path | None) -> Sequence[float]:
    if not texts or not train:
        return [0.0] * len(texts)
    return ngram_similarity(texts, train) if encoder is None else encoder_similarity(texts, train, encoder)


# --- near misses ----------------------------------------------------------------------------------------------------


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", normalise_text(text))


def word_weights(rows: Iterable[Row]) -> dict[str, dict[str, float]]:
    """label -> word -> z value of the log-odds ratio of the word in the label's texts against all other texts."""
    by_label: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        by_label[row.label].update(_words(row.text))
    every: Counter[str] = Counter()
    for counts in by_label.values():
        every.update(counts)
    prior = {word: PRIOR * count for word, count in every.items()}
    mass, total = sum(prior.values()), every.total()
    weights: dict[str, dict[str, float]] = {}
    for label, counts in by_label.items():
        inside, outside = counts.total(), total - counts.total()
        weights[label] = {
            word: _z(count + prior[word], inside + mass, every[word] - count + prior[word], outside + mass)
            for word, count in counts.items()
        }
    return weights


def _z(here: float, all_here: float, there: float, all_there: float) -> float:
    """z value of a difference of log odds; the counts include the prior."""

    def log_odds(count: float, of: float) -> float:
        return math.log(count) - math.log(max(of - count, 1e-9))

    return (log_odds(here, all_here) - log_odds(there, all_there)) / math.sqrt(1 / here + 1 / there)


def _edits(rows: Sequence[Row], params: NearMissesParams, rng: Random, known: set[str]) -> Iterator[tuple[Row, str]]:
    """Yield (source row, new text) without repeats, every row once before any row twice."""
    weights = word_weights(rows)
    fillers = _Fillers(rows, weights)
    seen = set(known)
    for _ in range(ROUNDS):
        for row in rng.sample(rows, len(rows)):
            text = _without_intent(row, weights[row.label], params, fillers, rng)
            name = normalise_text(text)
            if _words(text) and name not in seen:
                seen.add(name)
                yield row, text


def _without_intent(
    row: Row, weights: Mapping[str, float], params: NearMissesParams, fillers: _Fillers, rng: Random
) -> str:
    tokens = row.text.split()
    weight = [max((weights.get(word, 0.0) for word in _words(token)), default=-math.inf) for token in tokens]
    ranked = sorted(range(len(tokens)), key=lambda i: (-weight[i], i))
    bearing = [i for i in ranked[: params.words] if weight[i] > 0] or ranked[:1]
    mode = rng.choice(("delete", "replace")) if params.mode == "mixed" else params.mode
    if mode == "delete":
        return " ".join(token for i, token in enumerate(tokens) if i not in bearing)
    return " ".join(fillers.draw(row.label, rng) if i in bearing else token for i, token in enumerate(tokens))


class _Fillers:
    """Frequent words of the other labels that mark no label: with them in, a text does not ask for another intent."""

    def __init__(self, rows: Sequence[Row], weights: Mapping[str, Mapping[str, float]]) -> None:
        marking = {word for of_label in weights.values() for word, z in of_label.items() if z > MARKS}
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        for row in rows:
            self._counts[row.label].update(word for word in _words(row.text) if word not in marking)
        self._every: Counter[str] = Counter()
        for counts in self._counts.values():
            self._every.update(counts)

    def draw(self, label: str, rng: Random) -> str:
        """One word, by its frequency in the other labels' texts; nothing where they have none."""
        others = self._every - self._counts[label]
        return rng.choices(list(others), weights=list(others.values()))[0] if others else ""
