"""What the page and the Markdown both say, in order: facts, rows and sentences. Layout is theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from postgrad.budget import HOUR, Spent, format_duration
from postgrad.records import Difference, SealedRead, SealedScore
from postgrad.report import wording
from postgrad.report.failures import FailureSum, failures_of
from postgrad.report.guards import Price, prices
from postgrad.report.readings import Readings, readings_of
from postgrad.report.result import result_facts, sealed_lead
from postgrad.report.tried import compared
from postgrad.report.view import RunView
from postgrad.tree import Experiment, State

Tone = Literal["good", "bad", "neutral"]

SECONDARY = ("mcc", "macro_f1", "in_scope_accuracy", "out_of_scope_recall", "accuracy", "auroc", "weighted_f1")
SECONDARY_SHOWN = 3
SHOWN = 8
LOOKS = {
    "search": "steers the search; every experiment is measured here",
    "select": "names the champion among the finalists, trained again with fresh seeds",
    "sealed": "the result of this page; champion and baselines in one read, once unless the run was reopened",
}


@dataclass(frozen=True)
class Fact:
    """One figure of the strip under the headline."""

    label: str
    value: str
    note: str
    tone: Tone = "neutral"


@dataclass(frozen=True)
class SealedRow:
    """One model in the sealed table."""

    name: str
    score: SealedScore
    change: str
    tone: Tone


@dataclass(frozen=True)
class StepToChampion:
    """One experiment on the champion's path, with its difference to the one before."""

    node: Experiment
    difference: Difference | None


@dataclass(frozen=True)
class Check:
    """A check with its result in words. `holds` is None where it could not be made."""

    name: str
    holds: bool | None
    words: str


@dataclass(frozen=True)
class Line:
    """One kind of spending."""

    what: str
    spent: str
    granted: str


@dataclass(frozen=True)
class Contents:
    """Everything but the layout."""

    facts: tuple[Fact, ...]
    sealed: tuple[SealedRow, ...]
    secondary: tuple[str, ...]
    all_metrics: tuple[str, ...]
    path: tuple[StepToChampion, ...]
    checks: tuple[Check, ...]
    budget: tuple[Line, ...]
    looks: tuple[tuple[str, int, str], ...]
    commands: tuple[tuple[str, str], ...]
    unscored: int
    failures: tuple[FailureSum, ...]
    readings: Readings | None
    prices: tuple[Price, ...]
    sealed_lead: str
    result: tuple[tuple[str, str], ...]
    shown: int = SHOWN


def measured(read: SealedRead) -> list[str]:
    """The metrics that a read has values of, those of labels by what they tell."""
    found = {name for score in read.scores for name in score.metrics}
    return [*(name for name in SECONDARY if name in found), *sorted(found - set(SECONDARY))]


def secondary(read: SealedRead) -> tuple[str, ...]:
    """The metrics that stand beside the task's own."""
    return tuple(name for name in measured(read) if name != read.metric)[:SECONDARY_SHOWN]


def contents(view: RunView) -> Contents:
    """Prepare a run for reading."""
    names = measured(view.sealed) if view.sealed else []
    return Contents(
        facts=_facts(view),
        sealed=_sealed(view),
        secondary=secondary(view.sealed) if view.sealed else (),
        all_metrics=tuple(names),
        path=_path(view),
        checks=(_contamination(view), *_size(view), *_judge(view), *_guards(view), _lineage(view), _gap(view)),
        budget=_budget(view),
        looks=tuple((split, view.looks[split], why) for split, why in LOOKS.items()),
        commands=_commands(view),
        unscored=sum(node.state in (State.FAILED, State.UNSCORED) for node in view.tree.all()),
        failures=failures_of(view.failures),
        readings=readings_of(view),
        prices=prices(view),
        sealed_lead=sealed_lead(view),
        result=result_facts(view),
    )


def result_word(node: Experiment) -> str:
    """How an experiment came out, in a word or two."""
    if node.analysis is None:
        return "under way"
    if node.analysis.verdict == "tie" and node.analysis.difference is None:
        return "not compared"
    return wording.VERDICTS.get(node.verdict or "", node.analysis.verdict)


def _facts(view: RunView) -> tuple[Fact, ...]:
    spent, granted = view.spent, view.granted
    experiments = len(view.tree)
    ended = [wording.plural(len(view.failures), "failure")] if view.failures else ["none failed"]
    ended += [f"{len(view.raced)} stopped early"] if view.raced else []
    time = f"of {format_duration(granted.wall_s)} granted" if granted.wall_s is not None else "no limit"
    looks = view.looks
    gap = view.optimism_gap
    facts = [
        Fact("experiments", str(experiments), ", ".join(ended)),
        Fact("time", format_duration(spent.wall_s), f"{time}, {format_duration(spent.cpu_s)} of CPU"),
        Fact(
            "sealed reads", str(looks["sealed"]), f"after {looks['search']} search and {looks['select']} select looks"
        ),
        Fact("optimism gap", wording.signed(gap), "search minus sealed" if gap is not None else "no sealed result yet"),
    ]
    checks = (_contamination(view), *_size(view), *_judge(view), *_guards(view), _lineage(view))
    failing = [check for check in checks if check.holds is False]
    unknown = [check for check in checks if check.holds is None]
    value = "failing" if failing else "open" if unknown else "all hold"
    names = ", ".join(check.name for check in failing or unknown or checks)
    facts.append(Fact("checks", value, names, "bad" if failing else "neutral" if unknown else "good"))
    return tuple(facts)


def _sealed(view: RunView) -> tuple[SealedRow, ...]:
    rows = []
    tones: dict[str, Tone] = {"better": "good", "worse": "bad"}
    tone = tones.get(view.verdict.tone, "neutral")
    for score in view.sealed.scores if view.sealed else ():
        node = view.tree.experiments.get(score.experiment)
        change = node.proposed.proposal.change if node else ""
        own = tone if score.role == "champion" else "neutral"
        rows.append(SealedRow(wording.ROLE_NAMES[score.role], score, change, own))
    return tuple(rows)


def _path(view: RunView) -> tuple[StepToChampion, ...]:
    if view.champion is None:
        return ()
    return tuple(StepToChampion(node, compared(node)) for node in view.tree.path(view.champion.id))


# --- checks ---------------------------------------------------------------------------------------------------------


def _contamination(view: RunView) -> Check:
    script = view.task.script
    if script is None:
        return Check("contamination", True if view.plan else None, view.contamination.words)
    if not script.hidden:
        return Check("hidden data", None, "The script may have seen everything that it is measured on.")
    names = " and ".join(sorted(set(script.hidden.values())))
    return Check("hidden data", True, f"{names}: in no folder that a script has run in, and outside its sandbox.")


def _size(view: RunView) -> tuple[Check, ...]:
    """Whether the sealed split is large enough to certify anything; nothing where that is not on record."""
    read = view.sealed
    if read is None or read.texts is None:
        return ()
    if read.refused is not None:
        return (Check("sealed split size", False, f"Nothing is certified: {read.refused}."),)
    return (Check("sealed split size", True, f"{wording.plural(read.texts, 'different text')}: enough to certify."),)


def _judge(view: RunView) -> tuple[Check, ...]:
    """Whether the judge's scores say anything; nothing where the task has no judge."""
    if view.judge is None:
        return ()
    return (Check("judge", view.judge.believed, wording.judge_control(view.judge)),)


def _guards(view: RunView) -> tuple[Check, ...]:
    return tuple(Check(f"guard: {guard.name}", guard.holds, guard.words) for guard in view.guards)


def _lineage(view: RunView) -> Check:
    base = view.lineage.base_model
    if view.task.script is not None and view.lineage.model is not None:
        words = f"What the champion left ({view.lineage.model[:12]}) was made by the logged job {view.lineage.job}."
        return Check("lineage", True, words)
    start = f"from {base}" if base else "from training data alone, without a base model"
    if view.lineage.model is not None:
        words = f"The final weights ({view.lineage.model[:12]}) were made {start} by the logged job {view.lineage.job}."
        return Check("lineage", True, words)
    if view.sealed is None:
        return Check("lineage", None, "The final model is not trained yet.")
    return Check(
        "lineage", False, "No final weights of the champion are on record: their way from the base model is not shown."
    )


def _gap(view: RunView) -> Check:
    gap = view.optimism_gap
    if gap is None:
        return Check("optimism gap", None, "Search minus sealed: known once the sealed split has been read.")
    words = (
        f"{wording.signed(gap)} (search minus sealed, champion): the luck of having been chosen, and whatever "
        "differs between the training data and the sealed rows."
    )
    return Check("optimism gap", None, words)


# --- money, time, commands ------------------------------------------------------------------------------------------


def _budget(view: RunView) -> tuple[Line, ...]:
    spent, granted = view.spent, view.granted

    def hours(limit: float | None) -> str:
        return "no limit" if limit is None else format_duration(limit * HOUR)

    wall = "no limit" if granted.wall_s is None else format_duration(granted.wall_s)
    count = "no limit" if granted.experiments is None else str(granted.experiments)
    lines = [
        Line("wall clock", format_duration(spent.wall_s), wall),
        Line("experiments", str(spent.experiments), count),
        Line("CPU time", format_duration(spent.cpu_s), hours(granted.cpu_hours)),
    ]
    if spent.gpu_s or granted.gpu_hours:
        lines.append(Line("GPU time", format_duration(spent.gpu_s), hours(granted.gpu_hours)))
    if spent.usd or granted.usd:
        lines.append(Line("money", _money(spent), "no limit" if granted.usd is None else f"${granted.usd:g}"))
    if spent.unpriced_gpu_s:
        lines.append(Line("GPU time without a price", format_duration(spent.unpriced_gpu_s), "in no sum of money"))
    if spent.asked:
        tokens = f"{spent.tokens_in:,} tokens read, {spent.tokens_out:,} written"
        lines.append(Line("questions to proposers", f"{spent.asked} ({tokens})", "no limit"))
    lines.append(Line("largest job", f"{spent.max_rss_mb:,.0f} MB", f"{view.task.engine.memory_mb:,} MB a job"))
    return tuple(lines)


def _money(spent: Spent) -> str:
    """All dollars, and whose they are where there are both kinds."""
    hardware = spent.usd - spent.asked_usd
    if spent.asked_usd and hardware > 0.0:
        return f"${spent.usd:.2f} (${hardware:.2f} hardware, ${spent.asked_usd:.2f} language models)"
    return f"${spent.usd:.2f}"


def _commands(view: RunView) -> tuple[tuple[str, str], ...]:
    run = view.run
    if view.sealed is None:
        return (
            (f"postgrad resume {run}", "goes on where the run stands"),
            (f"postgrad show {run}", "lists its experiments"),
        )
    return (
        (f"postgrad replay {run}", "trains the champion again from its record, without a researcher, and compares"),
        (f"postgrad export {run} DIR", "writes the model with a predict entry point that needs no Postgrad"),
        (f"postgrad show {run} {view.champion.id if view.champion else ''}".rstrip(), "everything about the champion"),
    )
