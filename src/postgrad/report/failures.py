"""Failures of a run by root cause: how many, which, and what to do about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable

from postgrad.report import wording
from postgrad.tree import Experiment

NAMED = 8


@dataclass(frozen=True)
class FailureSum:
    """One cause. `said` and `advice` are "" in runs of older versions, which have kinds of failures and no causes."""

    cause: str
    count: int
    named: tuple[str, ...]
    said: str
    advice: str
    repair: str


def failures_of(failed: Iterable[Experiment]) -> tuple[FailureSum, ...]:
    """Failed experiments by cause, the most frequent first; of many of a cause the last ones are named."""
    by_cause: dict[str, list[Experiment]] = {}
    for node in failed:
        by_cause.setdefault(_cause(node), []).append(node)
    found = []
    for cause, nodes in sorted(by_cause.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        root = nodes[-1].analysis.root if nodes[-1].analysis else None
        named = tuple(node.id for node in nodes[-NAMED:])
        repair = wording.mend(root.repair) if root is not None and root.repair is not None else ""
        said, advice = (root.said, root.advice) if root is not None else ("", "")
        found.append(FailureSum(cause, len(nodes), named, said, advice, repair))
    return tuple(found)


def _cause(node: Experiment) -> str:
    if node.analysis is not None and node.analysis.root is not None:
        return node.analysis.root.cause
    return f"{node.failure.boundary}/{node.failure.kind}" if node.failure is not None else "no score"
