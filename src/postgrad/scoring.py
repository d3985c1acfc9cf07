"""The referee's measurement of what an experiment has answered so far on the search split."""

from __future__ import annotations

from postgrad.evaluate.evaluator import measure
from postgrad.events import Evaluated
from postgrad.metrics.items import dump_items
from postgrad.records import Evaluation
from postgrad.session import Session
from postgrad.tree import Experiment


def evaluate_search(session: Session, node: Experiment) -> None:
    """Append the evaluation of the units that an experiment has finished."""
    proposal = node.proposed.proposal
    parts = session.raw_items(node.id, "search")
    measured, items = measure(
        parts, session.task.metric, proposal.recipe.inference, session.plan, seed=session.task.seed
    )
    stored = session.store.artifacts.put_bytes(dump_items(items))
    session.append(
        Evaluated(
            evaluation=Evaluation(
                experiment=node.id,
                split="search",
                seed=proposal.seed,
                metric=session.task.metric,
                items=stored,
                units=len(parts),
                units_planned=len(session.plan.search),
                guards=session.guard_values(node.id, "search", items, measured.threshold),
                **measured.model_dump(),
            )
        )
    )
