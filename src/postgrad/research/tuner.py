"""Numbers inside one structure: Optuna's TPE (Bergstra et al. 2011), rebuilt from the tree at every call.

The study lives in memory and holds every experiment of the same structure: ended ones with their score, pending ones as
the worst score so far (constant liar, Ginsbourger et al. 2010), so that parallel workers spread out. Same tree, same
seed: same suggestion.
"""

from __future__ import annotations

from typing import Any

from postgrad.records import Dimension, Recipe, Value
from postgrad.research.edit import full_params, get_path, space_of, structure_of, with_numbers
from postgrad.tree import Experiment, State, Tree

STARTUP_TRIALS = 4


def suggest(tree: Tree, recipe: Recipe, seed: int) -> Recipe | None:
    """New numbers for the recipe's structure, or None where it has no number to tune."""
    import optuna

    space = space_of(recipe)
    if not space:
        return None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {name: _distribution(dimension) for name, dimension in space.items()}
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for numbers, value in _known(tree, recipe, space):
        kept = {name: number for name, number in numbers.items() if _inside(number, space[name])}
        study.add_trial(
            optuna.trial.create_trial(
                params=kept, distributions={name: distributions[name] for name in kept}, value=value
            )
        )
    trial = study.ask(distributions)
    return with_numbers(recipe, dict(trial.params))


def _known(tree: Tree, recipe: Recipe, space: dict[str, Dimension]) -> list[tuple[dict[str, Value], float]]:
    """(numbers, value) of every experiment of the structure."""
    structure = structure_of(recipe)
    same = [n for n in tree.all() if structure_of(n.proposed.proposal.recipe) == structure]
    scores = [node.score for node in same if node.score is not None]
    worst = min(scores, default=0.0)
    return [(_numbers(node, space), worst if node.score is None else node.score) for node in same if _told(node)]


def _told(node: Experiment) -> bool:
    """Raced and failed experiments tell the tuner that those numbers are bad; cut-off ones tell nothing."""
    return node.state is not State.UNSCORED


def _numbers(node: Experiment, space: dict[str, Dimension]) -> dict[str, Value]:
    params = full_params(node.proposed.proposal.recipe)
    return {name: get_path(params, name) for name in space}


def _inside(number: Any, dimension: Dimension) -> bool:
    if dimension.choices:
        return number in dimension.choices
    return bool(dimension.low <= number <= dimension.high)


def _distribution(dimension: Dimension) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.choices:
        return CategoricalDistribution(list(dimension.choices))  # type: ignore[arg-type]
    if dimension.integer:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
