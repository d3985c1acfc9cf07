"""Numbers inside one structure: Optuna's TPE (Bergstra et al. 2011; multivariate, Falkner et al. 2018), rebuilt from
the tree at every call.

The study holds the experiments of the same structure, as `postgrad.search.trials` counts them; of very many the best
and the latest. Same tree, same seed: same suggestions. Structure is never changed here.
"""

from __future__ import annotations

from math import isfinite
from random import Random
from typing import Any, Iterator, Mapping, Sequence

from postgrad.groups import among, folded
from postgrad.records import Dimension, Recipe, Value
from postgrad.research.edit import full_params, get_path, space_of, structure_of, valid, with_numbers
from postgrad.research.features import valued
from postgrad.search.trials import study, trial
from postgrad.shelf import Group
from postgrad.tree import Experiment, Tree

STARTUP_TRIALS = 2
MOST_NUMBERS = 3
# Recipes that TPE is asked for, and those by chance where all of them were tried: asking it takes milliseconds, and it
# says the same again where little is left to try.
ASKED, BY_CHANCE = 2, 8
# What a study holds: of the best as many as TPE takes as good, a tenth of the study (the default of Optuna; by the rule
# of Bergstra et al., a quarter of the root, 8 of 1,000); and the latest, which say where not to look.
BEST, HELD = 10, 100
# The best of a structure: (score, lowest first; index).
Best = tuple[tuple[float, int], ...]


def suggestions(tree: Tree, recipe: Recipe, rng: Random) -> Iterator[Recipe]:
    """New numbers for the recipe's structure, the most promising first; none where it has no number to tune.

    At most `MOST_NUMBERS` numbers, drawn by chance, are moved at a time and the others stay as the recipe has them. A
    run affords a handful of tries for a structure: simulated, moving all fifteen numbers of an ensemble at once gained
    half as much in 20 tries where the starting numbers were good, and a tenth more where they were arbitrary. The last
    ones, for when all before them were tried, move every number to a place by chance.
    """
    whole = space_of(recipe)
    moved = sorted(rng.sample(sorted(whole), min(MOST_NUMBERS, len(whole))))
    yield from placed(tree, recipe, {path: whole[path] for path in moved}, rng)
    for _ in range(BY_CHANCE if whole else 0):
        yield with_numbers(recipe, {path: valued(whole[path], rng.random()) for path in sorted(whole)})


def placed(tree: Tree, recipe: Recipe, ranges: Mapping[str, Dimension], rng: Random) -> Iterator[Recipe]:
    """New numbers for these paths of a recipe, within these ranges, the most promising first."""
    moved = sorted(ranges)
    if not moved:
        return
    known = _told(tree, recipe)
    numbers = [_numbers(node.proposed.proposal.recipe, moved) for node in known]
    distributions = {
        path: _distribution(ranges[path], [found[path] for found in (*numbers, _numbers(recipe, moved))])
        for path in moved
    }
    trials = [trial(node.state, node.score, n, distributions) for node, n in zip(known, numbers, strict=True)]
    asked = study(trials, rng.getrandbits(31), STARTUP_TRIALS)
    for _ in range(ASKED):
        values = asked.ask(distributions).params
        yield with_numbers(recipe, {path: _short(value) for path, value in values.items()})


def described(before: Recipe, after: Recipe) -> str:
    """The numbers that changed, as a person reads them; of members in another order, that they did."""
    if structure_of(before) != structure_of(after):
        return "other numbers"
    old, new = full_params(before), full_params(after)
    parts = []
    for path in space_of(after):
        first, second = get_path(old, path), get_path(new, path)
        if first != second:
            parts.append(f"{path.replace('stage.params.', '')} {_shown(first)} -> {_shown(second)}")
    return ", ".join(parts)


def alike(tree: Tree, recipe: Recipe) -> Sequence[Experiment]:
    """The experiments that differ from a valid recipe in tunable numbers only, in index order."""
    return among(tree, _structured(recipe))


def _structured(recipe: Recipe) -> Group[Experiment]:
    return Group("structure", _structure, structure_of(recipe))


def _structure(node: Experiment) -> str | None:
    recipe = node.proposed.proposal.recipe
    return structure_of(recipe) if valid(recipe) else None


def _told(tree: Tree, recipe: Recipe) -> list[Experiment]:
    """Those that a study holds, in index order."""
    found = alike(tree, recipe)
    if len(found) <= HELD:
        return list(found)
    nothing: Best = ()
    held = {index for _, index in folded(tree, _structured(recipe), "best", nothing, _better)}
    for node in reversed(found):
        if len(held) == HELD:
            break
        held.add(node.index)
    nodes = tree.all()
    return [nodes[index] for index in sorted(held)]


def _better(best: Best, node: Experiment) -> Best:
    """The best after one more experiment."""
    if node.score is None or not isfinite(node.score):
        return best
    key = (-node.score, node.index)
    return best if len(best) == BEST and best[-1] < key else tuple(sorted((*best, key))[:BEST])


def _numbers(recipe: Recipe, paths: Sequence[str]) -> dict[str, Any]:
    try:
        found = {path: get_path(recipe.stage.params, path) for path in paths}
    except KeyError:  # A default that is not written out.
        found = {}
    if found and not any(isinstance(each, str | bool) for each in found.values()):
        return found
    params = full_params(recipe)  # Who proposed it may have written a number as a string, which counts as the number.
    return {path: get_path(params, path) for path in paths}


def _distribution(dimension: Dimension, known: list[Any]) -> Any:
    """The dimension, widened to the numbers that recipes of the structure have already."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.choices:
        choices: list[Any] = [*dimension.choices, *known]
        return CategoricalDistribution(list(dict.fromkeys(choices)))
    low, high = min(dimension.low, *known), max(dimension.high, *known)
    if dimension.integer:
        return IntDistribution(int(low), int(high), log=dimension.log)
    return FloatDistribution(low, high, log=dimension.log)


def _short(value: Any) -> Value:
    """Three digits are more than the score can tell apart."""
    short: Value = float(f"{value:.3g}") if isinstance(value, float) else value
    return short


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
