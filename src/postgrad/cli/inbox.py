"""`postgrad inbox`: what waits for a person in a run, what was decided, and every order that a person can give it."""

from __future__ import annotations

from typing import Annotated

import typer

from postgrad.cli.output import RUNS_DIR, JsonOption, RunArgument, RunsDirOption


def command(
    run: RunArgument,
    verb: Annotated[
        str | None,
        typer.Argument(
            metavar="[VERB]",
            help="approve EXP, reject EXP, edit EXP, inject FILE or KIND, pin EXP, unpin EXP, ban EXP or KIND, "
            "unban EXP or KIND, budget BUDGET, pause, continue, stop. Without one: list what waits.",
            show_default=False,
        ),
    ] = None,
    what: Annotated[
        str | None, typer.Argument(metavar="[WHAT]", help="What the verb is about.", show_default=False)
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the record; a rejection needs it.", show_default=False)] = "",
    only_this: Annotated[
        bool, typer.Option("--only-this", help="reject: this kind of change may be proposed again.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="edit: a setting as `show` names it.", show_default=False),
    ] = None,
    approve: Annotated[bool, typer.Option("--approve", help="edit: approve it as well.")] = False,
    on: Annotated[
        str | None, typer.Option(metavar="EXP", help="inject: the experiment to build on.", show_default=False)
    ] = None,
    who: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Who decides; your login otherwise.", show_default=False)
    ] = None,
    runs_dir: RunsDirOption = RUNS_DIR,
    as_json: JsonOption = False,
) -> None:
    """List what waits for a person in a run, or give it an order, from any terminal, while it runs or before a resume.

    For example: postgrad inbox last approve e0007
    """
    from postgrad.cli.orders import Given, give, show_inbox

    given = Given(verb or "", what, reason, only_this, tuple(settings or ()), approve, on)
    if verb is None:
        show_inbox(runs_dir, run, given, as_json=as_json)
    else:
        give(runs_dir, run, given, who, as_json=as_json)
