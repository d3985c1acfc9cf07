"""The decision rule on simulated runs whose truth is known: false keeps are as rare as promised, and gains are kept."""

from __future__ import annotations

from typing import Iterator, Sequence

from postgrad.bench.keep_rules import Ours, Outcome
from postgrad.bench.worlds import WORLDS, Setting, world
from postgrad.evaluate.statistics.control import ALPHA
from postgrad.selftest.base import Observation, Sentinel
from postgrad.selftest.place import Place

NONE = (
    Setting(items=100, seed_noise="low", experiments=40, better=0.0),
    Setting(items=400, seed_noise="high", experiments=40, better=0.0),
    Setting(items=1000, seed_noise="low", experiments=40, better=0.0),
)
MANY = (Setting(items=400, seed_noise="low", experiments=60, better=0.4),)
RUNS_NONE, RUNS_MANY = 14, 14
# A rule that is wrong exactly as often as it promises is called wrong in one self-test of a hundred.
STRICT = 0.99
# Of runs in which two of five proposals are better, so many keep one at least.
KEEPING = 0.5


def play(place: Place) -> Iterator[Observation]:
    """Runs without a better proposal, and runs with many, in every world of the noise benchmark."""
    nothing = _played(place, NONE, RUNS_NONE)
    false = sum(any(not true for true in found.keeps) for found in nothing)
    allowed = most(len(nothing), ALPHA)
    words = f"{false} of {len(nothing)} runs without a better proposal kept one ({allowed} are within {ALPHA:.0%})"
    yield Observation(ok=false <= allowed, words=words)
    much = _played(place, MANY, RUNS_MANY)
    keeping = sum(any(found.keeps) for found in much)
    words = f"{keeping} of {len(much)} runs with many better ones kept some"
    yield Observation(ok=keeping >= KEEPING * len(much), words=words)
    keeps = [true for found in much for true in found.keeps]
    wrong, allowed = keeps.count(False), most(len(keeps), ALPHA)
    yield Observation(ok=wrong <= allowed, words=f"{wrong} of their {len(keeps)} keeps were false ({allowed} allowed)")


def _played(place: Place, settings: Sequence[Setting], runs: int) -> list[Outcome]:
    found = []
    for name in WORLDS:
        place.say(f"simulated runs: {name}")
        found += [Ours().play(world(name), setting, seed) for setting in settings for seed in range(runs)]
    return found


def most(runs: int, share: float) -> int:
    """The most errors in so many runs that are still no evidence against an error rate of `share`."""
    from scipy.stats import binom

    return int(binom.ppf(STRICT, runs, share)) if runs else 0


SENTINEL = Sentinel("rule", "the decision rule seldom keeps what is not better, and keeps what is", 8.0, play)
