"""`postgrad mcp`: the tools of a run for a coding agent, over standard input and output (Model Context Protocol)."""

from __future__ import annotations

from typing import Annotated

import typer

from postgrad.cli.output import RUNS_DIR, JsonOption, RunArgument, RunsDirOption, print_json


def command(
    run: RunArgument,
    who: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Who the decisions are recorded for.", show_default=False)
    ] = None,
    no_approve: Annotated[
        bool, typer.Option("--no-approve", help="Leave approving and rejecting to people: the agent only proposes.")
    ] = False,
    runs_dir: RunsDirOption = RUNS_DIR,
    as_json: JsonOption = False,
) -> None:
    """Serve the tools of a run to a coding agent over MCP: context, propose, status, result, lessons, approve, reject.

    It reads the run and writes to its mailbox; start the run beside it. With --json it lists the tools and ends.
    """
    from postgrad.cli.agent_tools import Tools
    from postgrad.cli.mcp_server import serve, tool_names
    from postgrad.cli.runs import find_run

    tools = Tools(find_run(runs_dir, run), who)
    if as_json:
        print_json({"run": tools.folder.name, "tools": list(tool_names(not no_approve))})
    else:
        serve(tools, may_approve=not no_approve)
