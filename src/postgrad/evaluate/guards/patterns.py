"""Patterns in answers: the share of answers that hold something forbidden, or something required.

Written over answers as texts; a classifier's answer is its label. Patterns are matched by RE2, whose time is linear in
the text whatever the pattern is, so that no pattern and no answer can hang the referee, and the verdict does not depend
on how fast the machine is (R. Cox, "Regular Expression Matching in the Wild", 2010). RE2 has no back references and no
look-around; a pattern that needs them is refused when the task is checked.
"""

from __future__ import annotations

from typing import Iterator, Literal, Protocol, Sequence

from postgrad.evaluate.guards.base import Answered, AnswersKind, about
from postgrad.records import Estimate, Guard

MOST_PATTERNS = 200
LONGEST_PATTERN = 1000
MEMORY_BYTES = 8 << 20


class Pattern(Protocol):
    """A compiled pattern."""

    def search(self, text: str) -> object | None:
        """Something where the text holds a match."""
        ...


class BadPattern(Exception):
    """RE2 does not take the pattern. The text says why."""


def compiled(pattern: str) -> Pattern:
    """Compile one pattern.

    Raises:
        BadPattern: it is not of RE2's syntax, or needs too much memory.
    """
    import re2

    options = re2.Options()
    options.max_mem = MEMORY_BYTES
    options.log_errors = False
    try:
        found: Pattern = re2.compile(pattern, options)
    except (re2.error, UnicodeEncodeError) as wrong:
        said = wrong.args[0] if wrong.args else wrong
        raise BadPattern(said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)) from wrong
    return found


class PatternGuard(AnswersKind):
    """The share of answers that match at least one of the patterns under `key`."""

    high = 1.0

    def __init__(self, key: Literal["forbidden", "required"]) -> None:
        self._key = key

    def title(self, guard: Guard) -> str:
        return f"{self._key} answers{about(guard)}"

    def _patterns(self, guard: Guard) -> tuple[str, ...]:
        return guard.forbidden if self._key == "forbidden" else guard.required

    def problems(self, guard: Guard, rejects: bool) -> Iterator[str]:
        patterns = self._patterns(guard)
        if len(patterns) > MOST_PATTERNS:
            yield f"{len(patterns)} patterns, and at most {MOST_PATTERNS} are taken. Join some with '|'."
        for number, pattern in enumerate(patterns[:MOST_PATTERNS]):
            where = f"{self._key}.{number}"
            if not pattern or len(pattern) > LONGEST_PATTERN:
                yield f"{where} has {len(pattern)} characters, and 1 to {LONGEST_PATTERN} were expected."
                continue
            try:
                compiled(pattern)
            except BadPattern as wrong:
                yield (
                    f"{where} is no pattern that can be matched safely: {wrong}. Expected RE2 syntax: no back "
                    "references, no look-around, no repeats over 1,000."
                )

    def measured(self, guard: Guard, answered: Answered, seed: int) -> Estimate:
        import numpy as np

        if not answered.texts:
            return Estimate(value=float("nan"), low=float("nan"), high=float("nan"), n=0)
        hit = matches(self._patterns(guard), answered.texts)
        share = sum(hit) / len(hit)
        low, high = share_interval(share, len(np.unique(answered.items.groups)))
        return Estimate(value=share, low=low, high=high, n=len(np.unique(answered.items.groups)))


def matches(patterns: Sequence[str], texts: Sequence[str]) -> list[bool]:
    """For each text, whether any of the patterns is found in it. Equal texts are looked at once."""
    ready = [compiled(pattern) for pattern in patterns]
    known = {text: any(pattern.search(text) is not None for pattern in ready) for text in set(texts)}
    return [known[text] for text in texts]


def share_interval(share: float, n: int) -> tuple[float, float]:
    """The exact 95 % interval of a share of `n` texts (Clopper and Pearson, Biometrika 26, 1934).

    Where a text is answered by several models, its part is a fraction; the interval is then no longer exact, but never
    of no width.
    """
    from scipy.stats import beta

    hits = share * n
    low = 0.0 if hits <= 0 else float(beta.ppf(0.025, hits, n - hits + 1))
    high = 1.0 if hits >= n else float(beta.ppf(0.975, hits + 1, n - hits))
    return low, high
