"""`postgrad contest`: enter a contest of post-training, and leave `final_model` in its folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Callable

import typer

from postgrad.cli.output import JsonOption, UnsandboxedOption, console, facts, print_json

if TYPE_CHECKING:
    from postgrad.contest import State
    from postgrad.contest.entry import Drive
    from postgrad.contest.verdict import Verdict
    from postgrad.session import Session
    from postgrad.store.sqlite import SqliteStore

TEXT, ANSWER = "text", "answer"


def command(
    folder: Annotated[Path, typer.Argument(help="The contest's folder, with its evaluate.py.", show_default=False)],
    task: Annotated[Path | None, typer.Option(help="A task file that says how to train.", show_default=False)] = None,
    data: Annotated[
        Path | None, typer.Option(help="Instead of a task file: rows to train on.", show_default=False)
    ] = None,
    input_column: Annotated[str, typer.Option("--input", help="With --data: column of the text.")] = TEXT,
    target: Annotated[str, typer.Option(help="With --data: column of the answer.")] = ANSWER,
    base_model: Annotated[
        str | None, typer.Option(help="The contest's base model: a folder or a reference.", show_default="the task's")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="How long, e.g. '9h30m'.", show_default="what timer.sh says")
    ] = None,
    final_model: Annotated[
        Path | None, typer.Option(help="Where the weights go.", show_default="FOLDER/final_model")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Examples for evaluate.py, where it takes a limit.", min=1, show_default=False)
    ] = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="Take out rows that are copies of the contest's test data.")
    ] = False,
    pass_env: Annotated[
        list[str] | None,
        typer.Option(help="An environment variable that evaluate.py is given; may be repeated.", show_default=False),
    ] = None,
    unsandboxed: UnsandboxedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Enter a contest as PostTrainBench sets it: train the given base in time, and leave `final_model`.

    The base lies there from the first minute; the champion takes its place only where the sealed split shows it to be
    better. Call the same command again after a kill: it goes on.
    """
    from postgrad.budget import parse_budget
    from postgrad.contest import Entry, Order, data_task
    from postgrad.errors import UserError
    from postgrad.spec import load_task

    if (task is None) == (data is None):
        raise UserError("Say what to train on: either --task task.yaml, or --data rows.jsonl.")
    path = task if task is not None else data_task(folder, data or Path(), base_model, (input_column, target))
    engine = {"engine": {"sandbox": "none"}} if unsandboxed else {}
    order = Order(
        folder=folder,
        task=load_task(path, engine),
        task_file=path,
        base_model=base_model,
        budget=parse_budget(budget) if budget else None,
        final=final_model,
        limit=limit,
        clean=clean,
        passed=tuple(pass_env or ()),
    )
    state = Entry(order, _drive(as_json, unsandboxed), _say(as_json)).enter()
    if as_json:
        print_json(state)
    else:
        _show(state)


def _drive(quiet: bool, unsandboxed: bool) -> Drive:
    """How an entry's run is driven: as `postgrad run` does it, and stopped when its time is over."""
    from postgrad.cli.driving import driven
    from postgrad.contest import OutOfTime

    def drive(store: SqliteStore, then: Callable[[Session], Verdict], until: float) -> Verdict:
        def watch() -> None:
            if time.time() > until:
                raise OutOfTime("the time for it was over")

        return driven(store, then, quiet=quiet, unsandboxed=unsandboxed, watch=watch)

    return drive


def _say(quiet: bool) -> Callable[[str], None]:
    screen = console(error=True)
    return lambda line: None if quiet else screen.print(line, markup=False)


def _show(state: State) -> None:
    """What was handed in, and what the evaluator said of it and of the base."""
    scores = {"base": state.base_score, "final": state.final_score}
    told = {name: "not measured" for name in scores}
    for name, found in scores.items():
        if found is not None:
            told[name] = f"{found.value:.4f}" if found.value is not None else f"no score: {found.error}"
    problems = "; ".join(state.load_problems or ()) or "loads, same architecture, vocabulary and chat template"
    pairs = [
        ("final model", f"{state.final_model} is the {state.final_is}"),
        ("because", state.why),
        ("check", problems),
        ("evaluator", f"base {told['base']}, final {told['final']}"),
        ("record", f"{state.folder}/contest.json"),
    ]
    console().print(facts(pairs))
