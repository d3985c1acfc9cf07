"""TPE over the whole recipe space: Optuna's tree-structured Parzen estimator (Bergstra et al. 2011) chooses starting
point, plays and numbers together, in place of a researcher.

The study is built from the tree at every call. Ended experiments have their score; raced and failed ones are pruned,
which counts as bad, and so do pending ones (constant liar, Ginsbourger et al. 2010). Conditional coordinates are
suggested only where they matter. It has no notion of a parent, of cost, or of an interval.
"""

from __future__ import annotations

import warnings
from random import Random
from typing import Any, Iterator

from pydantic import Field

from postgrad.budget import Remaining
from postgrad.records import Choice, Record
from postgrad.search import legal
from postgrad.search.base import Coordinate, Point, Policy, Space
from postgrad.search.whole import Seen, chosen, fresh, given, require, seen
from postgrad.tree import State, Tree

ASKS = 10


class TPEParams(Record):
    """Settings of TPE.

    Attributes:
        n_drafts: drafts of the researcher, besides the references, that the study starts from.
        n_startup: points in the study, the drafts included, before the estimator takes over from points by chance.
        multivariate: coordinates that occur together are estimated together (Falkner et al. 2018), not one by one.
    """

    n_drafts: int = Field(default=4, ge=0)
    n_startup: int = Field(default=10, ge=1)
    multivariate: bool = True


class TPE:
    """Suggests the next recipe."""

    Params: type[Record] = TPEParams

    def __init__(self, space: Space | None = None) -> None:
        require(("optuna",))
        self.space = space

    def over(self, space: Space) -> Policy:
        """The policy for one task."""
        return TPE(space)

    def choose(self, tree: Tree, remaining: Remaining, rng: Random, params: TPEParams) -> Choice:
        """Drafts, then points by chance, then what the estimator holds for promising."""
        space = given(self.space, "tpe")
        if remaining.empty:
            return legal.stop()
        made = len(legal.drafts(tree))
        if made < max(params.n_drafts, not len(tree)):
            return legal.draft(f"draft {made + 1} of {params.n_drafts}")
        known = seen(tree, space)
        starting = len(known) < params.n_startup
        points = iter(()) if starting else _suggested(known, space, rng, params)
        recipe = fresh(tree, space, points, rng)
        if recipe is None:
            return legal.draft("the space has no new recipe left")
        return chosen(recipe, "drawn by chance" if starting else f"TPE's suggestion after {len(known)} recipes")


def _suggested(known: list[Seen], space: Space, rng: Random, params: TPEParams) -> Iterator[Point]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=rng.getrandbits(31),
            n_startup_trials=1,
            multivariate=params.multivariate,
            group=params.multivariate,
            constant_liar=True,
        )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {coordinate.name: _distribution(coordinate) for coordinate in space.coordinates}
    study.add_trials([_trial(one, distributions) for one in known])
    for _ in range(ASKS):
        trial = study.ask()

        def pick(coordinate: Coordinate, trial: Any = trial) -> float:
            if coordinate.options:
                option: int = trial.suggest_categorical(coordinate.name, list(range(coordinate.options)))
                return option
            share: float = trial.suggest_float(coordinate.name, 0.0, 1.0)
            return share

        yield space.walk(pick)[0]


def _distribution(coordinate: Coordinate) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if coordinate.options:
        return CategoricalDistribution(list(range(coordinate.options)))
    return FloatDistribution(0.0, 1.0)


def _trial(one: Seen, distributions: dict[str, Any]) -> Any:
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import TrialState, create_trial

    states = {
        State.DONE: TrialState.COMPLETE,
        State.RACED: TrialState.PRUNED,
        State.FAILED: TrialState.PRUNED,
        State.PENDING: TrialState.RUNNING,
        State.UNSCORED: TrialState.FAIL,
    }
    state = states[one.node.state]
    if state is TrialState.COMPLETE and one.score is None:
        state = TrialState.FAIL
    params = {
        name: int(value) if isinstance(distributions[name], CategoricalDistribution) else value
        for name, value in one.point.items()
    }
    return create_trial(
        state=state,
        value=one.score,
        params=params,
        distributions={name: distributions[name] for name in params},
    )
