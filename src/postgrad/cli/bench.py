"""`postgrad bench`: the project's own benchmarks."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postgrad.cli.output import JsonOption, console, print_json
from postgrad.errors import UserError, near_miss

if TYPE_CHECKING:
    from postgrad.bench.base import Benchmark

COLUMNS_SHOWN = 11
ROWS_TURNED = 8
KNOWN = (
    "bad-cases, chaos, engines, failures, ftbench, hint3, ledger, lessons, noise, overhead, overlaps, record, "
    "researchers, scale, scale-loop, scripts, search, stages, throughput"
)
OPEN = {"allow_extra_args": True, "ignore_unknown_options": True}


def command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help=f"Which benchmark: {KNOWN}.", show_default=False)],
    quick: Annotated[bool, typer.Option("--quick", help="A small version: under a minute on two cores.")] = False,
    folder: Annotated[Path, typer.Option("--folder", help="Where the work goes; kept, so that it can go on.")] = Path(
        "bench-runs"
    ),
    results: Annotated[Path, typer.Option("--results", help="Where the result file goes.")] = Path("bench/results"),
    as_json: JsonOption = False,
) -> None:
    """Run a benchmark, or go on with one. Its own options follow as `--option value`."""
    from postgrad.bench import BENCHMARKS
    from postgrad.bench.base import BenchSpec, write_result

    bench = BENCHMARKS.get(name)
    options = _options(bench, context.args)
    line = f"postgrad {shlex.join(sys.argv[1:])}"
    place = folder / (f"{name}-quick" if quick else name)
    spec = BenchSpec(quick=quick, folder=place, command=line, options=options)
    errors = console(error=True)
    result = bench.run(spec, lambda text: errors.print(text, style="dim", markup=False))
    path = write_result(results, place.name, line, result)
    if as_json:
        print_json({**result, "file": path})
        return
    console().print(_table(result["table"]))
    console().print(f"Full result: {path}", markup=False)


def _options(bench: Benchmark, words: list[str]) -> dict[str, str]:
    """`--option value` pairs over the benchmark's defaults."""
    options = {key: default for key, (default, _) in bench.options.items()}
    if len(words) % 2:
        raise UserError(f"'{words[-1]}' has no value. Options of this benchmark: {', '.join(options)}.")
    for key, value in zip(words[::2], words[1::2], strict=True):
        plain = key.lstrip("-").replace("-", "_")
        if plain not in options:
            known = "; ".join(f"--{k} ({help_text}, default {v})" for k, (v, help_text) in bench.options.items())
            raise UserError(f"This benchmark has no option '{key}'.{near_miss(plain, options)} It has: {known}.")
        options[plain] = value
    return options


def _table(rows: list[dict[str, Any]]) -> Any:
    """The plain columns of a benchmark's rows; many columns stand under each other, a row in each column. Of many
    rows the first columns have to do: the result file has the rest."""
    from rich.table import Column, Table

    columns = [key for key, value in rows[0].items() if not isinstance(value, list | dict)] if rows else []
    if len(rows) > ROWS_TURNED:
        columns = columns[:COLUMNS_SHOWN]
    lines = [[_shown(row.get(column)) for column in columns] for row in rows]
    if len(columns) <= COLUMNS_SHOWN:
        table = Table(*(Column(column, overflow="fold") for column in columns))
        for line in lines:
            table.add_row(*line)
        return table
    table = Table(columns[0], *(line[0] for line in lines))
    for i, column in enumerate(columns[1:], start=1):
        table.add_row(column, *(line[i] for line in lines))
    return table


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
