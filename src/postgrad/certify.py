"""After the search: the finalists are trained again with fresh seeds, and the select split names the champion.

Does what is owed and can be entered again after a kill. Reads no sealed label: `seal.py` comes after it.
"""

from __future__ import annotations

from typing import Callable, Sequence

from postgrad.errors import PostgradError
from postgrad.evaluate.evaluator import frozen_threshold, measure
from postgrad.evaluate.statistics import difference
from postgrad.evaluate.statistics.finalists import combined
from postgrad.events import Certified, Evaluated
from postgrad.execute.foreign import runs_foreign_code
from postgrad.metrics import metric_of
from postgrad.metrics.items import dump_items, join, load_items
from postgrad.pare import simpler
from postgrad.records import Difference, Evaluation, Recipe, Split
from postgrad.referee import Referee
from postgrad.research.references import ROLES, reference_recipes
from postgrad.session import Job, Session
from postgrad.tree import Experiment, best_first

RunJobs = Callable[[Sequence[Job], str], None]

FINALISTS = 3
SELECT_SEED = 1000
RESERVE_CAP = 0.4
RESERVE_START = 0.2


def ranked_finalists(session: Session) -> list[Experiment]:
    """The best experiments by search score, one for each recipe, references included. None of them breaks a guard."""
    seen: set[str] = set()
    chosen = []
    for node in session.tree.scored():
        name = node.proposed.proposal.recipe.hash
        if name not in seen and node.evaluation is not None and session.guards_hold(node.evaluation):
            seen.add(name)
            chosen.append(node)
        if len(chosen) == FINALISTS:
            break
    return chosen


def finalists(session: Session, referee: Referee) -> list[str]:
    """What is trained again for the select split: the best by posterior mean, and what was kept last."""
    ranked = [node for node in referee.ranked() if node.evaluation and session.guards_hold(node.evaluation)]
    if not ranked:
        return [node.id for node in ranked_finalists(session)]
    pared = session.tree.champion if referee.paring.decided else None
    return seats([node.id for node in ranked], pared, referee.kept)


def seats(ranked: Sequence[str], pared: str | None, kept: str | None) -> list[str]:
    """Who is trained again: the first of the ranked ones, what was left of the champion in place of the last of them,
    and besides what was kept last, which the last claim is tested against."""
    chosen = list(ranked[:FINALISTS])
    if pared in ranked and pared not in chosen:
        chosen[-1] = str(pared)
    if kept in ranked and kept not in chosen:
        chosen.append(str(kept))
    return chosen


def finish_reserve_s(session: Session) -> float:
    """Wall seconds to keep for certifying and sealing, at the measured speed; at most a share of the budget."""
    granted = session.ledger.granted.wall_s
    if granted is None:
        return 0.0
    finalists = ranked_finalists(session)
    if not finalists:
        return RESERVE_START * granted
    select = _side_by_side_s(session, [session.forecast_s(_recipe(n), session.plan.select) for n in finalists])
    return min(RESERVE_CAP * granted, select + _final_s(session, finalists))


def affordable_s(session: Session) -> float | None:
    """Nominal seconds that one more experiment may have: what the wall-clock budget still holds less what certifying
    needs, with room for its own final training. None without such a budget."""
    wall = session.remaining().wall_s
    if wall is None:
        return None
    most = min(wall - finish_reserve_s(session), wall / (1 + session.final_share))
    return max(0.0, most) / session.pace.overall()


def _recipe(node: Experiment) -> Recipe:
    return node.proposed.proposal.recipe


def _side_by_side_s(session: Session, costs: Sequence[float]) -> float:
    """Wall seconds of jobs that share the workers."""
    return max(sum(costs) / session.executor.engine.slots, max(costs))


def _final_s(session: Session, finalists: Sequence[Experiment]) -> float:
    """Wall seconds of the final trainings: the dearest finalist, in case it wins, and the references."""
    unit = (session.sealed_unit,)
    others = [session.forecast_s(_recipe(node), unit) for node in references(session).values()]
    return _side_by_side_s(session, [max(session.forecast_s(_recipe(n), unit) for n in finalists), *others])


def certify(session: Session, referee: Referee, run_jobs: RunJobs) -> None:
    """Train the finalists again with fresh seeds on other folds, and let `select` name the champion."""
    ended = session.search_ended
    assert ended is not None
    if not ended.finalists:
        raise PostgradError(
            "No experiment gave a score and kept every guard, so there is no champion. "
            f"`postgrad show {session.run}` lists what failed and why; the task's guards may be out of reach."
        )
    entered = [session.tree[name] for name in ended.finalists if not _out(session, name)]
    affordable = _affordable(session, entered) if entered else []
    if len(affordable) > 1:
        run_jobs([job for node in affordable for job in select_jobs(session, node)], "comparing finalists")
        for node in affordable:
            evaluate_select(session, node)
    left = [session.tree[node.id] for node in affordable if not _out(session, node.id)]
    if not left:
        left = [node for node in entered if not _out(session, node.id)][:1]
    if not left:
        raise PostgradError(_nobody(session, ended.finalists))
    scored = [node for node in left if node.select]
    champion, reason = _winner(session, referee, scored) if scored else (left[0], _why_not(affordable))
    tested = _last_test(session, referee, champion)
    gone = [f"{name} was put aside: {why}" for name in ended.finalists if (why := _out(session, name))]
    lost = [said for node in entered if (said := _lost(session, node))]
    _append_certified(session, champion, "; ".join([reason, *filter(None, [tested]), *gone, *lost]))


def _lost(session: Session, finalist: Experiment) -> str | None:
    """What is said of the trainings of a finalist's recipe that failed, with whatever seed: one that works only now and
    then is not as good as what it scored when it did. What the run itself ended is no failure of it."""
    same = session.tree.all_with(_recipe(finalist))
    splits: tuple[Split, ...] = ("search", "select")
    jobs = [result for node in same for split in splits for result in session.results(node.id, split)]
    found = [job.failure for job in jobs if job.failure is not None and job.failure.boundary != "controller"]
    if not found:
        return None
    kinds = ", ".join(sorted({f"{each.boundary}/{each.kind}" for each in found}))
    return f"{len(found)} of {len(jobs)} trainings of {finalist.id} before the end failed ({kinds})"


def _out(session: Session, experiment: str) -> str | None:
    """Why a finalist cannot be the champion, or None: its final model was refused, or it broke a guard on select."""
    if why := session.refused(experiment):
        return why
    for evaluation in session.tree[experiment].select:
        if wrong := session.broken_guards(evaluation):
            return f"trained again for the select split, {' and '.join(wrong)}"
    return None


def _nobody(session: Session, finalists: Sequence[str]) -> str:
    """The message for a run whose finalists all broke something."""
    said = "\n".join(f"  {name}: {_out(session, name)}" for name in finalists)
    return (
        f"There is no champion: every finalist was put aside.\n{said}\nThe sealed split was not read. Widen the guards "
        f"that are out of reach, or give more budget, and start another run; `postgrad show {session.run}` lists what "
        "the others scored."
    )


def _why_not(affordable: list[Experiment]) -> str:
    if len(affordable) > 1:
        return "the best search score; no training of a finalist for the select split gave a number"
    if len(affordable) == 1:
        return "the best search score; nothing else was close enough in the budget to be compared on select"
    return "the best search score; the budget left no room for the select split"


def _affordable(session: Session, finalists: list[Experiment]) -> list[Experiment]:
    """As many finalists, best first, as the wall-clock budget can compare; all where it has none. What was compared
    before a kill costs nothing any more."""
    wall = session.remaining().wall_s
    if wall is None:
        return finalists
    final = _final_s(session, finalists)
    for count in range(len(finalists), 1, -1):
        owed = [n for n in finalists[:count] if any(j.id not in session.finished for j in select_jobs(session, n))]
        costs = [session.forecast_s(_recipe(n), session.plan.select) for n in owed]
        if not owed or _side_by_side_s(session, costs) + final <= wall:
            return finalists[:count]
    return finalists[:1]


def select_jobs(session: Session, node: Experiment) -> list[Job]:
    """One job with all folds; one for each fold where the recipe runs code of another package."""
    proposal = node.proposed.proposal
    units = session.plan.select
    groups = [(unit,) for unit in units] if runs_foreign_code(proposal.recipe) else [units]
    return [Job(node.id, "select", group, proposal.recipe, proposal.seed + SELECT_SEED) for group in groups]


def evaluate_select(session: Session, node: Experiment) -> bool:
    """Append the select evaluation of a finalist, unless it is there already; False where its training failed."""
    if session.tree[node.id].select:
        return True
    if any(result.failure for result in session.results(node.id, "select")):
        return False
    proposal = node.proposed.proposal
    parts = session.raw_items(node.id, "select")
    measured, items = measure(
        parts, session.task.metric, proposal.recipe.inference, session.plan, seed=session.task.seed
    )
    evaluation = Evaluation(
        experiment=node.id,
        split="select",
        seed=proposal.seed + SELECT_SEED,
        metric=session.task.metric,
        items=session.store.artifacts.put_bytes(dump_items(items)),
        units=len(parts),
        units_planned=len(session.plan.select),
        guards=session.guard_values(node.id, "select", items, measured.threshold),
        **measured.model_dump(),
    )
    session.append(Evaluated(evaluation=evaluation))
    return True


def _winner(session: Session, referee: Referee, scored: list[Experiment]) -> tuple[Experiment, str]:
    """The best posterior mean of search and select together; a finalist that lacks a change of it, or a cheaper one,
    wins when it is behind by less than the task's `min_effect` on select and the interval of that difference holds
    zero."""
    merits = _posterior(referee, scored)
    ranked = sorted(scored, key=lambda node: (-merits[node.id], node.index))
    best, why = ranked[0], f"the best posterior mean of {len(ranked)} finalists, search and select together"
    metric = metric_of(session.task.metric)
    read = session.store.artifacts.read

    def behind(node: Experiment, first: Experiment) -> Difference:
        items = (load_items(read(each.select[-1].items)) for each in (first, node))
        return difference(metric, *items, seed=session.task.seed)

    def stands(first: str, second: str) -> bool:
        return second in merits and _as_good(session, behind(session.tree[second], session.tree[first]))

    pared = simpler(best.id, referee.paring.decided, stands)
    if pared != best.id:
        gap = behind(session.tree[pared], best)
        why = (
            f"it lacks a change of {best.id} and is not shown to be worse on select "
            f"({gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}])"
        )
        best = session.tree[pared]
    for node in sorted(scored, key=lambda node: node.proposed.nominal_s):
        if node.proposed.nominal_s >= best.proposed.nominal_s:
            continue
        gap = behind(node, best)
        if _as_good(session, gap):
            return node, (
                f"{node.id} is cheaper than {best.id} and not shown to be worse on select "
                f"({gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}])"
            )
    return best, why


def _as_good(session: Session, behind: Difference) -> bool:
    """True where a finalist that is behind by so much may take the place of a better one."""
    return behind.value < session.task.min_effect and behind.low <= 0


def _posterior(referee: Referee, scored: list[Experiment]) -> dict[str, float]:
    """Finalist -> posterior mean of its gain over the first of them: what the search believes, and select measured."""
    first = scored[0]
    start, doubt = referee.believed(first.id)
    merits = {first.id: 0.0}
    for node in scored[1:]:
        mean, variance = referee.believed(node.id)
        merits[node.id], _ = combined(mean - start, variance + doubt, *referee.select_noise(node, first))
    return merits


def _last_test(session: Session, referee: Referee, champion: Experiment) -> str | None:
    """Test the champion against what was kept before, where both were trained for select; in words."""
    kept = referee.kept
    tested = session.tree[champion.id].tested
    if tested is None and kept is not None and kept != champion.id and champion.select and session.tree[kept].select:
        tested = referee.tested(champion.id)
        session.append(tested)
    if tested is None or tested.difference is None:
        return None
    gap = tested.difference
    words = "kept: shown to be better than" if tested.kept else "not shown to be better than"
    return (
        f"{words} {tested.against} on select ({gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}], one-sided p "
        f"{gap.p:.2g} against {tested.level:.2g})"
    )


def _append_certified(session: Session, champion: Experiment, reason: str) -> None:
    known = references(session)
    if "baseline" not in known:
        raise PostgradError(
            "Neither the classic baseline nor the constant answer has a score, so there is nothing to compare "
            f"{champion.id} with. `postgrad show {session.run}` says why they failed."
        )
    entrants = {node.id: node for node in (champion, *known.values())}
    thresholds = {name: _threshold(session, node) for name, node in entrants.items()}
    session.append(
        Certified(
            champion=champion.id,
            baseline=known["baseline"].id,
            threshold=thresholds[champion.id],
            baseline_thresholds={name: value for name, value in thresholds.items() if name != champion.id},
            reason=reason,
        )
    )


def references(session: Session) -> dict[str, Experiment]:
    """Role -> reference experiment that has a score: the cheapest classic model, the base model, the constant.

    Only the first experiments of a run can be references: what a later proposal calls itself does not count.
    """
    count = len(reference_recipes(session.task))
    found = {
        ROLES[node.proposed.proposal.kind]: node
        for node in best_first(session.tree.all()[:count])
        if node.proposed.proposal.kind in ROLES
    }
    if "baseline" not in found and "constant" in found:
        found["baseline"] = found["constant"]
    return found


def _threshold(session: Session, node: Experiment) -> float | None:
    """From all search and select answers of an experiment together."""
    if session.plan.out_of_scope is None:
        return None
    parts = session.raw_items(node.id, "search") + session.raw_items(node.id, "select")
    return frozen_threshold(join(parts), node.proposed.proposal.recipe.inference)
