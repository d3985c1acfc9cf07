"""What stands beside the sealed table: the difference and its tests, the gap to the search, looks, verdicts, noise."""

from __future__ import annotations

from collections import Counter
from typing import Iterator

from postgrad.budget import format_duration
from postgrad.evaluate.statistics.control import ALPHA
from postgrad.quoting import escaped
from postgrad.records import SealedRead, Transfer
from postgrad.report import wording
from postgrad.report.view import RunView

CONTROLLED = ("keep", "discard", "retest")
OUTCOMES = tuple("ties" if word == "tie" else word for word in dict.fromkeys(wording.VERDICTS.values()))


def sealed_lead(view: RunView) -> str:
    """How the sealed table came about."""
    if view.sealed is None:
        return ""
    rows, level = wording.plural(view.sealed.n, "row"), wording.percent(view.sealed.confidence)
    if len(view.readings) > 1:
        how = f"{rows}, read for the {wording.ordinal(len(view.readings))} time: what they said before was known."
        return f"{how} Intervals are {level}, so that those of all reads hold together with 95 %."
    return f"{rows} that nothing before had seen, read once. Intervals are {level}."


def result_facts(view: RunView) -> tuple[tuple[str, str], ...]:
    """Names and sentences, in the order in which a person who signs off would ask. Empty before the read."""
    return tuple(_facts(view, view.sealed)) if view.sealed is not None else ()


def _facts(view: RunView, read: SealedRead) -> Iterator[tuple[str, str]]:
    gap = read.difference
    kind = "bootstrap interval" if view.task.script is None else "interval over items and training seeds"
    yield (
        "champion minus baseline",
        f"{wording.difference(gap)} on the same rows ({wording.percent(read.confidence)} {kind}, "
        f"{wording.p_value(gap.p)}). The task asked for at least {view.task.min_effect:g}: {_asked(view, read)}.",
    )
    if read.transfer is not None:
        yield "in a larger setting", _transfer(view, read.transfer)
    others = [(score.role, score.gap) for score in read.scores[2:] if score.gap is not None]
    if others:
        said = [f"{wording.difference(found)} over the {_lower(wording.ROLE_NAMES[role])}" for role, found in others]
        yield (
            "champion minus the others",
            f"{'; '.join(said)}. The same rows and interval; nothing was decided by these.",
        )
    test, about = ("exact McNemar test", "right against wrong answers")
    if view.task.kind == "generation":
        test, about = "exact sign test", "which of the two answered better, item by item"
    if view.task.script is None:
        yield test, f"{wording.p_value(read.mcnemar_p)}, on {about}."
    if view.optimism_gap is not None:
        yield "optimism gap", f"{wording.signed(view.optimism_gap)}, search minus sealed score of the champion."
    looks = view.looks
    yield (
        "looks",
        f"{wording.plural(looks['search'], 'measurement')} on search, {looks['select']} on select, "
        f"{wording.plural(looks['sealed'], 'read')} of sealed.",
    )
    yield "experiments", f"{outcomes(view)}."
    if _controlled(view):
        yield (
            "error control",
            "kept means shown on the select items to be better than what was kept before; of what a run keeps, at most "
            f"{100 * ALPHA:.0f} % are expected to be false (LOND, Javanmard and Montanari 2018){_caveat(view)}.",
        )
    if view.seed_sd is not None:
        yield "seed noise", f"a training's score varies by {view.seed_sd:.3f} (standard deviation) from seed to seed."
    if read.texts is not None and read.smallest_effect is not None:
        yield "what these rows can show", _power(read.texts, read.smallest_effect, read.discordant)


def _transfer(view: RunView, told: Transfer) -> str:
    """What the champion's changes are worth where the task says that they should hold as well."""
    command = f"`{escaped(' '.join(told.command))}`, {format_duration(told.time_s)}"
    if told.difference is None or told.estimates is None:
        return f"no result ({command}): {told.said}."
    champion, baseline = (wording.estimate(each) for each in told.estimates)
    script = view.task.script
    if script is not None and script.direction == "min":
        numbers = " against ".join(wording.number(-each.value, 4) for each in told.estimates)
        baseline += f"; in its own sign, where less is better, {numbers}"
    each = f"{wording.plural(told.trainings[0], 'training')} and {told.trainings[1]} of the baseline, fresh seeds"
    more = f" {told.said[0].upper()}{told.said[1:]}." if told.said else ""
    return (
        f"{wording.difference(told.difference)} over the baseline ({champion} against {baseline}), with {command}; "
        f"{each}. Nothing was decided by it.{more}"
    )


def _caveat(view: RunView) -> str:
    """In cross-validation the select items are rows that the search has asked as well."""
    again = view.plan is not None and view.plan.mode == "cv"
    return "; in cross-validation these are the same rows under other folds, which makes it optimistic" if again else ""


def _controlled(view: RunView) -> bool:
    """True for runs whose verdicts come from the rule that bounds false keeps; those of older versions do not."""
    return any(node.verdict in CONTROLLED or node.tested for node in view.tree.all())


def _asked(view: RunView, read: SealedRead) -> str:
    """Whether the difference is as large as the task asked for, by its interval."""
    asked, gap = view.task.min_effect, read.difference
    champion, baseline = view.score_of("champion"), view.score_of("baseline")
    if champion is not None and baseline is not None and champion.experiment == baseline.experiment:
        return "the champion is the baseline"
    if read.refused is not None:
        return "not certified"
    if gap.low >= asked:
        return "shown"
    return "ruled out" if gap.high < asked else "neither shown nor ruled out"


def outcomes(view: RunView) -> str:
    """What became of the experiments: "7 kept, 14 ties, 3 failed"."""
    found = Counter(wording.VERDICTS[node.verdict] for node in view.tree.all() if node.verdict)
    found["ties"] = found.pop("tie", 0)
    told = [f"{found[word]} {word}" for word in OUTCOMES if found[word]]
    told += [f"{left} under way"] if (left := len(view.tree.pending())) else []
    return ", ".join(told) or "none"


def _power(texts: int, smallest: float, discordant: float | None) -> str:
    words = (
        f"{wording.plural(texts, 'different text')} show a difference in accuracy from about {smallest:.3f} on "
        "(80 % power at the 5 % level, where two models disagree on a fifth of the texts"
    )
    return words + (f"; these two do on {100 * discordant:.0f} %)." if discordant is not None else ").")


def _lower(name: str) -> str:
    return name[0].lower() + name[1:]
