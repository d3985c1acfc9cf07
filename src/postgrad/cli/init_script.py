"""`postgrad init --script DIR`: look at a folder with a training script and write a task file for it."""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from postgrad.cli.output import console, print_json

if TYPE_CHECKING:
    from postgrad.scripts.layout import Layout

COLUMNS = 110


def init_script(
    folder: Path, output: Path, name: str | None, objective: str | None, budget: str | None, as_json: bool
) -> None:
    """Recognise the layout and write the task file."""
    import yaml

    from postgrad.errors import UserError
    from postgrad.scripts.layout import recognised
    from postgrad.spec import load_task
    from postgrad.spec.script import SCRIPT_HELP

    found = recognised(folder)
    source = os.path.relpath(folder.resolve(), output.absolute().parent)
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")[:64] or "my-script"
    lines = [
        "# A task for Postgrad: a script that is to be improved. Check it with `postgrad check`, start it with",
        "# `postgrad run`. docs/scripts.md says what each key means.",
        f"name: {name or plain}",
        "kind: script",
        yaml.safe_dump({"objective": objective or found.objective}, allow_unicode=True, width=10**6).strip(),
        "script:",
    ]
    for key, value in {**found.fields, "source": source}.items():
        lines += textwrap.wrap(SCRIPT_HELP[key], COLUMNS, initial_indent="  # ", subsequent_indent="  # ")
        # PyYAML writes {key: value} around a single plain value, and only lists are to stand in one line.
        style = None if isinstance(value, list | tuple | dict) else False
        lines.append(textwrap.indent(yaml.safe_dump({key: value}, default_flow_style=style).strip(), "  "))
    lines.append(f"budget: {budget or '20 experiments'}")
    try:
        output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as refused:
        raise UserError(f"{output} cannot be written: {refused.strerror or refused}. Name another file.") from refused
    load_task(output)
    if as_json:
        print_json(
            {"task_file": output, "autoresearch": found.autoresearch, "script": found.fields, "notes": found.notes}
        )
    else:
        _say(found, output)


def _say(found: Layout, output: Path) -> None:
    screen = console()
    if found.autoresearch:
        screen.print("This is autoresearch's layout: train.py is edited, everything else stays as it is.")
    for note in found.notes:
        screen.print(note, markup=False)
    screen.print(f"Wrote {output}. Next: postgrad check {output}", markup=False)
