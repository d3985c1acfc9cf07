"""What a run of a script would do, and every problem of its files. Runs nothing and writes nothing of the person's."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from postgrad.budget import format_duration
from postgrad.certify import RESERVE_CAP
from postgrad.errors import UserError
from postgrad.forecast import Forecast
from postgrad.prospect import foreseen, looked, too_dear
from postgrad.records import Hardware, Record, ScriptSpec, TaskSpec
from postgrad.research.assemble import ready
from postgrad.scripts.constants import constants, tunable
from postgrad.scripts.edits import edits_for
from postgrad.scripts.protect import Rules
from postgrad.scripts.session import TRAININGS
from postgrad.scripts.workspace import Workspace
from postgrad.session import START_UP_S


class ScriptOutlook(Record):
    """The files of a script as a run would take them.

    Attributes:
        constants: "NAME = value" of those that may be tuned, what usually matters first.
        edits: kinds of the small edits that apply.
        left_out: what of the source is not taken, and why.
        hardware: what one job has. `expected`: what the whole run will have used.
    """

    task: TaskSpec
    editable: tuple[str, ...] = ()
    protected: int = 0
    constants: tuple[str, ...] = ()
    edits: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    hardware: Hardware = Hardware()
    expected: Forecast | None = None


def script_outlook(task: TaskSpec) -> ScriptOutlook:
    """Import the source into a folder that is thrown away, and look at it."""
    script = task.script
    assert script is not None, "a task of kind `script` has one"
    with TemporaryDirectory() as folder:
        try:
            hidden = {str(split): name for split, name in script.hidden.items()}
            workspace = Workspace.create(Path(folder).resolve(), "check", Path(script.source), hidden)
        except UserError as problem:
            return ScriptOutlook(task=task, problems=(str(problem),))
        return _looked(task, script, workspace)


def _looked(task: TaskSpec, script: ScriptSpec, workspace: Workspace) -> ScriptOutlook:
    rules, files = Rules(script.editable, script.protected), workspace.files(workspace.baseline)
    editable = tuple(sorted(path for path in files if rules.allowed(path)))
    problems, names, edits = [], [], []
    if not editable:
        shown = ", ".join(sorted(files)[:10])
        problems.append(f"script.editable: no file matches {', '.join(script.editable)}. The source has: {shown}.")
    plain = workspace.files(workspace.baseline, links=False)
    programs = [path for path in editable if path.endswith(".py") and path in plain]
    for path, data in zip(programs, workspace.contents([files[path] for path in programs]), strict=True):
        source = data.decode("utf-8", "replace")
        names += [f"{one.name} = {one.text}" for one in tunable(constants(path, source))]
        edits += [edit.kind for edit in edits_for(source)]
    for what, command in (("run", script.run), ("referee", script.referee), ("confirm", script.confirm)):
        problems += [
            f"script.{what}: there is no file {word} in the source."
            for word in command
            if word.endswith(".py") and word not in files
        ]
    problems += _lacking(task)
    prospect, each_s = looked(task, problems), START_UP_S + script.time_s
    warnings = list(too_dear(task, prospect, each_s))
    if any(word in editable for word in script.referee):
        problems.append("script.referee: experiments may edit it. Take it out of script.editable.")
    if not script.trusted:
        warnings.append("The number is what the script prints, its own word: nothing will be certified.")
    elif not script.hidden:
        warnings.append("Nothing is hidden: the script may train on everything that it is measured on.")
    elif "select" not in script.hidden:
        warnings.append(
            "No file is hidden for `select`: tests with fresh seeds measure on the file of `search` again, so they "
            "rule out luck with seeds and not a fit to that file."
        )
    warnings += _too_dear(task, script)
    if not names and not edits and task.researcher == "playbook":
        warnings.append(
            "No constant and no small edit was recognised: without a language model there is nothing to try."
        )
    return ScriptOutlook(
        task=task,
        editable=editable,
        protected=len(files) - len(editable),
        constants=tuple(names),
        edits=tuple(dict.fromkeys(edits)),
        left_out=workspace.left_out,
        warnings=tuple(warnings),
        problems=tuple(problems),
        hardware=prospect.where,
        expected=foreseen(task, prospect, each_s, "by the time that the script is told"),
    )


def _too_dear(task: TaskSpec, script: ScriptSpec) -> list[str]:
    """A larger setting that the budget does not hold."""
    wall, workers = task.budget.wall_s, task.engine.workers or 1
    needs = 2 * TRAININGS * script.confirm_time_s / workers
    most = RESERVE_CAP * (wall or 0.0) - 2 * TRAININGS * script.time_s / workers
    if not script.confirm or wall is None or needs <= most:
        return []
    return [
        f"script.confirm: {2 * TRAININGS} trainings in the larger setting need about {format_duration(needs)}, and of "
        f"a budget of {format_duration(wall)} the end of a run has {format_duration(max(0.0, most))} for them: it may "
        "be left out. Grant more, or lower script.confirm_time."
    ]


def _lacking(task: TaskSpec) -> list[str]:
    """What whoever edits lacks. Nobody is asked anything."""
    try:
        ready(task)
    except UserError as problem:
        return [f"researcher: {problem}"]
    return []
