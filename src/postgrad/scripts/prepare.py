"""A script -> the repository of its run: the source as the first commit, without what only the referee sees."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

from postgrad.errors import UserError
from postgrad.events import DataPrepared
from postgrad.records import DataCard, ScriptPrepared
from postgrad.scripts.protect import Rules
from postgrad.scripts.session import ScriptSession
from postgrad.scripts.workspace import Workspace

NO_CARD = DataCard(rows={}, labels={}, out_of_scope={}, duplicates=0, leaked={}, words_median=0.0, warnings=())


def prepare_script(session: ScriptSession, say: Callable[[str], None] = lambda line: None) -> None:
    """Import the source, once.

    Raises:
        UserError: it cannot be imported, or nothing in it may be edited.
    """
    script, store = session.script, session.store
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
            ),
        )
    )
    session.scripts.attach(session.workspace, protected)
