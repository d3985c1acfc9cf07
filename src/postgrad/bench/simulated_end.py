"""Fresh ground in a simulated run: tests on select items, and the choice of what is delivered, as `certify` does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from postgrad.bench.simulated_parts import gap_of, parts_of
from postgrad.certify import FINALISTS, SELECT_SEED
from postgrad.evaluate.statistics.finalists import combined
from postgrad.evaluate.statistics.known import item_variance
from postgrad.events import Tested
from postgrad.pare import simpler
from postgrad.records import Failure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from postgrad.bench.simulated import SimulatedRun


def fresh(run: SimulatedRun, name: str) -> None:
    """Train an experiment's recipe with a fresh seed and ask it the select items, unless that was done."""
    if name not in run.select:
        proposal = run.tree[name].proposed.proposal
        result = run.landscape.train(proposal.recipe, proposal.seed + SELECT_SEED)
        run.select[name] = None if isinstance(result, Failure) else result.select


def tested(run: SimulatedRun, name: str) -> None:
    """Test an experiment against what was kept before; both were asked the select items."""
    judge, kept = run.judge, run.judge.kept
    assert kept is not None
    mine, theirs = run.select[name], run.select[kept]
    if mine is None or theirs is None:
        judge.untestable(name)
        return
    for each, values in ((kept, theirs), (name, mine)):
        if judge.needs_fresh(each):
            judge.fresh(each, values)
    found = judge.test(name)
    keep = found.verdict == "keep"
    run.out.keeps += keep
    run.out.false_keeps += keep and run.truth(name) <= run.truth(kept)
    gap = gap_of(mine, theirs, _seed_noise(run, name, kept)).model_copy(update={"p": found.p})
    event = Tested(experiment=name, against=kept, difference=gap, level=found.level, kept=keep, champion=judge.leader)
    node = replace(run.tree[name], tested=event)
    # The champion of a view is that of the last experiment that ended: what the test changed shows with the next one.
    run.tree = run.tree.with_experiments((node,), run.tree.champion)


def delivered(run: SimulatedRun) -> None:
    """Choose among the finalists and fill in the outcome: the best posterior mean of search and select together, or a
    cheaper one that is behind by less than `min_effect` and not shown to be worse."""
    judge, out = run.judge, run.out
    ranked = judge.ranked()
    chosen = ranked[:FINALISTS]
    if judge.kept is not None and judge.kept in ranked and judge.kept not in chosen:
        chosen.append(judge.kept)
    if judge.leader in ranked and judge.leader not in chosen and run.paring.decided:
        chosen[-1] = judge.leader
    if not chosen:
        out.final = run.truth(None)
        return
    champion = chosen[0]
    if len(chosen) > 1:
        out.final_trainings = sum(name not in run.select for name in chosen)
        for name in chosen:
            fresh(run, name)
        stood = {name: values for name in chosen if (values := run.select[name]) is not None}
        champion = _winner(run, stood) if stood else champion
    measured = all(run.select.get(name or "") is not None for name in (champion, judge.kept))
    if champion != judge.kept and run.tree[champion].tested is None and measured:
        tested(run, champion)
    out.final, out.parts = run.truth(champion), parts_of(run.recipe(champion))
    first = next(iter(run.tree.experiments))
    out.claimed = judge.merit(champion) - (out.final - run.truth(first))


def _winner(run: SimulatedRun, stood: dict[str, NDArray[np.float64]]) -> str:
    judge = run.judge
    first = next(iter(stood))
    start, doubt = judge.merit(first), judge.doubt(first)
    merits = {first: 0.0}

    def as_good(first: str, second: str) -> bool:
        gap = gap_of(stood[first], stood[second], 0.0)
        return gap.value < run.task.min_effect and gap.low <= 0

    for name, values in stood.items():
        if name != first:
            pairs = values - stood[first]
            noise = item_variance(pairs, judge.unit) + _seed_noise(run, name, first)
            believed = judge.merit(name) - start
            merits[name], _ = combined(believed, judge.doubt(name) + doubt, float(pairs.mean()), noise)
    best = max(merits, key=lambda name: (merits[name], -run.tree[name].index))
    best = simpler(best, run.paring.decided, lambda first, second: second in stood and as_good(first, second))
    costs = {name: run.tree[name].proposed.nominal_s for name in stood}
    for name in sorted((name for name in stood if costs[name] < costs[best]), key=lambda name: costs[name]):
        if as_good(best, name):
            return name
    return best


def _seed_noise(run: SimulatedRun, *names: str) -> float:
    """Variance through seeds of a difference of single trainings."""
    return sum(run.judge.seed_variance(run.family(run.recipe(name))) for name in names)
