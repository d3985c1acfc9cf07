"""Analysis -> lesson, and the table of what was tried. A lesson always names its evidence."""

from __future__ import annotations

from statistics import NormalDist, mean, stdev

from postgrad.records import Analysis, Estimate, Lesson, Proposal, Record
from postgrad.tree import Tree

Z = NormalDist().inv_cdf(0.975)


class Tried(Record):
    """What one kind of change did in a run. `effect` is over its experiments with a comparison; None without one."""

    kind: str
    tries: int
    better: int
    worse: int
    failed: int
    effect: Estimate | None
    nominal_s: float


def lesson_of(proposal: Proposal, analysis: Analysis, experiment: str) -> Lesson | None:
    """The claim that an experiment supports, where its difference is clear of zero."""
    gap = analysis.difference
    if gap is None or analysis.against is None or analysis.verdict not in ("better", "worse", "raced"):
        return None
    way = "helped" if analysis.verdict == "better" else "did harm"
    return Lesson(
        claim=f"{proposal.kind}: {proposal.change} {way} ({gap.value:+.3f}) against {analysis.against}",
        experiments=(analysis.against, experiment),
        effect=Estimate(value=gap.value, low=gap.low, high=gap.high, n=gap.n),
        scope="this task, search split",
    )


def what_was_tried(tree: Tree) -> tuple[Tried, ...]:
    """One row for each kind of change, most tried first; references are left out."""
    kinds = dict.fromkeys(node.proposed.proposal.kind for node in tree.all())
    rows = [_row(kind, tree) for kind in kinds if not kind.startswith("reference.")]
    return tuple(sorted(rows, key=lambda row: (-row.tries, row.kind)))


def _row(kind: str, tree: Tree) -> Tried:
    nodes = [node for node in tree.all() if node.proposed.proposal.kind == kind]
    analyses = [node.analysis for node in nodes if node.analysis is not None]
    gaps = [a.difference for a in analyses if a.difference is not None]
    return Tried(
        kind=kind,
        tries=len(nodes),
        better=sum(a.verdict == "better" for a in analyses),
        worse=sum(a.verdict in ("worse", "raced") for a in analyses),
        failed=sum(a.verdict == "failed" for a in analyses),
        effect=_pooled([(g.value, g.low, g.high) for g in gaps]),
        nominal_s=round(mean(node.proposed.nominal_s for node in nodes), 1),
    )


def _pooled(gaps: list[tuple[float, float, float]]) -> Estimate | None:
    """The mean effect. One experiment keeps its own interval; several get a normal interval of their spread."""
    if not gaps:
        return None
    if len(gaps) == 1:
        value, low, high = gaps[0]
        return Estimate(value=value, low=low, high=high, n=1)
    values = [value for value, _, _ in gaps]
    half = Z * stdev(values) / len(values) ** 0.5
    middle = mean(values)
    return Estimate(value=middle, low=middle - half, high=middle + half, n=len(values))
