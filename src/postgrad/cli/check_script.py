"""How `postgrad check` shows a task of kind `script`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Iterator

from postgrad.cli.output import console, facts, print_json

if TYPE_CHECKING:
    from postgrad.records import TaskSpec
    from postgrad.scripts.outlook import ScriptOutlook

SHOWN = 8


def check_script(task: TaskSpec, path: Path, as_json: bool) -> bool:
    """Print what a run would do; True where it can be run."""
    from rich.text import Text

    from postgrad.scripts.outlook import script_outlook

    found = script_outlook(task)
    if as_json:
        print_json({"ok": not found.problems, **found.model_dump(mode="json")})
        return not found.problems
    screen = console()
    screen.print(facts(_facts(found)))
    for warning in found.warnings:
        screen.print(Text.assemble(("note  ", "yellow"), warning))
    for number, problem in enumerate(found.problems, start=1):
        screen.print(Text.assemble((f"problem {number}  ", "bold red"), problem))
    if found.problems:
        screen.print(Text(f"\n{path} cannot be run yet.", style="red"))
    else:
        screen.print(Text.assemble(("\nReady. ", "green"), f"Start it with: postgrad run {path}"))
    return not found.problems


def _facts(found: ScriptOutlook) -> Iterator[tuple[str, str]]:
    from postgrad.budget import format_duration
    from postgrad.cli.check import spending_facts
    from postgrad.records import called

    task, script = found.task, found.task.script
    assert script is not None, "a task of kind `script` has one"
    yield "task", f"{task.name}: {task.objective.strip()}"
    yield "source", script.source
    yield "edited", f"{', '.join(found.editable) or 'nothing'}; {found.protected} files are protected"
    yield (
        "run",
        f"{' '.join(script.run)}, {format_duration(script.time_s)}, ended after {format_duration(script.kill_s)}",
    )
    if script.confirm:
        yield "in the end", f"{' '.join(script.confirm)}, {format_duration(script.confirm_time_s)}: a larger setting"
    way = "less is better" if script.direction == "min" else "more is better"
    measured = f"by {' '.join(script.referee)}" if script.trusted else f"as the script prints it ({script.printed})"
    yield "metric", f"{script.metric}, {way}, {measured}"
    if script.hidden:
        yield "hidden", ", ".join(f"{name} ({split})" for split, name in script.hidden.items())
    yield "constants", _some(found.constants)
    yield "edits", _some(found.edits)
    if found.left_out:
        yield "not taken", _some(found.left_out)
    yield "search", f"{called(task.researcher)} with {task.search.policy}, seed {task.seed}"
    yield from spending_facts(task, found.hardware, found.expected)


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}" if names else "none"
