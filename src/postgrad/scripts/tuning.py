"""Which numbers of a script to try next: one at a time first, in the order of what usually matters, then Optuna's TPE
(Bergstra et al. 2011), rebuilt at every call as in `research/tuner.py`.

A night affords some tens of tries, so a proposal moves one to three constants, by steps that a person would take.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from math import exp, isfinite, log
from random import Random
from typing import Any, Iterator, Mapping, Sequence
from typing import Literal as Only

from postgrad.records import Dimension
from postgrad.scripts.constants import Constant, tunable, values_of, with_values, written
from postgrad.scripts.ranges import Literal
from postgrad.search.trials import study, trial
from postgrad.tree import State

FIRST_TRIES = 12
MOST_MOVED = 3
ASKS = 16
DRAWS = 40
DIGITS = 2
# Share of a range that one step may go either way: a factor of three of a learning rate.
REACH = 0.25

Values = Mapping[str, Literal]


@dataclass(frozen=True)
class Tried:
    """An experiment of this run: the values of its tunable constants and how it ended.

    Attributes:
        values: as `values_of` gives them; a name that is missing counts as the parent's.
        score: on the task's own scale; None where there is none.
        pending: it runs now. Neither pending nor scored is failed, which counts as bad.
    """

    values: Values
    score: float | None = None
    pending: bool = False


@dataclass(frozen=True)
class Setting:
    """New values for one to three constants of the parent."""

    values: Values
    words: str
    why: str


def next_setting(
    found: Sequence[Constant], tried: Sequence[Tried], direction: Only["min", "max"], seed: int
) -> Setting | None:
    """The next numbers to try from a parent whose constants are `found`; None where nothing new is left.

    The same arguments give the same setting. It changes one to three constants and never makes a setting that was
    tried, the parent's included. The first tries of a run move one constant each, every one once before any moves
    again, by a factor of two where the scale is logarithmic; a value that was tried of a constant is not tried again
    then. After `FIRST_TRIES` settings of the run the estimator takes over.
    """
    ordered, rng = tunable(found), Random(seed)
    here = values_of(found)
    known = {_key({**here, **_shared(one.values, here)}) for one in tried} | {_key(here)}
    if len(known) <= FIRST_TRIES:
        for name, value in _one_by_one(ordered, tried):
            if _key({**here, name: value}) not in known:
                return _setting(ordered, {name: value}, "one number at a time, in the order of what usually matters")
    for values, why in chain(_estimated(ordered, tried, direction, rng), _drawn(ordered, rng)):
        changed = {name: value for name, value in values.items() if value != here[name]}
        if changed and _key({**here, **changed}) not in known:
            return _setting(ordered, changed, why)
    return None


def applied(source: str, found: Sequence[Constant], setting: Setting) -> str:
    """The source with a setting."""
    return with_values(source, found, setting.values)


def described(found: Sequence[Constant], values: Values) -> str:
    """A change as a person reads it: "LEARNING_RATE 6e-4 -> 1.2e-3, DEPTH 8 -> 12"."""
    return ", ".join(f"{c.name} {c.text} -> {written(c, values[c.name])}" for c in found if c.name in values)


def _setting(ordered: Sequence[Constant], values: Values, why: str) -> Setting:
    return Setting(dict(values), described(ordered, values), why)


def _shared(values: Values, here: Values) -> Values:
    return {name: value for name, value in values.items() if name in here}


def _key(values: Values) -> frozenset[tuple[str, Literal]]:
    """What tells two settings apart. 1 and 1.0 are one."""
    return frozenset(values.items())


# --- one at a time ----------------------------------------------------------------------------------------------------


def _one_by_one(ordered: Sequence[Constant], tried: Sequence[Tried]) -> Iterator[tuple[str, Literal]]:
    """A step of each constant that was never moved, then the steps that are left of the others. What a constant does is
    not known before it is moved once, and its second step says less than the first one of another (elementary effects:
    M. Morris, Technometrics 33 (1991) 161-174)."""
    before = {one.name: {entry.values[one.name] for entry in tried if one.name in entry.values} for one in ordered}
    for one in sorted(ordered, key=lambda one: len(before[one.name] - {one.value}) > 0):
        yield from ((one.name, value) for value in neighbours(one)[:1] if value not in before[one.name])
    for one in ordered:
        yield from ((one.name, value) for value in neighbours(one) if value not in before[one.name])


def neighbours(one: Constant) -> tuple[Literal, ...]:
    """The next values up and down: the neighbouring choices, twice and half on a log scale, half and twice the distance
    to 1 of a rate of decay, else a tenth of the range. Those outside the range are left out."""
    dimension, value = one.dimension, one.value
    if dimension is None:
        return ()
    if dimension.choices:
        return _beside(dimension.choices, value)
    if isinstance(value, str):
        return ()
    now = float(value)
    if dimension.log:
        wanted = [now * 2, now / 2]
    elif _is_decay(dimension):
        wanted = [1 - (1 - now) / 2, 1 - (1 - now) * 2]
    else:
        step = (dimension.high - dimension.low) / (10 if now > 0 else 4)
        wanted = [now + step, now - step] if now > 0 else [now + step]
    inside = [_rounded(dimension, x) for x in wanted]
    slack = 1e-9 * dimension.high
    return tuple(dict.fromkeys(
        x for x in inside if dimension.low - slack <= x <= dimension.high + slack and x != value
    ))  # fmt: skip


def _beside(choices: Sequence[Any], value: Literal) -> tuple[Literal, ...]:
    if value not in choices:
        return ()
    if isinstance(value, str | bool):
        return tuple(choice for choice in choices if choice != value)
    at = choices.index(value)
    # A width has steps of half as much again; the first try takes a whole factor of two where there is one.
    up = next((c for c in choices[at + 1 :] if c == 2 * value), choices[at + 1] if at + 1 < len(choices) else None)
    down = next((c for c in choices[:at] if 2 * c == value), choices[at - 1] if at else None)
    return tuple(choice for choice in (up, down) if choice is not None)


def _is_decay(dimension: Dimension) -> bool:
    """A range like that of Adam's betas: what counts is the distance to 1."""
    return not dimension.log and dimension.low >= 0.5 and 0.99 < dimension.high < 1


def _rounded(dimension: Dimension, value: float) -> int | float:
    """Two digits are more than a score can tell apart; of a decay two digits of its distance to 1."""
    if dimension.integer:
        return round(value)
    if _is_decay(dimension):
        return round(1 - float(f"{1 - value:.{DIGITS}g}"), 6)
    return float(f"{value:.{DIGITS}g}")


# --- the estimator ----------------------------------------------------------------------------------------------------


def _moved(ordered: Sequence[Constant], rng: Random) -> list[Constant]:
    """One to three constants, those that usually matter more often."""
    left, chosen = list(ordered), []
    for _ in range(min(rng.randint(1, MOST_MOVED), len(left))):
        one = rng.choices(left, [1 / (1 + other.rank) for other in left])[0]
        chosen.append(one)
        left.remove(one)
    return sorted(chosen, key=lambda one: (one.rank, one.start))


def _estimated(
    ordered: Sequence[Constant], tried: Sequence[Tried], direction: str, rng: Random
) -> Iterator[tuple[Values, str]]:
    """What the estimator holds for promising, of a few sets of constants."""
    scored = sum(entry.score is not None for entry in tried)
    if not ordered or not scored:
        return
    for _ in range(MOST_MOVED):
        moved = _moved(ordered, rng)
        axes = {one.name: Axis.of(one, [entry.values.get(one.name, one.value) for entry in tried]) for one in moved}
        distributions = {name: axis.distribution() for name, axis in axes.items()}
        trials = [_trial(entry, moved, axes, distributions, direction) for entry in tried]
        asked = study(trials, rng.getrandbits(31), 1)
        for _ in range(ASKS):
            params = asked.ask(distributions).params
            values = {name: axes[name].value(at) for name, at in params.items()}
            yield values, f"the estimator's choice after {scored} scores"


def _trial(
    entry: Tried, moved: Sequence[Constant], axes: Mapping[str, Axis], distributions: Mapping[str, Any], direction: str
) -> Any:
    params = {one.name: axes[one.name].place(entry.values.get(one.name, one.value)) for one in moved}
    score = entry.score if entry.score is not None and isfinite(entry.score) else None
    state = State.PENDING if entry.pending else State.FAILED if score is None else State.DONE
    signed = None if score is None or entry.pending else (score if direction == "max" else -score)
    return trial(state, signed, params, distributions)


@dataclass(frozen=True)
class Axis:
    """One constant as a number on a line: the place in a row of choices, a logarithm, or the number itself."""

    dimension: Dimension
    choices: tuple[Any, ...]
    low: float
    high: float

    @classmethod
    def of(cls, one: Constant, seen: Sequence[Literal]) -> Axis:
        """The axis: choices with every value that was tried, or the part of the range around the constant's own value
        that one step may reach; values beyond it lie at its edge."""
        dimension = one.dimension
        if dimension is None:
            raise ValueError(f"{one.name!r} is not tuned")
        known = (*seen, one.value)
        if dimension.choices:
            more = [value for value in known if value not in dimension.choices]
            choices = tuple(dict.fromkeys([*dimension.choices, *more]))
            numbers = all(isinstance(choice, int | float) for choice in choices)
            return cls(dimension, tuple(sorted(choices)) if numbers else choices, 0, len(choices) - 1)
        low, high = _line(dimension, dimension.low), _line(dimension, dimension.high)
        here = min(high, max(low, _line(dimension, float(one.value)) if _fits(dimension, one.value) else low))
        return cls(dimension, (), max(low, here - REACH * (high - low)), min(high, here + REACH * (high - low)))

    def distribution(self) -> Any:
        """The axis for Optuna."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices and isinstance(self.choices[0], str):
            return CategoricalDistribution(list(range(len(self.choices))))
        return IntDistribution(0, int(self.high)) if self.choices else FloatDistribution(self.low, self.high)

    def place(self, value: Literal) -> float | int:
        """Where a value lies."""
        if self.choices:
            return self.choices.index(value)
        fitting = value if _fits(self.dimension, value) else self.dimension.low
        return min(self.high, max(self.low, _line(self.dimension, float(fitting))))

    def value(self, at: float | int) -> Literal:
        """The value at a place."""
        if self.choices:
            chosen: Literal = self.choices[int(at)]
            return chosen
        if self.dimension.log:
            return _rounded(self.dimension, exp(at))
        return _rounded(self.dimension, 1 - exp(-at) if _is_decay(self.dimension) else at)


def _fits(dimension: Dimension, value: Any) -> bool:
    if isinstance(value, str):
        return False
    return float(value) > 0 if dimension.log else float(value) < 1 if _is_decay(dimension) else True


def _line(dimension: Dimension, value: float) -> float:
    if dimension.log:
        return log(value)
    return -log(1 - value) if _is_decay(dimension) else value


def _drawn(ordered: Sequence[Constant], rng: Random) -> Iterator[tuple[Values, str]]:
    """Steps by chance, for when nothing has a score or the estimator has nothing new."""
    for _ in range(DRAWS if ordered else 0):
        moved = [one for one in _moved(ordered, rng) if neighbours(one)]
        yield {one.name: rng.choice(neighbours(one)) for one in moved}, "steps by chance"
    for one in ordered:
        yield from (({one.name: value}, "what is left") for value in neighbours(one))
