"""How one experiment is drawn on a terminal."""

from __future__ import annotations

from typing import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from postgrad.cli.output import facts
from postgrad.cli.reading import Reading
from postgrad.records import RootCause, Value
from postgrad.records.job import sum_of
from postgrad.report import wording
from postgrad.report.guards import guard_checks
from postgrad.report.hardware import cost, machines
from postgrad.research.difference import recipe_changes
from postgrad.scripts.history import is_script
from postgrad.tree import Experiment

COLOURS = {
    "keep": "green",
    "better": "green",
    "discard": "red",
    "worse": "red",
    "retest": "yellow",
    "tie": "default",
    "raced": "yellow",
    "failed": "red",
    "unscored": "yellow",
    "rejected": "yellow",
    "pending": "cyan",
}
BAD_CASES_SHOWN = 10
EVIDENCE_LINES = 15


def detail(reading: Reading, node: Experiment) -> RenderableType:
    """Everything that is known of one experiment, in the order in which it came to be."""
    return Group(*_parts(reading, node))


def _parts(reading: Reading, node: Experiment) -> Iterator[RenderableType]:
    verdict = node.verdict or "pending"
    crown = "  champion" if node.id == reading.line.champion else ""
    yield Text.assemble(
        (node.id, "bold"), f"  of {reading.line.run}  ", (verdict, COLOURS[verdict]), (crown, "bold green")
    )
    yield Padding(facts(_facts(reading, node)), (1, 0))
    yield from _recipe(reading, node)
    yield from _failures(node)
    yield from _bad_cases(reading, node)


def _guards(reading: Reading, node: Experiment) -> Iterator[tuple[str, str]]:
    """Every guard with a value: over the search answers, and of the final model where there is one."""
    for check in guard_checks(reading.view.task, node, reading.view.finals, None):
        if check.search is not None or check.final is not None:
            yield "guard", f"{'holds' if check.holds else 'BROKEN'}: {check.name}, {check.words}"
    final = reading.view.finals.get(node.id)
    if final is not None and final.refused:
        yield "put aside", final.refused


def _facts(reading: Reading, node: Experiment) -> Iterator[tuple[str, str]]:
    """What it was for, what it scored, and what that means."""
    proposal, choice = node.proposed.proposal, node.proposed.choice
    parents = " and ".join(name for name in (choice.parent, choice.other) if name) or "nothing before"
    yield "move", f"{choice.move} on {parents}" + (f": {choice.reason}" if choice.reason else "")
    yield "change", proposal.change
    yield "hypothesis", proposal.hypothesis
    yield "expected", f"{wording.signed(proposal.expected_effect)}; refuted by: {proposal.refuted_by}"
    if proposal.evidence:
        yield "evidence", ", ".join(proposal.evidence)
    if proposal.asked is not None:
        yield "asked", wording.asked(proposal.asked)
    if node.evaluation is not None:
        found = node.evaluation
        units = "" if found.complete else f", stopped after {found.units} of {found.units_planned} units"
        yield found.metric, f"{wording.estimate(found.estimate)} on {found.estimate.n} search items{units}"
        if found.threshold is not None:
            yield "threshold", f"{found.threshold:.4g}"
        others = [f"{name} {wording.number(value)}" for name, value in found.metrics.items() if name != found.metric]
        if others:
            yield "also", ", ".join(others)
    yield from _guards(reading, node)
    for again in node.select:
        yield "select", f"{wording.estimate(again.estimate)} on {again.estimate.n} items, seed {again.seed}"
    if node.analysis is not None:
        gap = node.analysis.difference
        if gap is not None:
            against = node.analysis.against
            yield "difference", f"{wording.difference(gap)} to {against}, {wording.p_value(gap.p)}"
        yield "cause", node.analysis.cause
        if node.analysis.blamed:
            yield "blamed on", ", ".join(f"{each.cause} ({each.share:.1%} of items)" for each in node.analysis.blamed)
        if node.analysis.lesson is not None:
            yield "lesson", node.analysis.lesson.claim
    for pared in reading.view.pared:
        if node.id in (pared.experiment, pared.against):
            yield "worth having?", wording.pared(pared)
    if node.waits:
        yield "waits", f"{node.proposed.asks}. Decide with: postgrad inbox {reading.line.run}"
    for each in reading.view.decisions:
        if node.id in (each.about, each.led_to):
            why = f", because: {each.reason}" if each.reason else ""
            refused = "" if each.took_effect else " (refused)"
            yield "decision", f"{each.by}: {each.verb}{refused}: {each.said}{why}"
    used = sum_of(result.usage for result in node.results)
    yield "cost", cost(used)
    for where in machines(used):
        yield "hardware", where


def _recipe(reading: Reading, node: Experiment) -> Iterator[RenderableType]:
    recipe, before = node.proposed.proposal.recipe, reading.parent_recipe(node)
    if (diff := reading.diff(node)) is not None:
        yield from _files(node, diff)
        return
    changes = recipe_changes(before, recipe)
    title = f"Recipe {recipe.hash}" + (f", against {node.parent}" if node.parent else "")
    yield Text(title, style="bold")
    if not changes:
        yield Text("  the same recipe, another seed")
        return
    table = Table.grid(padding=(0, 2))
    for change in changes:
        if before is None:
            table.add_row(f"  {change.setting}", Text(_shown(change.after)))
        else:
            old, new = Text(_shown(change.before), style="red"), Text(_shown(change.after), style="green")
            table.add_row(f"  {change.setting}", old, Text("→", style="dim"), new)
    yield table


def _files(node: Experiment, diff: str) -> Iterator[RenderableType]:
    """What an experiment of a script changed."""
    yield Text(f"Files, against {node.parent or 'the source'}", style="bold")
    if not diff:
        yield Text("  the same files, another seed" if node.parent else "  the source as it was given")
    for line in diff.splitlines():
        if not line.startswith(("diff --git", "index ")):
            style = {"+": "green", "-": "red", "@": "dim"}.get(line[:1], "")
            yield Text(f"  {line}", style=style)


def _shown(value: Value) -> str:
    return wording.NONE if value is None else wording.setting(value)


def _failures(node: Experiment) -> Iterator[RenderableType]:
    for result in node.results:
        if result.failure is None:
            continue
        failure = result.failure
        yield Text(f"\nFailure in {result.job}: {failure.boundary}/{failure.kind}", style="bold red")
        yield Text(f"  {failure.message}")
        evidence = (failure.evidence or result.log_tail).strip().splitlines()
        for line in evidence[-EVIDENCE_LINES:]:
            yield Text(f"  | {line}", style="dim")
    if node.analysis is not None and node.analysis.root is not None:
        yield from _root_cause(node.analysis.root)


def _root_cause(root: RootCause) -> Iterator[RenderableType]:
    """Why it failed, the lines that show it, and what to do."""
    yield Text(f"\nRoot cause: {root.cause}, confidence {root.confidence:.2f}", style="bold")
    yield Text(f"  {root.said}")
    for line in root.evidence:
        yield Text(f"  {line.source}:{line.number} | {line.text}", style="dim")
    yield Text(f"  What to do: {root.advice}")
    if root.repair is not None:
        yield Text(f"  Repair: {wording.mend(root.repair)}")


def _bad_cases(reading: Reading, node: Experiment) -> Iterator[RenderableType]:
    cases = reading.bad_cases(node)
    if not cases:
        return
    if is_script(node.proposed.proposal.recipe):
        yield Text("\nItems of the search split with the worst numbers", style="bold")
        for case in cases[:BAD_CASES_SHOWN]:
            yield Text(f"  {case.predicted[:9]:>9}  {case.truth}")
        return
    yield Text("\nBad cases on the search split: what was right → what was answered", style="bold")
    for case in cases[:BAD_CASES_SHOWN]:
        yield Text(f"  {case.count:>3}  {case.truth} → {case.predicted}")
        for text in case.texts:
            yield Text(f"       “{wording.short(text, 200)}”", style="dim")
    if len(cases) > BAD_CASES_SHOWN:
        yield Text(f"  and {len(cases) - BAD_CASES_SHOWN} more pairs: --json lists them all", style="dim")
