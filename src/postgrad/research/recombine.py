"""Moves that use more than one experiment: combine takes from two branches, ablate takes a change back."""

from __future__ import annotations

from itertools import pairwise
from math import isfinite
from typing import Iterator, Sequence

from postgrad.records import Recipe, Stage
from postgrad.research import edit
from postgrad.research.ideas import Ask, Idea, recipe_of
from postgrad.tree import Experiment

COMBINED_GAIN = 0.01


def combine(ask: Ask) -> Idea | None:
    """Data steps, rejection score and inference of one with the method of the other; else both answer together."""
    first, name = ask.parent, ask.choice.other
    if first is None or name is None or ask.tree[name].score is None:
        return None
    second = ask.tree[name]
    for kind, change, combined in _combinations(first, second, ask.task.kind == "classification"):
        if (recipe := ask.fresh(combined)) is not None:
            why = f"What raised {first.id} and what raised {second.id} are different changes, so they should add up."
            return Idea(
                kind,
                change,
                why,
                recipe,
                COMBINED_GAIN,
                f"the score is not above that of the better of {first.id} and {second.id}",
                first.id,
                second.id,
            )
    return None


def mixtures(one: Recipe, two: Recipe, *, together: bool = True) -> Iterator[Recipe]:
    """The method of one recipe with the rest of the other, both ways; both together, where their base models allow.

    Args:
        together: answers can be averaged, as those in words cannot.
    """
    yield _method_and_rest(one, two)
    yield _method_and_rest(two, one)
    if together and (one.base_model == two.base_model or None in (one.base_model, two.base_model)):
        yield _together(one, two)


def _combinations(first: Experiment, second: Experiment, together: bool) -> Iterator[tuple[str, str, Recipe]]:
    words = (
        ("combine.recipes", f"the method of {first.id} with the data steps and rejection of {second.id}"),
        ("combine.recipes", f"the method of {second.id} with the data steps and rejection of {first.id}"),
        ("combine.answers", f"the models of {first.id} and {second.id} answer together"),
    )
    for (kind, change), recipe in zip(
        words, mixtures(recipe_of(first), recipe_of(second), together=together), strict=False
    ):
        yield kind, change, recipe


def _method_and_rest(method: Recipe, rest: Recipe) -> Recipe:
    """The stage and base model of one recipe, the data steps, inference and rejection score of the other."""
    mixed = method.model_copy(update={"data": rest.data, "inference": rest.inference})
    own, other = edit.main_stage(method), edit.main_stage(rest)
    if edit.family(own) == edit.family(other) and "score" in other.params:
        return edit.with_main(mixed, score=other.params["score"])
    return edit.checked(mixed)


def _together(one: Recipe, two: Recipe) -> Recipe:
    """One ensemble of both recipes' members, on the data steps of the first."""
    found = edit.members(one)
    stages = edit.stages(one)
    for member in edit.members(two):
        if Stage.model_validate(member["stage"]) not in stages and len(found) < edit.MAX_MEMBERS:
            found.append(member)
    base = one.base_model or two.base_model
    return edit.with_members(one.model_copy(update={"base_model": base}), found)


# --- ablate -----------------------------------------------------------------------------------------------------------


def ablate(ask: Ask) -> Idea | None:
    """The parent's recipe without the change on its path that has the least support."""
    parent = ask.parent
    if parent is None:
        return None
    path = ask.tree.path(parent.id)
    options = [*_undone(path), *_parts(path)]
    for _, change, smaller in sorted(options, key=lambda option: option[0]):
        if (recipe := ask.fresh(smaller)) is not None:
            why = "No part of the recipe has less evidence; without it the score should hold, and simpler is better."
            return Idea(
                "ablate",
                change,
                why,
                recipe,
                refuted_by="the score falls: the part is needed after all",
                parent=parent.id,
            )
    return None


def _undone(path: Sequence[Experiment]) -> Iterator[tuple[float, str, Recipe]]:
    """(support, words, recipe) for each change on the path that can be taken back alone."""
    for above, node in pairwise(path):
        smaller = _without_change(recipe_of(path[-1]), recipe_of(above), recipe_of(node))
        if smaller is not None:
            yield _support(node), f"without the change of {node.id} ({node.proposed.proposal.change})", smaller


def _without_change(recipe: Recipe, before: Recipe, after: Recipe) -> Recipe | None:
    """`recipe` with what made `after` of `before` undone; None where a method or a member changed."""
    old, new, now = edit.main_stage(before), edit.main_stage(after), edit.main_stage(recipe)
    same_shape = len(edit.members(before)) == len(edit.members(after)) and old.backend == new.backend
    if not (same_shape and edit.family(old) == edit.family(now) and before.base_model == after.base_model):
        return None
    params = dict(now.params)
    old, new = edit.single(old), edit.single(new)
    for key in old.params.keys() | new.params.keys():
        if edit.setting(old, key) != edit.setting(new, key) and edit.setting(now, key) == edit.setting(new, key):
            params[key] = edit.setting(old, key)
    smaller = edit.with_main_stage(recipe, Stage(backend=now.backend, params=params))
    added = {step.op for step in after.data} - {step.op for step in before.data}
    for op in added:
        smaller = edit.without_step(smaller, op)
    if after.inference != before.inference and recipe.inference == after.inference:
        smaller = edit.checked(smaller.model_copy(update={"inference": before.inference}))
    return smaller


def _support(node: Experiment) -> float:
    """How many half-widths of its interval a change was ahead of its parent; 0 for a root, or where it is not known."""
    gap = node.analysis.difference if node.analysis and node.parent else None
    if gap is None or not isfinite(gap.value) or gap.high <= gap.low:
        return 0.0
    return gap.value / ((gap.high - gap.low) / 2)


def _parts(path: Sequence[Experiment]) -> Iterator[tuple[float, str, Recipe]]:
    """(support, words, recipe) for each member, and for each data step that the starting point had."""
    recipe = recipe_of(path[-1])
    for step in recipe.data:
        if edit.has_step(recipe_of(path[0]), step.op):
            yield 0.0, f"without the data step {step.op}", edit.without_step(recipe, step.op)
    if edit.is_soup(edit.main_stage(recipe)):
        brought_by = next(node for node in path if edit.is_soup(edit.main_stage(recipe_of(node))))
        yield _support(brought_by), "with one training in place of averaged weights", edit.without_soup(recipe)
    found = edit.stages(recipe)
    for i, stage in enumerate(found if len(found) > 1 else ()):
        brought_by = next(node for node in path if len(edit.members(recipe_of(node))) > i)
        tune = stage.params.get("tune")
        name = f"{tune} {stage.backend}" if tune else stage.backend
        yield _support(brought_by), f"without the member {name}", edit.without_member(recipe, i)
