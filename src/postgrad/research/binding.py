"""Policies that choose recipes themselves get what they choose from: the recipe space of a task, or its options."""

from __future__ import annotations

from typing import Callable, Mapping

from postgrad.records import Prior, Recipe, TaskSpec
from postgrad.research import edit
from postgrad.research.base import nothing
from postgrad.research.options import PlaybookOptions
from postgrad.research.space import space_of
from postgrad.search.base import OptionPolicy, Policy, SpacePolicy


def bound(
    policy: Policy,
    task: TaskSpec,
    nominal_s: Callable[[Recipe], float],
    priors: Mapping[str, Prior] | None = None,
    seeded: Callable[[Recipe], bool] = edit.seeded,
    barred: Callable[[str], bool] = nothing,
) -> Policy:
    """The policy, with the task's recipe space or options where it chooses from them.

    Args:
        nominal_s: nominal seconds of one experiment with a recipe.
        priors: kind of change -> what finished runs taught about it.
        seeded: whether training a recipe with another seed gives another model.
        barred: whether people do not want a kind of change.
    """
    if isinstance(policy, SpacePolicy):
        return policy.over(space_of(task))
    if isinstance(policy, OptionPolicy):
        return policy.weighing(PlaybookOptions(task, nominal_s, priors or {}, seeded, barred))
    return policy
