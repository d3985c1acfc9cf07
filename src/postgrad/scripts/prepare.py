"""A script -> the repository of its run: the source as the first commit, without what only the referee sees."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Sequence

from postgrad.errors import UserError
from postgrad.events import DataPrepared
from postgrad.records import DataCard, ScriptPrepared, ScriptSpec
from postgrad.scripts.protect import Rules
from postgrad.scripts.reading import kinds_for
from postgrad.scripts.session import ScriptSession
from postgrad.scripts.versions import Versions
from postgrad.scripts.workspace import Workspace

NO_CARD = DataCard(rows={}, labels={}, out_of_scope={}, duplicates=0, leaked={}, words_median=0.0, warnings=())


def _refuse_readable(script: ScriptSpec, reads: Sequence[Path]) -> None:
    """A hidden file in a folder that Python imports from, such as a package that was installed as it lies there, can be
    read by every job."""
    for name in script.hidden.values():
        path = (Path(script.source) / name).resolve()
        if (place := next((place for place in reads if path.is_relative_to(place)), None)) is not None:
            raise UserError(
                f"script.hidden: every job may read {place}, because Python imports from it, and {path} lies in it. "
                "Put the file somewhere else, such as beside the task file, and name it there."
            )


def prepare_script(session: ScriptSession, say: Callable[[str], None] = lambda line: None) -> None:
    """Import the source, once.

    Raises:
        UserError: it cannot be imported, or nothing in it may be edited.
    """
    script, store = session.script, session.store
    _refuse_readable(script, getattr(session.executor.engine, "reads", ()))
    say("importing the script")
    workspace = Workspace.create(
        store.folder.resolve(),
        session.run,
        Path(script.source),
        {str(split): name for split, name in script.hidden.items()},
    )
    files = workspace.files(workspace.baseline)
    rules = Rules(script.editable, script.protected)
    editable = tuple(sorted(path for path in files if rules.allowed(path)))
    if not editable:
        patterns, names = ", ".join(script.editable), ", ".join(sorted(files)[:10])
        raise UserError(
            f"No file of {script.source} may be edited: none matches {patterns}. Its files: {names}. Change "
            "script.editable."
        )
    protected = tuple(sorted(set(files) - set(editable)))
    session.append(
        DataPrepared(
            card=NO_CARD,
            labels=(),
            plan=store.artifacts.put_bytes(session.plan.model_dump_json().encode()),
            script=ScriptPrepared(
                commit=workspace.baseline,
                tree=workspace.tree_of(workspace.baseline),
                editable=editable,
                protected=protected,
                kinds=kinds_for(Versions(workspace, protected), editable),
            ),
        )
    )
    session.scripts.attach(session.workspace, protected)
