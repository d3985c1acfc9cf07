"""`postgrad show`: the tree of a run, or one experiment in detail. Reads the store of any run, running ones too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postgrad.cli.output import RUNS_DIR, JsonOption, RunArgument, RunsDirOption, console, print_json

if TYPE_CHECKING:
    from postgrad.cli.reading import Reading
    from postgrad.tree import Experiment


def command(
    run: RunArgument,
    experiment: Annotated[
        str | None,
        typer.Argument(metavar="[EXP]", help="An experiment: e0007, 7 or `champion`.", show_default=False),
    ] = None,
    bad: Annotated[
        bool, typer.Option("--bad", help="Analyse the bad cases of the experiment, or of the champion.")
    ] = False,
    runs_dir: RunsDirOption = RUNS_DIR,
    as_json: JsonOption = False,
) -> None:
    """Show the tree of a run, or what one experiment was for, changed, scored and got wrong."""
    from postgrad.cli.reading import read_run

    reading = read_run(runs_dir, run)
    if bad:
        _show_bad(reading, runs_dir, reading.experiment(experiment).id if experiment else None, as_json)
        return
    if experiment is None:
        if as_json:
            print_json(_tree_document(reading))
        else:
            _print_tree(reading)
        return
    node = reading.experiment(experiment)
    if as_json:
        print_json(_experiment_document(reading, node))
    else:
        from postgrad.cli.detail import detail

        console().print(detail(reading, node))


def _show_bad(reading: Reading, runs_dir: Path, experiment: str | None, as_json: bool) -> None:
    from postgrad.cli.badcases import bad_cases, bad_document
    from postgrad.cli.runs import open_run
    from postgrad.erring import read_findings, words_of

    with open_run(runs_dir, reading.line.folder) as store:
        name = experiment or reading.line.champion
        words = words_of(store, name) if name else None
        # Words are about the clusters that the model was shown.
        found = read_findings(store, name, encode=words is None)
    if as_json:
        print_json(bad_document(reading.line.run, found, words))
    else:
        console().print(bad_cases(reading.line.run, found, words))


def _tree_document(reading: Reading) -> dict[str, Any]:
    line = reading.line.model_dump()
    return {**line, "experiments": [_node_document(node) for node in reading.view.tree.all()]}


def _node_document(node: Experiment) -> dict[str, Any]:
    """One node of the tree. `score` is null unless all its units were scored; `estimate` is what there is."""
    proposal = node.proposed.proposal
    return {
        "experiment": node.id,
        "parent": node.parent,
        "other": node.proposed.choice.other,
        "move": node.proposed.choice.move,
        "kind": proposal.kind,
        "change": proposal.change,
        "state": node.state,
        "verdict": node.verdict,
        "waits": node.proposed.asks if node.waits else None,
        "score": node.score,
        "estimate": node.evaluation.estimate if node.evaluation else None,
        "cost_s": node.cost_s,
        "recipe_hash": proposal.recipe.hash,
    }


def _experiment_document(reading: Reading, node: Experiment) -> dict[str, Any]:
    from postgrad.records.job import sum_of
    from postgrad.research.difference import recipe_changes

    return {
        "run": reading.line.run,
        **_node_document(node),
        "proposal": node.proposed.proposal,
        "recipe_changes": recipe_changes(reading.parent_recipe(node), node.proposed.proposal.recipe),
        "diff": reading.diff(node),
        "evaluation": node.evaluation,
        "select": list(node.select),
        "final_model": reading.view.finals.get(node.id),
        "analysis": node.analysis,
        "usage": sum_of(result.usage for result in node.results),
        "failures": [result.failure for result in node.results if result.failure],
        "bad_cases": reading.bad_cases(node),
    }


def _print_tree(reading: Reading) -> None:
    from postgrad.forecast import in_short, in_words
    from postgrad.report.terminal import champion_sparkline, terminal_tree

    screen, line = console(), reading.line
    screen.print(terminal_tree(reading.view))
    screen.print(f"\n[dim]{line.state}, metric {line.metric}[/dim]")
    screen.print(f"spent {in_short(line.spent)}", style="dim", markup=False)
    if line.expected is not None:
        screen.print(f"at the end, at this pace: {in_words(line.expected, line.granted)}", style="dim", markup=False)
    if line.note:
        screen.print(line.note, style="yellow", markup=False)
    if line.asks:
        screen.print(line.asks, style="yellow", markup=False)
    if line.champion is not None:
        screen.print(f"[dim]champion over the experiments[/dim] {champion_sparkline(reading.view)}")
        screen.print(f"[dim]the champion in detail:[/dim] postgrad show {line.run} {line.champion}")
