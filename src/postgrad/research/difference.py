"""What two recipes differ in: base model, backends, settings, data steps, members, inference."""

from __future__ import annotations

from typing import Any, Iterator, Literal

from postgrad.records import Recipe, Record, Value

Part = Literal["base_model", "backend", "setting", "member", "step", "inference"]
MEMBER = "stage.members."


class RecipeChange(Record):
    """One place. `before` or `after` is None where the place is not there."""

    part: Part
    setting: str
    before: Value = None
    after: Value = None

    @property
    def told(self) -> str:
        """In words: "lr 3e-05 -> 3.01e-05"."""
        name = self.setting.removeprefix("stage.").replace(".stage.", ".").replace(".params.", ".")
        return f"{name} {_shown(self.before)} -> {_shown(self.after)}"


def recipe_changes(before: Recipe | None, after: Recipe) -> list[RecipeChange]:
    """The settings that differ, in the order of the new recipe; all of them where there is no old one."""
    old, new = settings(before) if before else {}, settings(after)
    names = [*new, *(name for name in old if name not in new)]
    return [
        RecipeChange(
            part=_part(name, name in old and name in new), setting=name, before=old.get(name), after=new.get(name)
        )
        for name in names
        if old.get(name) != new.get(name)
    ]


def settings(recipe: Recipe) -> dict[str, Value]:
    """A recipe as flat settings: "stage.lr" -> 2e-5, "data.dedup.near" -> True, "stage.members.1.stage.params.C" -> 1.
    A data step that is there twice is "data.OP#2" the second time."""
    flat: dict[str, Value] = {"base_model": recipe.base_model, "backend": recipe.stage.backend}
    there: dict[str, int] = {}
    for step in recipe.data:
        there[step.op] = there.get(step.op, 0) + 1
        name = f"data.{step.op}" + (f"#{there[step.op]}" if there[step.op] > 1 else "")
        flat[name] = True
        flat |= _flat(name, step.params)
    return flat | dict(_flat("stage", recipe.stage.params)) | dict(_flat("inference", recipe.inference))


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Value]]:
    """(name, value) of every leaf; a list is one, unless it is one of objects, as members and later stages are."""
    inner: Any = None
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list | tuple) and value and all(isinstance(one, dict) for one in value):
        inner = enumerate(value)
    if inner is None:
        yield prefix, value
    else:
        for key, one in inner:
            yield from _flat(f"{prefix}.{key}", one)


def _part(name: str, on_both_sides: bool) -> Part:
    head, _, rest = name.partition(".")
    if name == "base_model":
        return "base_model"
    if name == "backend" or name.endswith(".stage.backend"):
        return "backend"
    if head == "data" and "." not in rest:
        return "step"
    if name.startswith(MEMBER) and not on_both_sides:
        return "member"
    return "inference" if head == "inference" else "setting"


def _shown(value: Value) -> str:
    """A value that a person or a program reads in a line."""
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:80]
