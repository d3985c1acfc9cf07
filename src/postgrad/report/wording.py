"""Numbers and names as people read them. One place, so that the page, the Markdown and the screen agree.

Plain ASCII: the HTML page puts a typographic minus where it wants one.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

from postgrad.events import Pared
from postgrad.metrics import is_given
from postgrad.records import Asked, Difference, Estimate, JudgeControl, Mend, Recipe, Value
from postgrad.report.decisions import Decision
from postgrad.research.repairs import MENDS
from postgrad.tree import Experiment, State

METRIC_NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "mcc": "MCC",
    "in_scope_accuracy": "in-scope accuracy",
    "unthresholded_accuracy": "in-scope accuracy, nothing rejected",
    "out_of_scope_recall": "out-of-scope recall",
    "auroc": "AUROC",
}
ROLE_NAMES = {
    "champion": "Champion",
    "baseline": "Baseline",
    "base_model": "Untouched base model",
    "few_shot": "Untouched base model, few-shot",
    "constant": "Constant answer",
}
# A verdict on an experiment in a word or two. "better" and "worse" are of runs of older versions.
VERDICTS = {
    "keep": "kept",
    "better": "kept",
    "tie": "tie",
    "retest": "undecided",
    "discard": "discarded",
    "worse": "discarded",
    "raced": "stopped early",
    "failed": "failed",
    "unscored": "not scored",
    "rejected": "rejected",
}
NONE = "-"


def metric_name(metric: str) -> str:
    """The field's name of a metric; a foreign metric keeps its own."""
    return METRIC_NAMES.get(metric, metric if is_given(metric) else metric.replace("_", " "))


def plural(count: int, word: str) -> str:
    """ "1 row", "2 rows"."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def number(value: float | None, digits: int = 3) -> str:
    """A score; "-" where there is none. Never "-0.000"."""
    if value is None or not math.isfinite(value):
        return NONE
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def signed(value: float | None, digits: int = 3) -> str:
    """A difference, with its sign unless it is zero to the last digit."""
    text = number(value, digits)
    return text if value is None or text == NONE or float(text) <= 0 else f"+{text}"


def interval(found: Estimate | Difference, digits: int = 3) -> str:
    """ "[0.651, 0.742]"; a difference has signs."""
    show = signed if isinstance(found, Difference) else number
    return f"[{show(found.low, digits)}, {show(found.high, digits)}]"


def estimate(found: Estimate | None, digits: int = 3) -> str:
    """ "0.703 [0.651, 0.742]"."""
    return NONE if found is None else f"{number(found.value, digits)} {interval(found, digits)}"


def difference(found: Difference | None, digits: int = 3) -> str:
    """ "+0.120 [+0.070, +0.170]"."""
    return NONE if found is None else f"{signed(found.value, digits)} {interval(found, digits)}"


def ordinal(number: int) -> str:
    """ "1st", "2nd", "13th"."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def percent(share: float) -> str:
    """A confidence: "95 %", "97.5 %"."""
    return f"{100 * share:.4g} %"


def p_value(p: float) -> str:
    """ "p < 0.001" or "p = 0.034"."""
    if not math.isfinite(p):
        return "p not defined"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def day(at: float) -> str:
    """A Unix time as a UTC day and minute."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def short(text: str, length: int) -> str:
    """On one line, cut at `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1].rstrip()}…"


def setting(value: Value) -> str:
    """One setting of a recipe."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple):
        return ", ".join(setting(inner) for inner in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {setting(inner)}" for key, inner in value.items())
    return "none" if value is None else str(value)


def settings(values: dict[str, Value]) -> str:
    """All settings of a step, in their order."""
    return ", ".join(f"{key} {setting(value)}" for key, value in values.items())


def recipe_lines(recipe: Recipe) -> tuple[tuple[str, str], ...]:
    """A recipe as (what, settings) lines, in the order in which things happen."""
    lines = [("base model", recipe.base_model or "none")]
    lines += [(f"data: {step.op}", settings(step.params) or "as it comes") for step in recipe.data]
    members = recipe.stage.params.get("members")
    if isinstance(members, tuple) and all(isinstance(member, dict) for member in members):
        others = {key: value for key, value in recipe.stage.params.items() if key != "members"}
        lines.append((f"train: {recipe.stage.backend}", settings(others) or plural(len(members), "member")))
        lines += [(f"member {i}", _member(member)) for i, member in enumerate(members, start=1)]
    else:
        lines.append((f"train: {recipe.stage.backend}", settings(recipe.stage.params) or "as it comes"))
    if recipe.inference:
        lines.append(("answer", settings(recipe.inference)))
    return tuple(lines)


def _member(member: Value) -> str:
    """One model of an ensemble: its stage, then its weights; or what a member of a soup has of its own."""
    if not isinstance(member, dict):
        return setting(member)
    stage = member.get("stage")
    rest = settings({key: value for key, value in member.items() if key != "stage"})
    if not isinstance(stage, dict):
        return setting(member) or "as they share it"
    params = stage.get("params")
    shown = settings(params) if isinstance(params, dict) else ""
    return "; ".join(part for part in (f"{stage.get('backend')} {shown}".strip(), rest) if part)


def pared(found: Pared) -> str:
    """What became of one change of the champion when it was left out: one sentence without its full stop."""
    set_back = found.change.startswith(f"with {found.what} ")
    own = set_back or found.change.startswith(f"without {found.brought_by} ")  # A name of the script's.
    change, gain = f"{found.what if own else found.what.replace('_', ' ')} (of {found.brought_by})", found.gain
    if gain is None:
        return f"{change} stays: {found.experiment}, which lacks it, has no full score to compare {found.against} with"
    brings = f"{signed(gain.value)} [{signed(gain.low)}, {signed(gain.high)}] (measured {signed(found.measured)})"
    if found.dropped:
        gone = "set back" if set_back else "left out"
        return f"{change} is {gone}, because it brings {found.against} about {brings}: {found.experiment} leads"
    return f"{change} stays: it brings {found.against} about {brings}, by {found.experiment}, which lacks it"


def decision(one: Decision) -> str:
    """A person's decision in a sentence: when, who, what, and why."""
    why = f" Reason: {one.reason}" if one.reason else ""
    led = f" It became {one.led_to}." if one.led_to else ""
    return f"{moment(one.at)} UTC, {one.by}: {' '.join(filter(None, (one.verb, one.about)))}. {came_of(one)}{led}{why}"


def moment(at: float) -> str:
    """A Unix time as day and minute, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def came_of(one: Decision) -> str:
    """What an order did, or why it was refused, as a sentence; names of experiments stay as they are."""
    said = (one.said if one.took_effect else f"refused: {one.said}").rstrip(".")
    return f"{said if said[1:5].isdigit() else said[:1].upper() + said[1:]}."


def kind_name(kind: str) -> str:
    """A proposal's kind as words: "reference.classic" is "reference: classic"."""
    return kind.replace(".", ": ").replace("_", " ")


def method(recipe: Recipe) -> str:
    """The family a recipe belongs to: its backend, with what of an encoder it trains."""
    tune = recipe.stage.params.get("tune")
    return f"{recipe.stage.backend}, {tune}" if isinstance(tune, str) else recipe.stage.backend


def about(node: Experiment) -> str:
    """What a tooltip says about an experiment: three lines."""
    proposal = node.proposed.proposal
    score = estimate(node.evaluation.estimate if node.evaluation else None)
    result = {
        State.DONE: score,
        State.RACED: f"stopped early at {score}" if node.evaluation else "stopped on its way",
        State.FAILED: f"failed: {node.failure.kind}" if node.failure else "failed",
        State.UNSCORED: "not scored",
        State.PENDING: "under way",
    }[node.state]
    return f"{node.id}  {result}\n{method(proposal.recipe)}\n{short(proposal.change, 120)}"


def judge_control(control: JudgeControl) -> str:
    """What a judge said where the right answer is known, and what that means for its scores."""
    nothing = "Scores by this judge say nothing: take a better judge, or another metric."
    if control.n == 0:
        return f"The judge could not be tried: no two search rows have different references. {nothing}"
    words = (
        f"Between the reference of a row and that of another row, the judge preferred the right one in both orders for "
        f"{control.right:.0%} of {plural(control.n, 'question')} [{control.low:.0%}, {control.high:.0%}]. It said the "
        f"same in both orders for {control.agreement:.0%}, and {control.first:.0%} of its verdicts went to the first "
        "place."
    )
    return words if control.believed else f"{words} {nothing}"


def asked(found: Asked) -> str:
    """Who was asked before an experiment, what that cost, and what came of it."""
    cost = "" if found.usd is None else f", ${found.usd:.4f}"
    counted = (
        f"{found.tokens_in:,} tokens read and {found.tokens_out:,} written" if found.model else "no tokens counted"
    )
    came = f"nothing: {found.failed}" if found.failed else f"{len(found.sketches)} proposals"
    return f"{found.proposer} gave {came} ({counted}{cost})"


def mend(repair: Mend) -> str:
    """A repair of a failure, and whether the search tries it by itself."""
    who = f"the search tries it {'once' if repair.most == 1 else f'{repair.most} times in a row at most'}"
    return f"{repair.words}; {who if repair.kind in MENDS else 'the search does not do it by itself'}"
