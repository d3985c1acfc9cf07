"""What is kept of devices and money for the end of a run, and whether anything is left for another experiment.

The clock has a reserve of its own (`certify.finish_reserve_s`): trainings of the end run side by side on it, and their
devices and dollars add up.
"""

from __future__ import annotations

from typing import Iterator

from postgrad.budget import HOUR
from postgrad.certify import RESERVE_CAP, RESERVE_START, ranked_finalists, references
from postgrad.evaluate.hardware import APART, MOST_APART
from postgrad.session import Session
from postgrad.spending import cost_of, hardware_of

NAMES = {"gpu_hours": "GPU hours", "usd": "dollars"}


def finish_job_s(session: Session) -> float | None:
    """Seconds of all trainings of the end, summed; None while nothing is known of them."""
    finalists = ranked_finalists(session)
    if not finalists:
        return None
    recipes = [node.proposed.proposal.recipe for node in finalists]
    select = sum(session.forecast_s(recipe, session.plan.select) for recipe in recipes) if len(recipes) > 1 else 0.0
    unit = (session.sealed_unit,)
    others = [session.forecast_s(node.proposed.proposal.recipe, unit) for node in references(session).values()]
    return select + max(session.forecast_s(recipe, unit) for recipe in recipes) + sum(others)


def kept_back(session: Session) -> dict[str, float]:
    """Limit -> how much of it certifying and sealing need, at the measured pace; at most a share of what is granted."""
    granted = session.ledger.granted
    limits = {name: limit for name in NAMES if (limit := getattr(granted, name))}
    if not limits:
        return {}
    seconds = finish_job_s(session)
    if seconds is None:
        needs = {name: RESERVE_START * limit for name, limit in limits.items()}
    else:
        cost = cost_of(session, seconds)
        needs = {"gpu_hours": cost.gpu_s / HOUR, "usd": cost.usd}
    return {name: min(RESERVE_CAP * limit, needs[name]) for name, limit in limits.items() if _costs(session, name)}


def _costs(session: Session, name: str) -> bool:
    """True where jobs use any of it: dollars may be meant for language models alone."""
    one = cost_of(session, 1.0)
    return (one.gpu_s if name == "gpu_hours" else one.usd) > 0.0


def spent_up(session: Session) -> str | None:
    """Why no further experiment may begin; None where one may."""
    remaining = session.remaining()
    if remaining.empty:
        return "the budget is spent"
    granted = session.ledger.granted
    near = [
        name for name in NAMES if (most := getattr(granted, name)) and getattr(remaining, name) <= RESERVE_CAP * most
    ]
    for name, needs in kept_back(session).items() if near else ():
        if getattr(remaining, name) <= needs:
            return f"the budget of {NAMES[name]} is spent, less what certifying needs"
    return _elsewhere(session)


def only_promised(session: Session) -> bool:
    """Whether a budget of devices or money is spent by nothing but what jobs under way are expected to use: they may
    use less."""
    if spent_up(session) is None:
        return False
    left, granted, spent = session.remaining(), session.ledger.granted, session.ledger.spent
    if any(each is not None and each <= 0 for each in (left.wall_s, left.cpu_hours, left.experiments)):
        return False
    used, needs = {"gpu_hours": spent.gpu_s / HOUR, "usd": spent.usd}, kept_back(session)
    limits = {name: limit for name in NAMES if (limit := getattr(granted, name))}
    return bool(limits) and all(limit - used[name] > needs.get(name, 0.0) for name, limit in limits.items())


def _elsewhere(session: Session) -> str | None:
    """Why a search is over whose jobs all run on another kind of hardware now: none of them can be compared."""
    ended = [node for node in session.tree.all()[-2 * MOST_APART :] if node.analysis is not None][-MOST_APART:]
    found = [node.failure for node in ended if node.failure is not None and node.failure.kind == APART]
    if len(found) < MOST_APART:
        return None
    return f"the last {MOST_APART} trainings ran on another kind of hardware than the first, and say nothing beside it"


def wall_limits(session: Session) -> Iterator[float]:
    """Wall seconds that one more experiment may take by each budget of cores, devices and money, its own and the
    run's; none where nothing of that is limited."""
    own, remaining = session.task.experiment, session.remaining()
    one, threads = cost_of(session, 1.0), max(1, hardware_of(session).threads)
    if own.wall_s is not None:
        yield own.wall_s
    if own.cpu_hours is not None:
        yield own.cpu_hours * HOUR / threads
    costs = {"gpu_hours": one.gpu_s / HOUR, "usd": one.usd}
    for name, cost in costs.items():
        if cost and (most := getattr(own, name)) is not None:
            yield most / cost
    for name, needs in kept_back(session).items():
        left = getattr(remaining, name)
        yield max(0.0, min(left - needs, left / (1 + session.final_share))) / costs[name]
