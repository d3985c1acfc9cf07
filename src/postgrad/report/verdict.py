"""The one sentence on top: is the champion better, and is it a tuned model? No surer than the evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Iterator, Literal

from postgrad.records import Difference, SealedRead, SealedScore
from postgrad.report import wording
from postgrad.report.champion import Tone, claim_of, reference_of, remarks_of

if TYPE_CHECKING:
    from postgrad.report.view import RunView

FIRST_READ = 0.95
CLOSE = 0.05


@dataclass(frozen=True)
class Verdict:
    """Attributes:
    tone: better, none (no difference shown, or a reference of the run), worse, refused (the sealed split is too
        small), or open (no sealed read).
    claim: the sentence without its figures.
    figures: the figures behind it; empty where there are none.
    remarks: what a person who signs off has to know besides.
    """

    tone: Literal["better", "none", "worse", "refused", "open"]
    claim: str
    figures: str
    remarks: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        return f"{self.claim}: {self.figures}." if self.figures else f"{self.claim}."


def verdict_of(view: RunView) -> Verdict:
    """Judge a run. A sealed difference counts when its interval leaves out zero and its test agrees, both at the
    confidence of the read. Where the sealed split is too small, nothing counts, whatever the figures are."""
    champion, baseline = view.score_of("champion"), view.score_of("baseline")
    if view.sealed is None or champion is None or baseline is None:
        return _open(view)
    metric = wording.metric_name(view.sealed.metric)
    if view.sealed.refused is not None:
        count = view.sealed.texts if view.sealed.texts is not None else view.sealed.n
        texts = "1 sealed text is" if count == 1 else f"{count:,} sealed texts are"
        claim = f"Not certified, {texts} too few to show even a large difference"
        if view.task.script is not None:
            own = "the script itself says its number"
            claim = f"Not certified, {'the final trainings leave too much open' if view.task.script.trusted else own}"
        return Verdict("refused", claim, _figures(metric, champion, baseline, view.sealed), _remarks(view))
    role = reference_of(view)
    if champion.experiment == baseline.experiment or role == "baseline":
        figures = f"{metric} {wording.estimate(champion.estimate, 2)} on {wording.plural(view.sealed.n, 'sealed item')}"
        return Verdict("none", "Nothing beat the baseline, which is the champion", figures, _remarks(view))
    tone = _tone(view.sealed.difference, 1 - view.sealed.confidence)
    figures = _figures(metric, champion, baseline, view.sealed)
    # Where a run began is nothing that it gained.
    return Verdict(tone if role is None else "none", claim_of(view, tone), figures, _remarks(view))


def _tone(gap: Difference, level: float) -> Tone:
    if gap.p < level and gap.low > 0:
        return "better"
    return "worse" if gap.p < level and gap.high < 0 else "none"


def _figures(metric: str, champion: SealedScore, baseline: SealedScore, read: SealedRead) -> str:
    gap = read.difference
    digits = 3 if min(abs(gap.value), abs(gap.low), abs(gap.high)) < CLOSE / 5 or abs(gap.value) < CLOSE else 2
    wider = f" ({wording.percent(read.confidence)} interval)" if read.confidence > FIRST_READ else ""
    return (
        f"{metric} {wording.number(champion.estimate.value, digits)} vs "
        f"{wording.number(baseline.estimate.value, digits)}, "
        f"difference {wording.difference(gap, digits)}{wider}, {wording.p_value(gap.p)}"
    )


def _open(view: RunView) -> Verdict:
    best = view.champion
    if best is None or best.evaluation is None:
        return Verdict("open", f"Not finished: no experiment has a score, and {view.unsealed_reason}", "")
    figures = f"{best.id} has {wording.metric_name(view.metric)} {wording.estimate(best.evaluation.estimate, 2)}"
    return Verdict(
        "open",
        "Not finished, and measured on the search split only",
        figures,
        (f"There is no sealed result of this state: {view.unsealed_reason}.",),
    )


def _remarks(view: RunView) -> tuple[str, ...]:
    remarks = [*remarks_of(view), *_own_sign(view)]
    if view.sealed is not None and view.sealed.refused is not None:
        remarks.append(f"Why nothing is certified: {view.sealed.refused}. The figures are for the record only.")
    remarks += [f"{said[0].upper()}{said[1:]}." for said in (view.sealed.remarks if view.sealed else ())]
    gap = view.sealed.difference if view.sealed else None
    level = 1 - view.sealed.confidence if view.sealed else 0.0
    asked = view.task.min_effect
    if gap is not None and gap.p < level and 0 < gap.low <= gap.value < asked:
        remarks.append(f"The difference is smaller than the {asked:g} that the task asked for.")
    if gap is not None and gap.low <= 0 and gap.high >= asked > 0 and gap.value != 0:
        remarks.append(f"A gain of the {asked:g} that the task asked for is not ruled out: more test items would tell.")
    for guard in view.guards:
        if guard.holds is not True:
            remarks.append(f"The guard on {guard.name} ({guard.limit}) does not hold.")
    if view.sealed is not None and view.lineage.model is None:
        remarks.append("The final weights are not on record: their way from the base model cannot be shown.")
    return tuple(remarks)


def _own_sign(view: RunView) -> Iterator[str]:
    """The sealed numbers of a script as its metric has them, where less of it is better."""
    script, champion, baseline = view.task.script, view.score_of("champion"), view.score_of("baseline")
    if script is not None and script.direction == "min" and champion is not None and baseline is not None:
        ours, theirs = (wording.number(-score.estimate.value, 4) for score in (champion, baseline))
        yield f"In its own sign, where less is better, {script.metric} is {ours} for the champion and {theirs} before."
