"""What a recipe brings that another has not, as kinds of change: data steps, backends, methods, members, later stages.

However a recipe came about, whole or by named changes, a banned part of it is found here.
"""

from __future__ import annotations

from typing import Any, Iterator

from postgrad.records import Recipe, Stage
from postgrad.research import edit

METHODS = {"full": "method.full_finetune"}


def brought(before: Recipe | None, after: Recipe) -> frozenset[str]:
    """The kinds of change that a recipe makes of another; all that it is made of where there is no other."""
    had = parts(before) if before is not None and edit.valid(before) else frozenset[str]()
    return parts(after) - had if edit.valid(after) else frozenset()


@edit.remembered
def parts(recipe: Recipe) -> frozenset[str]:
    """What a valid recipe is made of."""
    stages, main = edit.stages(recipe), edit.main_index(recipe)
    found = {f"data.{step.op}" for step in recipe.data}
    for number, stage in enumerate(stages):
        found |= set(_of_stage(stage))
        if number != main:
            found.add(f"ensemble.{_beside(stage)}")
    return frozenset(found)


def _of_stage(stage: Stage) -> Iterator[str]:
    """The backend, the method, and what it goes through next; of a soup, those that its members share."""
    yield f"backend.{stage.backend}"
    if members := edit.ingredients(stage):
        yield "soup.seeds" if len(set(members)) == 1 else "soup.rates"
    single = edit.single(stage)
    yield f"backend.{single.backend}"
    if tune := single.params.get("tune"):
        yield METHODS.get(str(tune), f"method.{tune}")
    later: Any = single.params.get("then") or ()
    yield from (f"lm.then_{one['method']}" for one in later if isinstance(one, dict) and "method" in one)


def _beside(stage: Stage) -> str:
    single = edit.single(stage)
    if single.backend != "embedder":
        return single.backend
    return "frozen" if edit.setting(single, "tune") in ("none", "frozen") else "tuned"
