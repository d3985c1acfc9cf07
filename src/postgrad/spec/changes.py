"""What differs between two tasks: the one a run was started with, and what its file says now."""

from __future__ import annotations

from typing import Any

from postgrad.budget import format_budget
from postgrad.records import TaskSpec, content_hash


def task_fingerprint(task: TaskSpec) -> str:
    """16 hex digits over all that a run must keep when it is resumed: everything but the budget."""
    return content_hash(task.model_dump(mode="json", exclude={"budget"}))


def task_changes(old: TaskSpec, new: TaskSpec) -> tuple[str, ...]:
    """What differs, a line each: `metric: mcc -> macro_f1`. Empty for equal tasks."""
    before, after = _leaves(old), _leaves(new)
    keys = [*before, *(key for key in after if key not in before)]
    return tuple(
        f"{key}: {before.get(key, 'not set')} -> {after.get(key, 'not set')}"
        for key in keys
        if before.get(key) != after.get(key)
    )


def _leaves(task: TaskSpec) -> dict[str, str]:
    """Dotted key -> value as a person reads it."""
    leaves: dict[str, str] = {}

    def walk(value: Any, key: str) -> None:
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                walk(inner, f"{key}.{name}" if key else name)
        elif value is not None:
            leaves[key] = ", ".join(str(each) for each in value) or "none" if isinstance(value, list) else str(value)

    walk(task.model_dump(mode="json", exclude={"budget"}), "")
    return {**leaves, "budget": format_budget(task.budget)}
