"""TPE over the whole recipe space: Optuna's tree-structured Parzen estimator (Bergstra et al. 2011) chooses starting
point, plays and numbers together, in place of a researcher.

The study is built from the tree at every call; how an experiment counts in it is in `trials.py`. Conditional
coordinates are suggested only where they matter. It has no notion of a parent, of cost, or of an interval.
"""

from __future__ import annotations

from functools import cache, partial
from random import Random
from typing import Any, Iterator

from pydantic import Field

from postgrad.records import Recipe, Record
from postgrad.search import trials
from postgrad.search.base import Coordinate, Space
from postgrad.search.whole import Seen, WholeParams, WholePolicy
from postgrad.tree import State

ASKS = 10


class TPEParams(WholeParams):
    """Settings of TPE.

    Attributes:
        n_startup: points in the study, the drafts included, before the estimator takes over from points by chance.
        multivariate: coordinates that occur together are estimated together (Falkner et al. 2018), not one by one.
    """

    n_startup: int = Field(default=10, ge=1)
    multivariate: bool = True


class TPE(WholePolicy[TPEParams]):
    """Suggests the next recipe: by chance first, then what the estimator holds for promising."""

    name = "tpe"
    libraries = ("optuna",)
    Params: type[Record] = TPEParams

    def __init__(self, space: Space | None = None) -> None:
        super().__init__(space)
        self._trials: dict[tuple[str, State, float | None], Any] = {}

    def suggested(
        self, known: list[Seen], space: Space, rng: Random, params: TPEParams
    ) -> tuple[str, Iterator[Recipe]]:
        """Points by chance while the study is small, then the estimator's."""
        if len(known) < params.n_startup:
            return "drawn by chance", iter(())
        return f"TPE's suggestion after {len(known)} recipes", self._asked(known, space, rng, params)

    def _asked(self, known: list[Seen], space: Space, rng: Random, params: TPEParams) -> Iterator[Recipe]:
        multivariate = params.multivariate
        found = [self._trial(one, space) for one in known]
        study = trials.study(found, rng.getrandbits(31), 1, multivariate=multivariate, group=multivariate)
        for _ in range(ASKS):
            yield space.walk(partial(_pick, study.ask()))[1]

    def _trial(self, one: Seen, space: Space) -> Any:
        """The trial of an experiment, made once: a choice depends on that in no way but its time."""
        key = (one.node.proposed.proposal.recipe.hash, one.node.state, one.score)
        if key not in self._trials:
            known = {coordinate.name: coordinate for coordinate in space.coordinates}
            params = {name: int(value) if known[name].options else value for name, value in one.point.items()}
            distributions = {name: _distribution(known[name]) for name in params}
            self._trials[key] = trials.trial(one.node.state, one.score, params, distributions)
        return self._trials[key]


def _pick(trial: Any, coordinate: Coordinate) -> float:
    if coordinate.options:
        option: int = trial.suggest_categorical(coordinate.name, range(coordinate.options))
        return option
    share: float = trial.suggest_float(coordinate.name, 0.0, 1.0)
    return share


@cache
def _distribution(coordinate: Coordinate) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if coordinate.options:
        return CategoricalDistribution(list(range(coordinate.options)))
    return FloatDistribution(0.0, 1.0)
