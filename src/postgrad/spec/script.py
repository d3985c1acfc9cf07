"""The section `script` of a task file: commands and times as people write them, and what does not go together."""

from __future__ import annotations

import posixpath
import shlex
from pathlib import Path
from typing import Any, Mapping

from pydantic import ValidationError

from postgrad.budget import format_duration, parse_budget
from postgrad.errors import UserError, near_miss
from postgrad.records import ScriptSpec

COMMANDS = ("run", "referee", "confirm")
TIMES = {"time": "time_s", "kill": "kill_s", "confirm_time": "confirm_time_s"}
KEYS = tuple(next((short for short, full in TIMES.items() if full == key), key) for key in ScriptSpec.model_fields)
SCORE = "score.json"
SPLITS = ("search", "select", "sealed")
# What an experiment may take beyond the time that the script is told, for its start and its end.
KILL_FACTOR, KILL_MORE_S = 2.0, 30.0
DEFAULT_TIME_S = 300.0
#: Keys of a task file that say nothing of a script.
FOREIGN = ("data", "metric", "base_models", "backends", "generation", "judge", "guards", "memory")
POLICY = "uct"
# Of 30 trainings one: what a line too many costs is little.
PARE = 0.05
# Key -> what it is for, in the schema and in messages.
SCRIPT_HELP = {
    "source": "The folder or git repository, seen from the task file. It is copied and never written to.",
    "editable": "Files that experiments may change, as patterns of .gitignore: [train.py].",
    "protected": "Files that stay as they are although `editable` names them.",
    "run": "The command of one experiment, without a shell: python train.py.",
    "time": "What the script is told to train for, in POSTGRAD_TIME_S; '5m' if not set.",
    "fixed": "time, or steps where the script does not stop by the clock: then it may run on different hardware.",
    "kill": "When it is ended; twice the time and 30 seconds if not set.",
    "leaves": "Files and folders that the script writes and the referee reads: [out].",
    "metric": "The name of the number.",
    "direction": "max or min: which way is better.",
    "referee": "The command that measures what was left, and writes score.json: python referee.py.",
    "hidden": "Split -> file that the script never sees and the referee measures on: {search: ..., sealed: ...}.",
    "confirm": "A larger setting, in which champion and baseline are trained at the end: python train.py --depth 12.",
    "confirm_time": "What that command is told to train for; the time of an experiment if not set.",
    "printed": "Without a referee: the key of the line `key: value` that the script prints. It is its own word.",
}


def without_foreign(fields: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """The fields of a task of kind `script`; those that say nothing of one are problems."""
    for key in FOREIGN:
        if key in fields:
            where = " Name it in script.metric." if key == "metric" else " Remove it."
            problems.append(f"{key} is set, and a task of kind 'script' has none.{where}")
    return {key: value for key, value in fields.items() if key not in FOREIGN}


def read_script(value: Any, root: Path, problems: list[str]) -> ScriptSpec | None:
    """The section, or None where it has problems."""
    if not isinstance(value, Mapping):
        problems.append(f"script: expected keys ({', '.join(KEYS)}), found {type(value).__name__}.")
        return None
    before = len(problems)
    told = {str(key): inner for key, inner in value.items() if inner is not None}
    for key in [key for key in told if key not in KEYS]:
        problems.append(f"Unknown key 'script.{key}'.{near_miss(key, KEYS)} Known: {', '.join(KEYS)}.")
        del told[key]
    told |= {key: _words(key, told[key], problems) for key in COMMANDS if key in told}
    for key in ("editable", "protected", "leaves"):
        told |= {key: [told[key]]} if isinstance(told.get(key), str) else {}
    for short, full in TIMES.items():
        if short in told:
            told[full] = _seconds(short, told.pop(short), problems)
    told.setdefault("time_s", DEFAULT_TIME_S)
    told.setdefault("confirm_time_s", told["time_s"])
    told.setdefault("kill_s", KILL_FACTOR * told["time_s"] + KILL_MORE_S)
    told.setdefault("metric", told.get("printed"))
    try:
        spec = ScriptSpec.model_validate({key: inner for key, inner in told.items() if inner is not None})
    except ValidationError as wrong:
        for error in wrong.errors():
            key = str(error["loc"][0]) if error["loc"] else "script"
            said = "is missing" if error["type"] == "missing" else error["msg"].lower()
            problems.append(f"script.{key} {said}. {SCRIPT_HELP.get(key, '')}".rstrip())
        return None
    spec = spec.model_copy(update={"source": str((root / spec.source).resolve())})
    _check(spec, problems)
    return spec if len(problems) == before else None


def _words(key: str, value: Any, problems: list[str]) -> Any:
    """A command as words."""
    if not isinstance(value, str):
        return value
    try:
        return shlex.split(value)
    except ValueError as wrong:
        problems.append(f"script.{key} cannot be read as a command ({wrong}). Write it as: python train.py")
        return None


def _seconds(key: str, value: Any, problems: list[str]) -> float:
    try:
        found = parse_budget(str(value)).wall_s
    except UserError:
        found = None
    if found is None:
        problems.append(f"script.{key} is {value!r}, and a time was expected, such as '60s' or '5m'.")
    return found or DEFAULT_TIME_S


def _bad_leaf(leaf: str, spec: ScriptSpec) -> str | None:
    """Why a script may not leave a file or folder: what lies in its place is removed before each experiment."""
    parts = leaf.removesuffix("/").split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "which is, or leads out of, the folder of the experiment"
    words = {word: key for key in COMMANDS for word in getattr(spec, key) if (Path(spec.source) / word).is_file()}
    used = {word: f"which script.{key} needs" for word, key in words.items()} | {SCORE: "which the referee writes"}
    for name, why in used.items():
        place = posixpath.normpath(name)
        if place.split("/")[: len(parts)] == parts:
            return why if place == "/".join(parts) else f"and {name}, {why}, lies in it"
    return None


def _check(spec: ScriptSpec, problems: list[str]) -> None:
    if not Path(spec.source).is_dir():
        problems.append(f"script.source: there is no folder {spec.source}.")
    for key in ("editable", "run"):
        if not getattr(spec, key):
            problems.append(f"script.{key} is empty. {SCRIPT_HELP[key]}")
    if spec.kill_s < spec.time_s:
        told = format_duration(spec.time_s)
        problems.append(f"script.kill is {format_duration(spec.kill_s)}, and the script is told to train for {told}.")
    for leaf in spec.leaves:
        if (wrong := _bad_leaf(leaf, spec)) is not None:
            problems.append(f"script.leaves names {leaf!r}, {wrong}. Name a file or folder of its own: [out].")
    if spec.referee and not spec.leaves:
        problems.append("script.leaves is missing: there is nothing that the referee could read.")
    if spec.referee and spec.printed:
        problems.append("script.printed is set beside a referee, whose number counts. Remove one of the two.")
    if not spec.referee and not spec.printed:
        problems.append(f"script.referee is missing. {SCRIPT_HELP['referee']} Or, untrusted, script.printed: val_bpb.")
    if spec.hidden and not spec.referee:
        problems.append("script.hidden is set, and nobody measures on it without a referee.")
    if spec.hidden and not {"search", "sealed"} <= set(spec.hidden):
        problems.append("script.hidden needs both `search` and `sealed`; `select` may be added.")
