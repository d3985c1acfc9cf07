"""Leave one change out: the recipes that lack exactly one of the changes that made a recipe.

What was changed is read off the experiments on its path. Data steps, members of an ensemble and the averaging of
weights are changes of their own, wherever they came from. Other values of numbers alone make no recipe simpler and are
not left out. It ranks and trains nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Iterator, Sequence

from postgrad.records import Move, Recipe, Value
from postgrad.research import edit
from postgrad.research.ideas import recipe_of
from postgrad.train import BACKENDS
from postgrad.tree import Experiment

# Proposals of these kinds made several changes in one step; each of them is left out by itself.
SEVERAL = ("several.", "combine")
# Experiments that left something out, or changed nothing, bring no change.
BROUGHT_NOTHING = (Move.ABLATE, Move.REPLICATE)


@dataclass(frozen=True)
class Ablation:
    """A recipe without one change.

    Attributes:
        what: the change in a word, such as "typos" or "classic_member".
        change: the same in words that follow "the recipe ".
        recipe: the recipe without it.
        brought_by: the experiment on the path that brought it.
    """

    what: str
    change: str
    recipe: Recipe
    brought_by: str

    @property
    def key(self) -> tuple[str, str]:
        """Names the change within a run, also when others are left out before it."""
        return self.brought_by, self.what


def ablations(path: Sequence[Experiment]) -> tuple[Ablation, ...]:
    """Every ablation of the last experiment of a path, each recipe once, in the order in which the changes came."""
    recipe = recipe_of(path[-1])
    if not edit.valid(recipe):
        return ()
    found: dict[str, Ablation] = {}
    for ablation in (*_undone(path), *_parts(path)):
        if edit.valid(ablation.recipe) and (key := same(ablation.recipe)) != same(recipe):
            found.setdefault(key, ablation)
    order = {node.id: number for number, node in enumerate(path)}
    return tuple(sorted(found.values(), key=lambda ablation: order[ablation.brought_by]))


@edit.remembered
def same(recipe: Recipe) -> str:
    """A name that valid recipes share which differ in nothing but defaults that are written out."""
    return edit.with_numbers(recipe, {}).hash


# --- what experiments changed -----------------------------------------------------------------------------------------


def _undone(path: Sequence[Experiment]) -> Iterator[Ablation]:
    """Without what one experiment of the path changed of settings, data steps or inference."""
    recipe = recipe_of(path[-1])
    for above, node in pairwise(path):
        before, after = recipe_of(above), recipe_of(node)
        if node.proposed.choice.move in BROUGHT_NOTHING or not (edit.valid(before) and edit.valid(after)):
            continue
        if edit.structure_of(before) == edit.structure_of(after):
            continue
        proposal = node.proposed.proposal
        if not proposal.kind.startswith(SEVERAL):
            what = proposal.kind.rpartition(".")[2]
            yield Ablation(what, f"without {what} ({proposal.change})", _without(recipe, before, after), node.id)
            continue
        main = edit.single(edit.main_stage(recipe))
        tunable = BACKENDS.get(main.backend).space(main.params)
        for key, value in _settings(recipe, before, after).items():
            if key not in tunable:
                plain = edit.with_main(recipe, **{key: value})
                yield Ablation(key, f"with {key} {value} as before {node.id}", plain, node.id)
        if after.inference != before.inference == {} and recipe.inference == after.inference:
            plain = edit.checked(recipe.model_copy(update={"inference": before.inference}))
            yield Ablation("inference", f"with the answer rule as before {node.id}", plain, node.id)


def _without(recipe: Recipe, before: Recipe, after: Recipe) -> Recipe:
    """The recipe with everything undone at once that made `after` of `before`, but for members."""
    settings = _settings(recipe, before, after)
    found = edit.with_main(recipe, **settings) if settings else recipe
    for op in {step.op for step in after.data} - {step.op for step in before.data}:
        found = edit.without_step(found, op)
    if after.inference != before.inference and recipe.inference == after.inference:
        found = edit.checked(found.model_copy(update={"inference": before.inference}))
    return found


def _settings(recipe: Recipe, before: Recipe, after: Recipe) -> dict[str, Value]:
    """Settings of the main member that an experiment changed and that are still so, as they were before; what is a
    number to tune counts where it came with another setting."""
    old, new, now = (edit.single(edit.main_stage(each)) for each in (before, after, recipe))
    if not old.backend == new.backend == now.backend or before.base_model != after.base_model:
        return {}
    changed = {key for key in old.params.keys() | new.params.keys() if edit.setting(old, key) != edit.setting(new, key)}
    if changed <= BACKENDS.get(new.backend).space(new.params).keys():
        return {}
    return {key: edit.setting(old, key) for key in sorted(changed) if edit.setting(now, key) == edit.setting(new, key)}


# --- what it is made of -----------------------------------------------------------------------------------------------


def _parts(path: Sequence[Experiment]) -> Iterator[Ablation]:
    """Without a data step, the averaging of weights, or a member."""
    recipe = recipe_of(path[-1])
    steps, soups = [[step.op for step in recipe_of(node).data] for node in path], [_soup(node) for node in path]
    for step in recipe.data:
        by = next(node.id for node, ops in zip(path, steps, strict=True) if step.op in ops)
        yield Ablation(step.op, f"without the data step {step.op}", edit.without_step(recipe, step.op), by)
    if soups[-1]:
        by = path[soups.index(True)].id
        yield Ablation("soup", "with one training, no weights averaged", edit.without_soup(recipe), by)
    stages = edit.stages(recipe)
    for i, stage in enumerate(stages if len(stages) > 1 else ()):
        by = next(node.id for node in path if len(edit.members(recipe_of(node))) > i)
        name = _kind(stage.backend, stage.params.get("tune"))
        yield Ablation(f"{name}_member", f"without the member {name}", edit.without_member(recipe, i), by)


def _soup(node: Experiment) -> bool:
    recipe = recipe_of(node)
    return edit.valid(recipe) and edit.is_soup(edit.main_stage(recipe))


def _kind(backend: str, tune: Value) -> str:
    return f"{tune}_{backend}" if isinstance(tune, str) else backend
