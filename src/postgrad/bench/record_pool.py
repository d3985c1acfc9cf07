"""Which recipes are recorded: those that a search is likeliest to ask for.

Walks from the starting points with the playbook's own moves are counted; what they visit most is in the pool, so that
what is one move away from a recorded recipe is often recorded too. Fine-tunings are dear: a few ways to fine-tune are
let in, with all that can be made of each (heads, scores, ensembles). The most visited recipes come with other numbers.
"""

from __future__ import annotations

from collections import Counter
from math import exp, log
from random import Random
from typing import Any, Iterator

from postgrad.bench.record_names import exactly
from postgrad.bench.record_train import training_key
from postgrad.bench.simulated_parts import nominal_s
from postgrad.records import Dimension, Recipe, TaskSpec, Value
from postgrad.research import edit
from postgrad.research.drafts import drafts
from postgrad.research.learning import worth
from postgrad.research.moves import PLAYS
from postgrad.research.play import Play
from postgrad.research.playbook import OVERHEAD_S
from postgrad.research.references import reference_recipes
from postgrad.research.tuner import MOST_NUMBERS

WALKS = 1500
GO_ON = 0.7
LONGEST = 6
LEVELS = (0.1, 0.35, 0.65, 0.9)
NUMBERED = 40
# Recipes that are recorded before the next way to fine-tune is let in.
TURN = 50
# The order of data steps in the pool: those that draw by chance come first, so that more recipes share their rows.
STEPS = ("typos", "word_dropout", "balance", "dedup", "normalise", "near_misses", "background")


def pool(task: TaskSpec, size: int, tunings: int, walks: int = WALKS) -> tuple[Recipe, ...]:
    """`size` recipes: the references, the starting points, the most visited ones, and some of these with other numbers.

    Args:
        tunings: ways to fine-tune, over all recipes; a way is a method with its numbers on some data steps.
        walks: how many walks are counted.
    """
    rng = Random(f"pool/{task.name}/0")
    firsts = [*(proposal.recipe for proposal in reference_recipes(task)), *_starts(task)]
    visits = _visits(task, rng, walks)
    chosen: dict[str, Recipe] = {}
    known: set[str] = set()
    numbers = size // 4

    def take(recipe: Recipe, most: int) -> None:
        needed, name = known | ways(recipe), exactly(recipe)
        if len(needed) <= most and name not in chosen:
            known.update(needed)
            chosen[name] = recipe

    for recipe in firsts:
        take(recipe, 1000)
    ranked = sorted(visits.values(), key=lambda found: (-found[0], found[1].hash))
    for _, recipe in ranked:
        if len(chosen) < size - numbers:
            take(recipe, max(len(known), tunings - 1))
    best = [recipe for _, recipe in ranked if exactly(recipe) in chosen][:NUMBERED]
    for _ in range(100 * numbers):
        if len(chosen) < size:
            moved = _renumbered(rng.choice(best), rng)
            if moved is not None and (ways(moved) <= known or rng.random() < 0.05):
                take(moved, tunings)
    return tuple(chosen.values())


def in_turn(recipes: tuple[Recipe, ...], name: str) -> tuple[Recipe, ...]:
    """The order of recording: the references, then cheap and dear recipes in an order by chance that `name` decides.

    Each way to fine-tune has to wait for its turn, so that a recording that is cut off early has many recipes all the
    same.
    """
    turns: dict[str, int] = {}
    for recipe in recipes:
        for way in sorted(ways(recipe)):
            turns.setdefault(way, TURN * (1 + len(turns)))
    waiting = [*recipes[:3], *Random(name).sample(recipes[3:], len(recipes) - 3)]
    first = {recipe.hash: max((turns[way] for way in ways(recipe)), default=0) for recipe in recipes}
    found: list[Recipe] = []
    while waiting:
        due = next((recipe for recipe in waiting if first[recipe.hash] <= len(found)), None)
        found.append(due or min(waiting, key=lambda recipe: first[recipe.hash]))
        waiting.remove(found[-1])
    return tuple(found)


def _starts(task: TaskSpec) -> Iterator[Recipe]:
    for base in task.base_models or (None,):
        yield from (draft.recipe for draft in drafts(base))


def _visits(task: TaskSpec, rng: Random, walks: int) -> dict[str, tuple[int, Recipe]]:
    """Name -> how often walks came by, and the recipe. Half of the walks choose as the playbook does before it has
    learnt anything, half by chance."""
    starts = list(_starts(task))
    counts: Counter[str] = Counter()
    found: dict[str, Recipe] = {}  # by what they are, whatever the order of their steps and members
    for number in range(walks):
        recipe = rng.choice(starts)
        for _ in range(LONGEST):
            fitting = [play for play in PLAYS if play.applies(recipe, task)]
            if not fitting:
                break
            play = rng.choice(fitting) if number % 2 else max(fitting, key=lambda one: _drawn(one, recipe, task, rng))
            recipe = play.apply(recipe, task)
            name = exactly(recipe)
            counts[name] += 1
            found.setdefault(name, _ordered(recipe))
            if rng.random() > GO_ON:
                break
    return {name: (counts[name], recipe) for name, recipe in found.items()}


def _ordered(recipe: Recipe) -> Recipe:
    steps = sorted(recipe.data, key=lambda step: (STEPS.index(step.op) if step.op in STEPS else len(STEPS), step.op))
    return edit.checked(recipe.model_copy(update={"data": tuple(steps)}))


def _drawn(play: Play, recipe: Recipe, task: TaskSpec, rng: Random) -> float:
    return worth(rng.gauss(play.gain, play.spread), OVERHEAD_S + nominal_s(play.apply(recipe, task)))


def ways(recipe: Recipe) -> set[str]:
    """Names of the fine-tunings that a recipe needs, but for seeds."""
    keys = (training_key(recipe, stage) for stage in edit.stages(recipe))
    return {key for key in keys if key is not None}


def _renumbered(recipe: Recipe, rng: Random) -> Recipe | None:
    """The recipe with up to three of its tunable numbers at other levels."""
    space = edit.space_of(recipe)
    if not space:
        return None
    paths = rng.sample(sorted(space), rng.randint(1, min(MOST_NUMBERS, len(space))))
    return edit.with_numbers(recipe, {path: _level(space[path], rng) for path in paths})


def _level(dimension: Dimension, rng: Random) -> Value:
    if dimension.choices:
        return rng.choice(dimension.choices)
    share, low, high = rng.choice(LEVELS), dimension.low, dimension.high
    value = exp(log(low) + share * (log(high) - log(low))) if dimension.log else low + share * (high - low)
    return round(value) if dimension.integer else float(f"{value:.2g}")


def described(recipe: Recipe) -> dict[str, Any]:
    """What kind of recipe it is, for counts."""
    stages = edit.stages(recipe)
    tuned = any(stage.params.get("tune", "full") != "frozen" for stage in stages if stage.backend == "embedder")
    return {"backend": recipe.stage.backend, "members": len(stages), "tuned": tuned, "steps": len(recipe.data)}
