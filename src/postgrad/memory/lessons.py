"""Analysis -> lesson. A lesson always names its evidence. What was tried is summed up by the report."""

from __future__ import annotations

from postgrad.records import Analysis, Estimate, Lesson, Proposal


def lesson_of(proposal: Proposal, analysis: Analysis, experiment: str) -> Lesson | None:
    """The claim that an experiment supports, or None: only a difference that is clear of zero supports one."""
    gap = analysis.difference
    if gap is None or analysis.against is None or analysis.subject is not None or gap.low <= 0 <= gap.high:
        return None
    way = "helped" if gap.value > 0 else "did harm"
    expected = f"expected {proposal.expected_effect:+.3f}"
    return Lesson(
        claim=f"{proposal.kind}: {proposal.change}: {way} ({gap.value:+.3f}, {expected}) against {analysis.against}",
        experiments=(analysis.against, experiment),
        effect=Estimate(value=gap.value, low=gap.low, high=gap.high, n=gap.n),
        scope="this task, search split",
    )
