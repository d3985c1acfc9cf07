"""How the bad cases of an experiment are drawn on a terminal, and given to programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from postgrad.analyze.causes import Cause
from postgrad.analyze.findings import Findings
from postgrad.cli.output import facts
from postgrad.events import BadCasesDescribed
from postgrad.report import wording
from postgrad.report.badcases import said

SHOWN, LETTERS = 5, 110


def bad_document(run: str, found: Findings, words: BadCasesDescribed | None) -> dict[str, Any]:
    """The findings as one JSON document, with the moves and the advice of each cause; `words` are a language model's,
    by the name of a cluster and the kind of a cause."""
    causes = [
        asdict(cause)
        | {"where": cause.known.where, "meaning": cause.known.meaning}
        | {"moves": list(cause.known.moves), "otherwise": cause.known.otherwise}
        for cause in found.causes
    ]
    slices = [asdict(each) | {"rate": each.rate, "rest_rate": each.rest_rate} for each in found.slices]
    told = {"by": words.asked.proposer, "topics": words.topics, "causes": words.causes} if words else None
    return {"run": run} | asdict(found) | {"causes": causes, "slices": slices, "words": told}


def bad_cases(run: str, found: Findings, words: BadCasesDescribed | None) -> RenderableType:
    """The findings as a screen, with a language model's words where there are any."""
    return Group(*_parts(run, found, words))


def _parts(run: str, found: Findings, words: BadCasesDescribed | None) -> Iterator[RenderableType]:
    yield Text.assemble((found.experiment, "bold"), f"  of {run}: bad cases on the search split")
    yield Padding(facts(_figures(found)), (1, 0))
    yield Text("Causes", style="bold")
    yield _causes(found.causes, words) if found.causes else Text("  no cause is known", style="dim")
    if found.slices:
        yield Text("\nWeak slices: worse than the rest by more than chance", style="bold")
        for each in found.slices[:SHOWN]:
            yield Text(f"  {each.words}")
    if found.topics:
        yield Text("\nWhat they are about", style="bold")
        for topic in found.topics[:SHOWN]:
            yield Text(f"  {topic.size:>3}  {topic.name}")
            if told := said(words, "topics", topic.name):
                yield Text(f"      {told}")
            yield Text(f"       “{wording.short(topic.texts[0], LETTERS)}”", style="dim")
    if found.hard:
        yield Text("\nSolved by no recipe", style="bold")
        for hard in found.hard[:SHOWN]:
            yield Text(f"  {wording.short(hard.label, 40)}  ", end="")
            yield Text(f"“{wording.short(hard.text, LETTERS)}”", style="dim")
    if found.suspects:
        yield Text("\nLabels that look wrong", style="bold")
        for odd in found.suspects[:SHOWN]:
            yield Text(f"  {odd.label}, or rather {odd.suggested} ({odd.other:.2f} against {odd.own:.2f})  {odd.id}")
            yield Text(f"       “{wording.short(odd.text, LETTERS)}”", style="dim")


def _figures(found: Findings) -> Iterator[tuple[str, str]]:
    yield "wrong", f"{found.wrong} of {found.items} search items"
    told = ", ".join(f"{count} {state}" for state, count in found.solved.items() if state != "open")
    still = found.solved["open"]
    yield "solved", f"{told}; {still} asked too seldom to say" if still else told
    yield "by", wording.plural(found.experiments, "experiment")


def _causes(causes: tuple[Cause, ...], spoken: BadCasesDescribed | None) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for cause in causes:
        advice = cause.known.otherwise
        moves = ", ".join(cause.known.moves)
        words = f"{cause.words}. Moves: {moves}." + (f" Or {advice}." if advice else "")
        words += said(spoken, "causes", cause.kind)
        table.add_row(f"  {cause.known.where}", cause.kind, Text(words))
    return table
