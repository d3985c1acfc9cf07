"""`postgrad init`: look at a data file and write a commented task file. Trains nothing, overwrites nothing."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from postgrad.cli.output import JsonOption, console, print_json

if TYPE_CHECKING:
    from postgrad.data.guess import InitGuess

# Names of a train file that say nothing about the task.
PLAIN_NAMES = ("train", "training", "data", "dataset")
FAR = os.path.join(os.pardir, os.pardir)


def command(
    train: Annotated[
        str | None,
        typer.Option(help="The training rows: a file, hub:ORG/NAME or hint3:BOT/VERSION.", show_default=False),
    ] = None,
    script: Annotated[
        Path | None, typer.Option(help="Or a folder with a training script to improve.", show_default=False)
    ] = None,
    dev: Annotated[str | None, typer.Option(help="Rows that steer the search.", show_default="from train")] = None,
    test: Annotated[str | None, typer.Option(help="Rows for the one sealed read.", show_default="from train")] = None,
    input: Annotated[str | None, typer.Option(help="Column of the text.", show_default="guessed")] = None,
    target: Annotated[
        str | None, typer.Option(help="Column of the label or the answer.", show_default="guessed")
    ] = None,
    kind: Annotated[
        Literal["classification", "generation"] | None,
        typer.Option(help="Answers are labels, or words.", show_default="guessed"),
    ] = None,
    out_of_scope: Annotated[
        str | None, typer.Option(help="The label of inputs to reject; '' for none.", show_default="guessed")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="What to optimise.", show_default="by the data")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the task.", show_default="from the file")] = None,
    objective: Annotated[str | None, typer.Option(help="What the model is for.", show_default=False)] = None,
    base_model: Annotated[
        str | None, typer.Option(help="hf:ORG/NAME@REVISION, path:FOLDER or package:NAME.", show_default=False)
    ] = None,
    budget: Annotated[str | None, typer.Option(help="'20m', '8h', '40 experiments', '$5'.", show_default="20m")] = None,
    output: Annotated[Path, typer.Option(help="The task file to write.")] = Path("task.yaml"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Take what was guessed; ask nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a task file that is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Look at your data and write a task file with comments. On a terminal, ask what is not clear."""
    _refuse_existing(output, force)
    if script is not None or train is None:
        _script(script, train, output, name=name, objective=objective, budget=budget, as_json=as_json)
        return
    guess = _guess(train, dev, test, input, target, kind)
    _refuse_rejection(guess, out_of_scope)
    given = {"out_of_scope": out_of_scope, "objective": objective, "metric": metric, "budget": budget}
    if not as_json:
        console(error=True).print(_found(guess), markup=False)
    if not (yes or as_json) and sys.stdin.isatty() and sys.stderr.isatty():
        given = _ask(guess, given)
    if given["out_of_scope"] is None:
        given["out_of_scope"] = guess.out_of_scope
    sources = {part: _source(source, part, output) for part, source in (("train", train), ("dev", dev), ("test", test))}
    fields = {"name": name or _task_name(train), **_fields(guess, given, sources, base_model)}
    _check_values(guess.kind, given["metric"], given["budget"], base_model)
    _write(fields, output, force)
    if as_json:
        print_json({"task_file": output, "guess": guess, "fields": fields})
    else:
        _say(guess, given["out_of_scope"], output)


def _script(
    script: Path | None,
    train: str | None,
    output: Path,
    *,
    name: str | None,
    objective: str | None,
    budget: str | None,
    as_json: bool,
) -> None:
    from postgrad.cli.init_script import init_script
    from postgrad.errors import UserError

    if script is None or train is not None:
        raise UserError("Name either your rows with --train FILE, or a folder with a training script with --script.")
    init_script(script, output, name, objective, budget, as_json)


def _guess(
    train: str,
    dev: str | None,
    test: str | None,
    text: str | None,
    target: str | None,
    kind: Literal["classification", "generation"] | None,
) -> InitGuess:
    from postgrad.data.guess import guess_columns

    others = [Path(source) for source in (dev, test) if source is not None]
    return guess_columns(Path(train), others, input=text, target=target, kind=kind)


def _fields(
    guess: InitGuess, given: dict[str, str | None], sources: dict[str, str | None], base_model: str | None
) -> dict[str, object]:
    """The keys of the task file, but for its name."""
    rejects = given["out_of_scope"] or None
    data = {**sources, "input": guess.input, "target": guess.target, "out_of_scope": rejects}
    return {
        "objective": given["objective"] or _objective(guess, rejects),
        "data": data,
        "metric": given["metric"],
        "base_models": [base_model] if base_model else None,
        "budget": given["budget"],
        **_in_words(guess, given["metric"]),
    }


def _write(fields: dict[str, object], output: Path, force: bool) -> None:
    from postgrad.spec import write_task

    write_task(fields, output, overwrite=force)


def _refuse_existing(output: Path, force: bool) -> None:
    from postgrad.errors import UserError

    if output.exists() and not force:
        raise UserError(
            f"{output} is there already and was left as it is. Write another with --output FILE, or replace it with "
            "--force."
        )


def _refuse_rejection(guess: InitGuess, out_of_scope: str | None) -> None:
    from postgrad.errors import UserError

    if guess.answers is not None and out_of_scope:
        raise UserError(
            f"--out-of-scope names a label, and the answers in '{guess.target}' are words ({guess.answers.form}), "
            "which reject nothing. Leave it out, or say --kind classification."
        )


def _in_words(guess: InitGuess, metric: str | None) -> dict[str, object]:
    """The keys of a task whose answers are words."""
    if guess.answers is None:
        return {}
    asked = {"prompt": guess.answers.prompt, "max_new_tokens": guess.answers.max_new_tokens}
    return {"kind": guess.kind, "metric": metric or guess.answers.metric, "generation": asked}


def _check_values(kind: str, metric: str | None, budget: str | None, base_model: str | None) -> None:
    """Refuse a value before it is written to a file."""
    from postgrad.budget import parse_budget
    from postgrad.metrics import METRICS, TEXT_METRICS
    from postgrad.train.models import absolute_reference

    if metric is not None:
        (TEXT_METRICS if kind == "generation" else METRICS).get(metric)
    if budget is not None:
        parse_budget(budget)
    if base_model is not None:
        absolute_reference(base_model, Path.cwd())


def _source(source: str | None, part: str, output: Path) -> str | None:
    """A source as the task file names it: a path from the task file's folder where it is near, else an absolute one;
    or the name of a data set."""
    from postgrad.data.sources import resolve_source

    if source is None:
        return None
    found = resolve_source(source, Path.cwd(), part)
    if not Path(found).is_absolute():
        return found
    near = os.path.relpath(found, output.absolute().parent)
    return found if near.startswith(FAR) else near


def _task_name(train: str) -> str:
    """What the rows are called: the file's name, or its folder's where the file is called train."""
    path = Path(train).absolute()
    stem = path.parent.name if path.stem.lower() in PLAIN_NAMES else path.stem
    if ":" in train:
        stem = train.rpartition(":")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:64] or "my-task"


def _objective(guess: InitGuess, rejects: str | None) -> str:
    if guess.answers is not None:
        return f"Answer {guess.input} with {guess.target}."
    known = len([label for label in guess.labels if label != rejects])
    rest = ", and reject what none of them covers" if rejects else ""
    return f"Tell {known} kinds of {guess.input} apart by {guess.target}{rest}."


def _ask(guess: InitGuess, given: dict[str, str | None]) -> dict[str, str | None]:
    """Ask for what no option named. Enter takes the guess."""
    from rich.markup import escape
    from rich.prompt import Confirm, Prompt

    from postgrad.metrics import METRICS, TEXT_METRICS
    from postgrad.spec.keys import DEFAULT_BUDGET, default_metric

    screen = console(error=True)
    answers = dict(given)
    if answers["out_of_scope"] is None and guess.answers is None:
        maybe = guess.out_of_scope or guess.maybe_out_of_scope
        if maybe is not None:
            question = f"Does the label '{escape(maybe)}' mean: none of the others, reject it?"
            means_it = Confirm.ask(question, console=screen, default=guess.out_of_scope is not None)
            answers["out_of_scope"] = maybe if means_it else ""
        else:
            answers["out_of_scope"] = Prompt.ask(
                "Label of inputs to reject (Enter: reject nothing)", console=screen, default="", show_default=False
            )
    rejects = answers["out_of_scope"] or None
    if answers["objective"] is None:
        answers["objective"] = Prompt.ask("What is the model for?", console=screen, default=_objective(guess, rejects))
    if answers["metric"] is None:
        names = METRICS.names() if guess.answers is None else TEXT_METRICS.names()
        fitting = default_metric(rejects is not None) if guess.answers is None else guess.answers.metric
        answers["metric"] = Prompt.ask("Metric", console=screen, choices=list(names), default=fitting)
    if answers["budget"] is None:
        answers["budget"] = Prompt.ask("Budget ('20m', '8h', '40 experiments')", console=screen, default=DEFAULT_BUDGET)
    return answers


def _found(guess: InitGuess) -> str:
    note = f" ({guess.note})" if guess.note else ""
    if guess.answers is not None:
        return (
            f"{guess.rows:,} rows. Text: '{guess.input}', answer: '{guess.target}'{note}. Answers in words "
            f"({guess.answers.form}), 99 in 100 of about {guess.answers.max_new_tokens} tokens at most. If they are "
            "labels, say --kind classification."
        )
    most = ", ".join(f"{label} ({count})" for label, count in list(guess.labels.items())[:4])
    more = f" and {len(guess.labels) - 4} more" if len(guess.labels) > 4 else ""
    return (
        f"{guess.rows:,} rows. Text: '{guess.input}', label: '{guess.target}'{note}. "
        f"{len(guess.labels)} labels: {most}{more}."
    )


def _say(guess: InitGuess, out_of_scope: str | None, output: Path) -> None:
    screen = console()
    if out_of_scope:
        screen.print(f"Inputs of the label '{out_of_scope}' are to be rejected.", markup=False)
    elif out_of_scope is None and guess.maybe_out_of_scope:
        maybe = guess.maybe_out_of_scope
        screen.print(
            f"If '{maybe}' means none of the others, write it again with: --out-of-scope {maybe}", markup=False
        )
    screen.print(f"Wrote {output}. Next: postgrad check {output}", markup=False)
