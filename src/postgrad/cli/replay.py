"""`postgrad replay`: rebuild the champion from its recipe and check that it answers as it did."""

from __future__ import annotations

import typer

from postgrad.cli.output import (
    RUNS_DIR,
    JsonOption,
    RunArgument,
    RunsDirOption,
    UnsandboxedOption,
    console,
    print_json,
)


def command(
    run: RunArgument,
    unsandboxed: UnsandboxedOption = False,
    runs_dir: RunsDirOption = RUNS_DIR,
    as_json: JsonOption = False,
) -> None:
    """Train the champion again from its recipe, data and seed, and compare its answers with the recorded ones.

    No label is read, so this is not another look at the sealed split. Exit code 1 when the answers differ.
    """
    from postgrad.cli.driving import say_source_since
    from postgrad.cli.runs import open_run
    from postgrad.replay import replay_champion
    from postgrad.runner import opened
    from postgrad.session import run_started

    store = open_run(runs_dir, run, write=True)
    say_source_since(store, run_started(store).task)
    with opened(store, unsandboxed=unsandboxed) as session:
        found = replay_champion(session)
    if as_json:
        print_json(found)
    else:
        word = "[green]reproduced[/green]" if found.reproduced else "[red]not reproduced[/red]"
        console().print(
            f"{found.run} {found.experiment}: {word}. {found.same_answer:.1%} of {found.items} answers are equal, "
            f"scores differ by at most {found.max_score_difference:.2g}. "
            f"Sealed {found.metric} on record: {found.sealed:.4f}, rebuilt in {found.wall_s:.0f} s."
        )
    raise typer.Exit(0 if found.reproduced else 1)
