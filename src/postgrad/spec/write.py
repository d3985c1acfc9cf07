"""Writes a task file with a comment for each key."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any, Mapping

import yaml

from postgrad.errors import UserError
from postgrad.records import SearchSpec, TaskSpec
from postgrad.spec.keys import DEFAULT_BUDGET, EXAMPLES, HELP, default_base_model, default_metric


def write_task(spec_fields: Mapping[str, object], path: Path, *, overwrite: bool = False) -> None:
    """Write a task file with a comment for each key. `load_task` reads it back.

    Args:
        spec_fields: keys of a task file; sources are written as they are given, so relative ones start at `path`'s
            folder. What is left out is written with its default, optional keys as comments.
        overwrite: replace a file that is there.

    Raises:
        UserError: the file is there, or cannot be written.
    """
    if path.exists() and not overwrite:
        raise UserError(f"{path} is there already and was left as it is. Name another file, or remove it first.")
    try:
        path.write_text(_task_text(spec_fields), encoding="utf-8")
    except OSError as refused:
        raise UserError(f"{path} cannot be written: {refused.strerror or refused}. Name another folder.") from refused


def _task_text(given: Mapping[str, Any]) -> str:
    data = given.get("data")
    rejects = isinstance(data, Mapping) and data.get("out_of_scope") is not None
    defaults: dict[str, Any] = {
        "metric": default_metric(rejects, given.get("kind")),
        "min_effect": TaskSpec.model_fields["min_effect"].default,
        "base_models": [default_base_model(given.get("kind"))],
        "budget": DEFAULT_BUDGET,
        "search": SearchSpec().policy,
        "seed": 0,
    }
    lines = ["# A task for Postgrad. Check it with `postgrad check`, start it with `postgrad run`."]
    full = {**defaults, **{key: value for key, value in given.items() if value is not None}}
    for key, text in HELP.items():
        top, _, inner = key.partition(".")
        values = full.get(top) if inner else full
        indent = "  " if inner else ""
        if not inner:
            lines.append("")
        lines += textwrap.wrap(text, 110, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        if key == "data":
            lines.append("data:")
        elif isinstance(values, Mapping) and values.get(inner or key) is not None:
            written = yaml.safe_dump(
                {inner or key: values[inner or key]}, allow_unicode=True, sort_keys=False, width=10**6
            )
            lines += textwrap.indent(written.rstrip(), indent).split("\n")
        else:
            lines.append(f"{indent}# {inner or key}: {EXAMPLES[key]}")
    return "\n".join(lines) + "\n"
