"""`postgrad export`: the champion as a folder that works without Postgrad."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from postgrad.cli.output import RUNS_DIR, JsonOption, RunArgument, RunsDirOption, console, print_json


def command(
    run: RunArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.", show_default=False)],
    runs_dir: RunsDirOption = RUNS_DIR,
    as_json: JsonOption = False,
) -> None:
    """Copy the champion to a folder with its model card and a `predict.py` that needs no Postgrad."""
    from postgrad.cli.runs import open_run
    from postgrad.export import export_champion

    with open_run(runs_dir, run) as store:
        export_champion(store, folder)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    if as_json:
        print_json({"run": run, "folder": folder, "files": files})
    else:
        what = f'Try it: python {folder}/predict.py "your text"'
        if "changes.patch" in files:
            what = f"What was changed: {folder}/changes.patch"
        console().print(f"Exported {len(files)} files. {what}", markup=False)
