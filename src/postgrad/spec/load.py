"""Task file -> TaskSpec, with all problems reported at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

import yaml

from postgrad.budget import parse_budget
from postgrad.errors import UserError, near_miss
from postgrad.records import TaskSpec
from postgrad.spec.check import check_sections, check_values, shown, unknown_keys
from postgrad.spec.keys import DEFAULT_BUDGET, HELP, default_base_model, default_metric
from postgrad.spec.researcher import read_researcher
from postgrad.spec.script import PARE, POLICY, read_script, without_foreign

MAX_BYTES = 1_000_000
DEEPEST = 20


def load_task(path: Path, overrides: Mapping[str, object] | None = None) -> TaskSpec:
    """Read and check a task file.

    Args:
        path: the YAML file. Relative paths in it start at its folder.
        overrides: keys of a task file whose values come first, such as `{"budget": "20m", "engine": {"workers": 2}}`.
            A mapping changes only the keys it names.

    Raises:
        UserError: the file cannot be read, or it has problems; the message lists all of them.
    """
    fields = _with_shorthands(_read_yaml(path))
    for key, value in _with_shorthands(overrides or {}).items():
        old = fields.get(key)
        fields[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    problems: list[str] = []
    unknown_keys(fields, tuple(TaskSpec.model_fields), "", problems)
    if fields.get("kind") == "script":
        fields = _of_script(fields, path.parent.absolute(), problems)
    elif "data" not in fields:
        problems.append(f"data is missing. {HELP['data']}")
    sections = check_sections(_with_defaults(fields, path, problems), problems)
    if "researcher" in fields and (found := read_researcher(fields["researcher"], path.parent.absolute(), problems)):
        sections["researcher"] = found
    check_values(sections, path.parent.absolute(), problems)
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        listed = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(problems, start=1))
        raise UserError(f"{path} has {count}:\n{listed}")
    return TaskSpec(**sections)


def _of_script(fields: dict[str, Any], root: Path, problems: list[str]) -> dict[str, Any]:
    """The fields of a task that is a program: its number is the metric, and it has no base model of ours."""
    found = read_script(fields.get("script", {}), root, problems)
    kept = without_foreign(fields, problems)
    search = {"policy": POLICY, "pare": PARE, **(kept["search"] if isinstance(kept.get("search"), dict) else {})}
    metric = found.scored if found else "referee:unknown"
    return {**kept, "script": found, "metric": metric, "base_models": [], "search": search, "memory": False}


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key that is given twice: YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key '{key.value}' is given twice; remove one of the two", problem_mark=key.start_mark
                )
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _refuse_bombs(path: Path, text: str) -> None:
    """Refuse aliases, with which a file of a few lines can mean billions of values, and nesting without end."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        line = f" line {event.start_mark.line + 1}" if event.start_mark else ""
        if isinstance(event, yaml.AliasEvent):
            raise UserError(f"{path}{line}: aliases as '*{event.anchor}' are not taken in a task file. Write it out.")
        if depth > DEEPEST:
            raise UserError(f"{path}{line} cannot be read as YAML: nested deeper than {DEEPEST} levels.")


def _read_yaml(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    try:
        _refuse_bombs(path, text)
        found = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as wrong:
        mark = getattr(wrong, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        what = getattr(wrong, "problem", None) or str(wrong).split("\n")[0]
        raise UserError(
            f"{path}{where} cannot be read as YAML: {what}. Expected lines such as 'metric: mcc'; a text with ': ' or "
            f"' #' in it needs quotation marks."
        ) from wrong
    if not isinstance(found, dict):
        raise UserError(
            f"{path} holds {'nothing' if found is None else 'no keys'}. Expected keys such as objective and data; "
            f"write a task file with: postgrad init --train FILE"
        )
    return {str(key): value for key, value in found.items()}


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f"{path} is larger than {MAX_BYTES:,} bytes, so it is no task file. Name the task file.")
        return content.decode("utf-8-sig")
    except FileNotFoundError as missing:
        names = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(
            f"There is no task file {path}.{near_miss(path.name, names)} Write one with: postgrad init --train FILE"
        ) from missing
    except IsADirectoryError as folder:
        raise UserError(f"{path} is a folder. Name the task file in it, such as {path / 'task.yaml'}.") from folder
    except OSError as refused:
        raise UserError(f"{path} cannot be read: {refused.strerror or refused}. Check its permissions.") from refused
    except UnicodeDecodeError as wrong:
        raise UserError(f"{path} is not UTF-8 (byte {wrong.start + 1}). Save the task file as UTF-8.") from wrong


def _with_shorthands(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Write out the shorthands, and leave out keys without a value."""
    full = {key: value for key, value in fields.items() if value is not None}
    for key, inner in (("approve", "when"), ("search", "policy"), ("engine", "kind"), ("judge", "model")):
        if isinstance(full.get(key), str):
            full[key] = {inner: full[key]}
    for key in ("base_models", "backends"):
        if isinstance(full.get(key), str):
            full[key] = [full[key]]
    for key in ("data", "budget", "experiment", "approve", "search", "engine", "generation", "judge"):
        if isinstance(full.get(key), Mapping):
            full[key] = {str(name): value for name, value in full[key].items() if value is not None}
    return full


def _with_defaults(fields: dict[str, Any], path: Path, problems: list[str]) -> dict[str, Any]:
    """Fill in what a task file may leave out, and read budgets and labels as people write them."""
    full = {"budget": DEFAULT_BUDGET, "base_models": [default_base_model(fields.get("kind"))], **fields}
    full.setdefault("name", path.absolute().parent.name if path.stem == "task" else path.stem)
    for key in ("budget", "experiment"):
        if key in full:
            full[key] = _budget_fields(key, full[key], problems)
    if "approve" in full:
        full["approve"] = _approve_fields(full["approve"], problems)
    if isinstance(full.get("data"), dict):
        full["data"] = {key: _as_label(key, value) for key, value in full["data"].items()}
        if isinstance(full["data"].get("slices"), str):
            full["data"]["slices"] = [full["data"]["slices"]]
        full.setdefault("metric", default_metric("out_of_scope" in full["data"], full.get("kind")))
    full.setdefault("metric", default_metric(False, full.get("kind")))
    return full


def _as_label(key: str, value: Any) -> Any:
    """Labels and column names that YAML took for numbers are texts."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number and key in ("input", "target", "check", "out_of_scope") else value


def _approve_fields(value: Any, problems: list[str]) -> Any:
    """The fields of `ApproveSpec`: a threshold is a time, as in a budget."""
    if not isinstance(value, dict) or not isinstance(value.get("above"), str):
        return value
    try:
        above = parse_budget(value["above"])
    except UserError as wrong:
        problems.append(f"approve.above: {wrong}")
        return {**value, "above": None}
    if above.wall_s is None:
        problems.append(f"approve.above is {shown(value['above'])}, and a time was expected, such as '10m'.")
    return {**value, "above": above.wall_s}


def _budget_fields(key: str, value: Any, problems: list[str]) -> Any:
    """The fields of `Budget` for a budget as it is written in a task file, under this key."""
    try:
        if isinstance(value, str):
            return parse_budget(value).model_dump()
        if isinstance(value, dict):
            fields = {key: amount for key, amount in value.items() if key not in ("wall", "disk")}
            if "wall" in value:
                fields["wall_s"] = parse_budget(str(value["wall"])).wall_s
            if "disk" in value:
                fields["disk_gb"] = _disk_gb(value["disk"])
            return fields
    except UserError as wrong:
        problems.append(f"{key}: {wrong}")
        return {}
    problems.append(f"{key}: found {shown(value)}, which has no unit. Write it as '20m' or '40 experiments'.")
    return {}


def _disk_gb(value: object) -> float:
    found = parse_budget(str(value)).disk_gb
    if found is None:
        raise UserError(f"disk is {shown(value)}, and a size was expected, such as '20 GB'.")
    return found
