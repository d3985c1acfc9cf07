"""A run as one sentence, and as the object that `postgrad run --json` ends with."""

from __future__ import annotations

from typing import Any

from postgrad.report.champion import reference_of, trains_base
from postgrad.report.failures import failures_of
from postgrad.report.view import Reading, RunView
from postgrad.tree import Experiment


def headline(view: RunView) -> str:
    """The result in one or two plain sentences."""
    return view.verdict.headline


def summary(view: RunView) -> dict[str, Any]:
    """`sealed` is None, with `sealed_reason`, before the read. `certified` is False where it is refused or missing."""
    champion = view.champion
    found: dict[str, Any] = {
        "run": view.run,
        "task": view.task.name,
        "experiments": len(view.tree),
        "failures": len(view.failures),
        "failure_causes": {one.cause: one.count for one in failures_of(view.failures)},
        "champion": champion and _champion(view, champion),
        "certified": view.sealed is not None and view.sealed.refused is None,
        "sealed": _sealed(view),
        "optimism_gap": view.optimism_gap,
        "looks": dict(view.looks),
        "sealed_reads": [_read(reading) for reading in view.readings],
        "spent": view.spent.model_dump(mode="json"),
        "granted": view.granted.model_dump(mode="json"),
        "model_dir": view.model_dir,
        "report": view.report,
    }
    if view.sealed is None:
        found["sealed_reason"] = view.unsealed_reason
    elif view.sealed.refused is not None:
        found["refused"] = view.sealed.refused
    return found


def _champion(view: RunView, champion: Experiment) -> dict[str, Any]:
    """`reference`: which one of the run it is, None where the search made it. `tuned`: whether weights of the base
    model were trained, None for a script."""
    recipe = champion.proposed.proposal.recipe
    return {
        "experiment": champion.id,
        "recipe_hash": recipe.hash,
        "reference": reference_of(view),
        "tuned": None if view.task.script is not None else trains_base(recipe),
    }


def _sealed(view: RunView) -> dict[str, Any] | None:
    champion, baseline = view.score_of("champion"), view.score_of("baseline")
    if view.sealed is None or champion is None or baseline is None:
        return None
    gap = view.sealed.difference
    return {
        "metric": view.sealed.metric,
        "baseline": baseline.estimate.value,
        "champion": champion.estimate.value,
        "difference": gap.value,
        "ci95": [gap.low, gap.high],
        "p": gap.p,
        "mcnemar_p": view.sealed.mcnemar_p,
        "confidence": view.sealed.confidence,
    }


def _read(reading: Reading) -> dict[str, Any]:
    """One read of the history. `at` is Unix time; `reason` is why it was read again, None for the first."""
    gap = reading.read.difference
    return {
        "number": reading.number,
        "at": reading.at,
        "champion": reading.champion,
        "difference": gap.value,
        "interval": [gap.low, gap.high],
        "confidence": reading.read.confidence,
        "refused": reading.read.refused,
        "remarks": list(reading.read.remarks),
        "reason": reading.reason,
    }
