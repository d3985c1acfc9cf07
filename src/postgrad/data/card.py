"""The data card: what the data looks like, and what about it will hurt, before anything is spent.

Reads labels of every part, so it is for people and for the referee; a worker never gets it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import combinations
from statistics import median
from typing import Iterable, Mapping, Sequence

from postgrad.data.folding import latinised, words_of
from postgrad.data.text import normalise_text
from postgrad.records import DataCard, Row

FEW_ROWS = 3
IMBALANCE = 20
SMALL_EVAL = 100
SHOWN = 5

Parts = Mapping[str, tuple[Row, ...]]


def build_card(parts: Parts, out_of_scope: str | None, *, words: bool = False) -> DataCard:
    """Describe the parts "train", "dev" and "test"; empty parts count as absent.

    `labels` counts the train rows of every in-scope label of any part; none where answers are in words. `leaked`
    counts, for each pair such as "train/test", the rows of the second part whose normalised text is in the first.
    """
    present = {name: rows for name, rows in parts.items() if rows}
    texts = {name: [normalise_text(row.text) for row in rows] for name, rows in present.items()}
    in_train = Counter(row.label for row in present.get("train", ()))
    every = [] if words else sorted({row.label for rows in present.values() for row in rows} - {out_of_scope})
    rejected = {name: sum(row.label == out_of_scope for row in rows) for name, rows in present.items()}
    leaked = _leaked(texts)
    return DataCard(
        rows={name: len(rows) for name, rows in present.items()},
        labels={label: in_train[label] for label in every},
        out_of_scope={} if out_of_scope is None else rejected,
        duplicates=sum(len(names) - len(set(names)) for names in texts.values()),
        leaked=leaked,
        words_median=float(median(len(row.text.split()) for row in present["train"])) if "train" in present else 0.0,
        warnings=tuple(_warnings(present, texts, leaked, out_of_scope, words)),
    )


def problems(parts: Parts, out_of_scope: str | None, *, words: bool = False) -> list[str]:
    """What makes a run pointless: each a sentence with what to do. Empty when the data can be used."""
    train = parts.get("train", ())
    found = []
    labels = {row.label for row in train} - {out_of_scope}
    if not train:
        return ["The train part has no rows. Name a file with rows in data.train."]
    if words:
        return []
    if len(labels) < 2:
        only = f"only '{next(iter(labels))}'" if labels else f"only the out-of-scope label '{out_of_scope}'"
        found.append(
            f"The train rows hold one class, {only}; a classifier needs at least two in-scope labels. "
            f"Check data.target, or add rows of other labels."
        )
    texts: dict[str, set[str]] = defaultdict(set)
    for row in train:
        texts[row.label].add(normalise_text(row.text))
    if len(labels) >= 2 and all(len(texts[label]) < 2 for label in labels):
        found.append(
            f"None of the {len(labels)} labels in train has two different texts, so nothing can be held out to measure "
            f"with. Check that data.input and data.target are not swapped, or add rows."
        )
    for part in ("dev", "test"):
        rows = parts.get(part, ())
        if rows and labels and not {row.label for row in rows} & (labels | {out_of_scope}):
            found.append(
                f"No label of {part} is a label of train ({part} has {_some({row.label for row in rows})}; train has "
                f"{_some(labels)}). Check that data.target names the same column in both."
            )
    return found


def _leaked(texts: Mapping[str, Sequence[str]]) -> dict[str, int]:
    counts = {}
    for first, second in combinations(texts, 2):
        known = set(texts[first])
        hits = sum(text in known for text in texts[second])
        if hits:
            counts[f"{first}/{second}"] = hits
    return counts


def _warnings(
    parts: Parts, texts: Mapping[str, Sequence[str]], leaked: Mapping[str, int], out_of_scope: str | None, words: bool
) -> Iterable[str]:
    if not words:
        train = Counter(row.label for row in parts.get("train", ()) if row.label != out_of_scope)
        yield from _label_warnings(parts, train, out_of_scope)
    yield from _text_warnings(parts, texts, leaked)
    yield from _scope_warnings(parts, out_of_scope)


def _label_warnings(parts: Parts, train: Counter[str], out_of_scope: str | None) -> Iterable[str]:
    few = sorted(label for label, count in train.items() if count < FEW_ROWS)
    if few:
        yield (
            f"{len(few)} of {len(train)} labels have fewer than {FEW_ROWS} train rows ({_some(few)}): they can hardly "
            f"be learnt, and one that has a single text is never asked in the search."
        )
    if train and max(train.values()) >= IMBALANCE * min(train.values()):
        most, least = max(train, key=lambda label: train[label]), min(train, key=lambda label: train[label])
        yield (
            f"The labels are uneven: '{most}' has {train[most]} train rows and '{least}' has {train[least]}. "
            f"A metric that averages over labels (macro_f1) shows the small ones."
        )
    for part in ("dev", "test"):
        rows = parts.get(part, ())
        unknown = Counter(row.label for row in rows if row.label not in train and row.label != out_of_scope)
        if unknown:
            yield (
                f"{len(unknown)} labels are in {part} and not in train ({_some(unknown)}; {unknown.total()} rows): no "
                f"model can answer them, and they count as wrong. Add train rows, or set data.out_of_scope if one of "
                f"them is the out-of-scope label."
            )
        if rows and len(rows) < SMALL_EVAL:
            yield (
                f"{part} has {len(rows)} rows: only large differences can be told from noise "
                f"(`postgrad check` says how large)."
            )


def _text_warnings(parts: Parts, texts: Mapping[str, Sequence[str]], leaked: Mapping[str, int]) -> Iterable[str]:
    for part, names in texts.items():
        repeats = len(names) - len(set(names))
        if repeats:
            yield f"{part} has {repeats} rows that repeat another row's text (ignoring case and end punctuation)."
        labels: dict[str, set[str]] = defaultdict(set)
        for row, name in zip(parts[part], names, strict=True):
            labels[name].add(row.label)
        torn = [name for name, given in labels.items() if len(given) > 1]
        if torn:
            # A test text is shown nowhere: this ends up in the report.
            such = f", such as '{_short(torn[0])}' ({_some(labels[torn[0]])})" if part == "train" else ""
            yield (
                f"{len(torn)} texts of {part} carry more than one label{such}: correct them, or one of the answers is "
                "always wrong."
            )
    for pair, count in leaked.items():
        first, second = pair.split("/")
        yield (
            f"{count} rows of {second} have the text of a {first} row: Postgrad takes such rows out of {first} before "
            f"it trains or chooses, so that {second} measures new inputs."
        )


def _scope_warnings(parts: Parts, out_of_scope: str | None) -> Iterable[str]:
    if out_of_scope is None:
        return
    found = {part: sum(row.label == out_of_scope for row in rows) for part, rows in parts.items()}
    if not any(found.values()):
        yield (
            f"No row has the out-of-scope label '{out_of_scope}'. Check its spelling in data.out_of_scope; without "
            f"such rows nobody can say how well the model rejects."
        )
    elif not found.get("train"):
        yield (
            f"train has no row with the out-of-scope label '{out_of_scope}'. That is normal: the threshold is chosen "
            f"from train alone, with held-out intents and made-up negatives in the place of real ones."
        )
    like = {row.label for rows in parts.values() for row in rows if _same_words(row.label, out_of_scope)}
    if like - {out_of_scope}:
        yield (
            f"{_some(like - {out_of_scope})} looks like the out-of-scope label '{out_of_scope}', written in another "
            f"way: it counts as an intent. Write it as data.out_of_scope says if it is meant."
        )
    for part in ("dev", "test"):
        if part in found and found[part] == len(parts[part]):
            yield f"Every row of {part} is out of scope: it cannot show whether the intents are told apart."


def _same_words(first: str, second: str) -> bool:
    """True when two labels differ in case, spacing, look-alike letters or what is invisible at most."""
    return words_of(latinised(first)) == words_of(latinised(second))


def _some(labels: Iterable[str]) -> str:
    names = sorted(labels)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(_short(name) for name in names[:SHOWN]) + more


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
