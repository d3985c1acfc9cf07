"""Experiments as trials of an Optuna study in memory, for whoever rebuilds a study from the tree at every call.

Ended experiments have their score; raced and failed ones are pruned, which counts as bad, and so do pending ones
(constant liar, Ginsbourger et al. 2010), so that parallel workers spread out; unscored ones do not count. Nothing here
knows what is tuned.
"""

from __future__ import annotations

import warnings
from copy import copy
from datetime import datetime
from functools import cache
from math import isfinite
from typing import Any, Iterable, Mapping

from postgrad.tree import State

# A trial has a time, which nobody looks at.
WHEN = datetime(2000, 1, 1)


def study(trials: Iterable[Any], seed: int, n_startup: int, multivariate: bool = True, group: bool = False) -> Any:
    """A study that maximises, with TPE (Bergstra et al. 2011) as its sampler.

    Args:
        trials: as `trial` makes them.
        n_startup: trials before the estimator takes over from chance.
        multivariate: numbers are estimated together (Falkner et al. 2018), with `group` those that occur together.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=n_startup, multivariate=multivariate, group=group, constant_liar=True
        )
    made = optuna.create_study(direction="maximize", sampler=sampler)
    made.add_trials(trials)
    return made


def trial(state: State, score: float | None, params: Mapping[str, Any], distributions: Mapping[str, Any]) -> Any:
    """An experiment as a trial. It may be added to many studies, and nobody may change it."""
    from optuna.trial import TrialState

    states = {
        State.DONE: TrialState.COMPLETE,
        State.RACED: TrialState.PRUNED,
        State.FAILED: TrialState.PRUNED,
        State.PENDING: TrialState.RUNNING,
        State.UNSCORED: TrialState.FAIL,
    }
    found = states[state]
    if found is TrialState.COMPLETE and (score is None or not isfinite(score)):
        found, score = TrialState.FAIL, None
    return _shared_trial()(
        number=-1,
        trial_id=-1,
        state=found,
        value=score,
        datetime_start=WHEN,
        datetime_complete=WHEN if found.is_finished() else None,
        params=dict(params),
        distributions=dict(distributions),
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


@cache
def _shared_trial() -> Any:
    """A trial that is not copied deeply, nor checked, when it is added to a study: that took most of the time of a
    suggestion, nobody changes these, and they are made of what was checked."""
    from optuna.trial import FrozenTrial

    def shallow(self: Any, memo: dict[int, Any]) -> Any:
        return copy(self)

    def checked(self: Any) -> None:
        """What it is made of was checked."""

    return type("SharedTrial", (FrozenTrial,), {"__deepcopy__": shallow, "_validate": checked})
