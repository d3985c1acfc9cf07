"""The results of `postgrad bench ftbench` as rows and as a page."""

from __future__ import annotations

from typing import Any, Sequence

HEAD = (
    *("task", "metric", "base model", "base", "few-shot base", "tuned", "tuned - base [95 %]", "relative gain [95 %]"),
    *("best", "budget", "seconds"),
)
NOTES = """One run for each task: `tuned` is the champion of the search, `base` the untouched model, both on test rows
that nothing before had seen. `best` is the role with the highest score on them; where it is not the champion, or the
champion is one of the references and goes by that name, tuning has not paid on this budget. The interval of the
difference is over test rows, not over searches or training seeds. The relative gain is (tuned - base) / (reference -
base) with Fieller's interval, and only where a reference score is established for this metric; the reference was
measured by others, with another prompt and perhaps on other rows, and counts as exact. "undefined" is a reference too
near the base to divide by.
"""


def rows_of(tasks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a task, with what a screen can show."""
    rows = []
    for task in tasks:
        if task["status"] != "done":
            rows.append({"task": task["task"], **dict.fromkeys(HEAD[1:-2]), "best": task["status"]})
            continue
        gap, scores = task["difference"], task["scores"]
        rows.append(
            {
                "task": task["task"],
                "metric": task["metric"],
                "base model": task["base_model"],
                "base": _score(scores, "base_model"),
                "few-shot base": _score(scores, "few_shot"),
                "tuned": _score(scores, "champion"),
                "tuned - base [95 %]": f"{gap['value']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]" if gap else None,
                "relative gain [95 %]": _gain(task["relative_gain"]),
                "best": task["winner"],
                "budget": task["budget"],
                "seconds": task["seconds"],
            }
        )
    return rows


def _score(scores: dict[str, Any], role: str) -> float | None:
    return round(scores[role]["value"], 4) if role in scores else None


def _gain(gain: dict[str, Any] | None) -> str | None:
    if gain is None:
        return None
    if gain["value"] is None:
        return "undefined"
    return f"{100 * gain['value']:+.0f} % [{100 * gain['low']:+.0f}, {100 * gain['high']:+.0f}]"


def markdown(tasks: Sequence[dict[str, Any]]) -> str:
    """The page: the table, what to know of it, and for each task how it was made or why it was not."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}"]
    for row in rows_of(tasks):
        lines.append(f"| {' | '.join('-' if row.get(key) is None else str(row[key]) for key in HEAD)} |")
    lines += ["", NOTES]
    for task in tasks:
        lines.append(f"- **{task['task']}**: {_about(task)}")
    return "\n".join(lines) + "\n"


def _about(task: dict[str, Any]) -> str:
    if task["status"] != "done":
        return f"{task['status']}. {' '.join(str(task['reason']).split())}"
    champion, gain = task["champion"], task["relative_gain"]
    told = [
        f"`{task['run']}`; {task['rows']} test rows, {task['experiments']} experiments "
        f"({task['failed_experiments']} failed), champion {champion['experiment']} ({champion['kind']})",
        f"outside the budget, because it had no room: {', '.join(task['asked_afterwards'])}"
        if task["asked_afterwards"]
        else "",
        *(f"{role} has no score: {' '.join(why.split())}" for role, why in task["not_asked"].items()),
        "" if task["certified"] else "too few test rows for a certificate",
        f"reference {gain['reference']['reference']} of {gain['reference']['reference_model']} "
        f"({gain['reference']['source']})"
        if gain
        else "",
        gain["warning"] if gain else "",
    ]
    return "; ".join(part.rstrip(".") for part in told if part) + "."
