"""Weak slices: kinds of items on which a model errs more often than on the rest, and by more than chance.

Every slice is tested with Fisher's exact test, one-sided, against all other items, and the false discovery rate over
all slices is held at 5 % (Y. Benjamini and Y. Hochberg, "Controlling the False Discovery Rate", JRSS B 57 (1995)).
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import Iterable, Mapping, Sequence

SMALLEST = 8
RATE = 0.05
# Lengths are cut into this many parts of about equal size.
LENGTHS = 4
MIXED = 0.2
NO_LETTERS = "no letters"


@dataclass(frozen=True)
class Case:
    """One item as slices see it.

    Attributes:
        key: `UNIT/ITEM_ID`.
        group: the row it was made from; items of a group are one piece of evidence.
        label: what was to be answered; "" where that is no label.
        out_of_scope: None in a task that rejects nothing.
        tags: further columns, such as {"source": "mail"}.
    """

    key: str
    group: str
    text: str
    label: str
    wrong: bool
    out_of_scope: bool | None = None
    tags: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Slice:
    """A kind of items. Counts are of groups: a group is wrong where at least half of its items are.

    Attributes:
        kind, value: such as "script" and "CYRILLIC".
        p: one-sided p value of Fisher's exact test. q: the same, adjusted for all slices that were looked at.
        keys: the items that are answered wrong.
    """

    kind: str
    value: str
    wrong: int
    size: int
    rest_wrong: int
    rest_size: int
    p: float
    q: float
    keys: tuple[str, ...]

    @property
    def rate(self) -> float:
        return self.wrong / self.size

    @property
    def rest_rate(self) -> float:
        return self.rest_wrong / max(1, self.rest_size)

    @property
    def words(self) -> str:
        """The slice in words, with its error rate and that of the rest."""
        return (
            f"{self.kind} {self.value}: {self.rate:.0%} of {self.size} wrong, {self.rest_rate:.0%} of the others "
            f"(q = {self.q:.2g})"
        )


def weak_slices(cases: Sequence[Case], *, smallest: int = SMALLEST, rate: float = RATE) -> tuple[Slice, ...]:
    """The slices that are worse than the rest, the surest first.

    Args:
        smallest: groups that a slice and the rest have to have.
        rate: the share of false discoveries among what is returned that is allowed on average.
    """
    found = all_slices(cases, smallest=smallest)
    return tuple(each for each in found if each.q <= rate)


def all_slices(cases: Sequence[Case], *, smallest: int = SMALLEST) -> tuple[Slice, ...]:
    """Every slice that is large enough, with its test, the surest first. Of slices with the same members, one stays."""
    drafts: dict[tuple[str, ...], Slice] = {}
    for kind, values in sorted(_kinds(cases).items()):
        for value in sorted(set(values) - {""}):
            inside = [case for case, named in zip(cases, values, strict=True) if named == value]
            rest = [case for case, named in zip(cases, values, strict=True) if named != value]
            members = tuple(case.key for case in inside)
            drafts.setdefault(members, _tested(kind, value, inside, rest))
    large = [each for each in drafts.values() if min(each.size, each.rest_size) >= smallest]
    adjusted = benjamini_hochberg([each.p for each in large])
    marked = [_with_q(each, q) for each, q in zip(large, adjusted, strict=True)]
    return tuple(sorted(marked, key=lambda each: (each.q, each.p, each.kind, each.value)))


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values: those at most `a` are the discoveries at a false discovery rate of `a`."""
    ranked = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, lowest = [1.0] * len(p_values), 1.0
    for place in range(len(ranked) - 1, -1, -1):
        lowest = min(lowest, p_values[ranked[place]] * len(ranked) / (place + 1))
        adjusted[ranked[place]] = lowest
    return adjusted


def script_of(text: str) -> str:
    """The Unicode script of most letters of a text, such as LATIN or HAN; "mixed" where another has a fifth of them.

    Read off the names of characters. It tells scripts apart, and no languages that share one.
    """
    seen: Counter[str] = Counter()
    for letter in text:
        if letter.isalpha():
            first = unicodedata.name(letter, "UNKNOWN").split()[0]
            seen["HAN" if first == "CJK" else first] += 1
    if not seen:
        return NO_LETTERS
    (name, most), *_ = sorted(seen.items(), key=lambda pair: (-pair[1], pair[0]))
    return "mixed" if sum(seen.values()) - most >= MIXED * sum(seen.values()) else name


# --- kinds ----------------------------------------------------------------------------------------------------------


def _kinds(cases: Sequence[Case]) -> dict[str, list[str]]:
    """Kind of slice -> the value of each case; "" where a case has none."""
    kinds = {
        "length": _lengths([len(case.text.split()) for case in cases]),
        "label": [case.label for case in cases],
        "script": [script_of(case.text) for case in cases],
        "scope": [{None: "", True: "out of scope", False: "in scope"}[case.out_of_scope] for case in cases],
    }
    columns: Iterable[str] = sorted({name for case in cases for name in case.tags or {}})
    return kinds | {name: [(case.tags or {}).get(name, "") for case in cases] for name in columns}


def _lengths(words: Sequence[int]) -> list[str]:
    """Which quarter of all lengths each is in, named by its bounds in words."""
    import numpy as np

    if not words:
        return []
    edges = np.unique(np.quantile(words, np.linspace(0, 1, LENGTHS + 1), method="inverted_cdf").astype(int))
    if len(edges) < 3:
        return ["" for _ in words]
    places = np.clip(np.searchsorted(edges, words, side="left") - 1, 0, len(edges) - 2)
    lows = [edges[0], *(edge + 1 for edge in edges[1:-1])]
    return [f"{lows[at]} to {edges[at + 1]} words" for at in places]


def _tested(kind: str, value: str, inside: Sequence[Case], rest: Sequence[Case]) -> Slice:
    from scipy.stats import hypergeom

    wrong, size = _wrong_groups(inside)
    rest_wrong, rest_size = _wrong_groups(rest)
    # Fisher's exact test, one-sided: the chance of as many wrong ones in a draw of `size` from all.
    p = float(hypergeom.sf(wrong - 1, size + rest_size, wrong + rest_wrong, size))
    keys = tuple(case.key for case in inside if case.wrong)
    return Slice(kind, value, wrong, size, rest_wrong, rest_size, p, 1.0, keys)


def _wrong_groups(cases: Sequence[Case]) -> tuple[int, int]:
    """(groups that are wrong, groups)."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for case in cases:
        groups[case.group].append(case.wrong)
    return sum(2 * sum(found) >= len(found) for found in groups.values()), len(groups)


def _with_q(found: Slice, q: float) -> Slice:
    return replace(found, q=q)
