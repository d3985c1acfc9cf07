"""Trees made by hand: experiments written down as one line each, folded from real events. The numbers mean nothing."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Iterable, Iterator, Literal

from postgrad.events import Analysed, Body, Evaluated, JobFinished, JobStarted, Proposed
from postgrad.records import Analysis, Choice, Difference, Failure, Move, Proposal, Recipe, Stage
from postgrad.testing.events import evaluated, job_finished, job_started, numbered
from postgrad.tree import Tree

Ended = Literal["done", "pending", "failed", "raced", "unscored"]
HALF_WIDTH = 0.02


@dataclass(frozen=True)
class Node:
    """One experiment. Without `recipe` it is a classic one whose `C` makes it unlike the others.

    Attributes:
        score: search score of a done one.
        gap: difference to the parent; None takes it from the scores of both.
        failure: "boundary/kind" of a failed one.
        against: what it was compared with; None is the parent.
    """

    id: str
    parent: str | None = None
    score: float = 0.5
    state: Ended = "done"
    kind: str = "draft.classic"
    move: Move | None = None
    other: str | None = None
    recipe: Recipe | None = None
    failure: str = "train/nan"
    gap: float | None = None
    against: str | None = None
    nominal_s: float = 10.0
    seed: int = 0


def tree_of(nodes: Iterable[Node]) -> Tree:
    """The tree that the events of these experiments give."""
    return Tree.from_events(numbered(_bodies(tuple(nodes))))


def interleaved(nodes: Iterable[Node], rng: Random) -> Tree:
    """The tree of the same experiments whose jobs ended in another order, as with several workers. Experiments are
    proposed and analysed in index order all the same."""
    queues: dict[str, list[Body]] = {}
    for body in _bodies(tuple(nodes)):
        queues.setdefault(_experiment(body), []).append(body)
    ordered: dict[str, list[str]] = {
        kind: [name for name, queue in queues.items() if any(body.type == kind for body in queue)]
        for kind in ("proposed", "analysed")
    }
    mixed: list[Body] = []
    while queues:
        name = rng.choice([name for name, queue in queues.items() if ordered.get(queue[0].type, [name])[0] == name])
        body = queues[name].pop(0)
        mixed.append(body)
        if body.type in ordered:
            ordered[body.type].pop(0)
        if not queues[name]:
            del queues[name]
    return Tree.from_events(numbered(mixed))


def _experiment(body: Body) -> str:
    if isinstance(body, Evaluated):
        return body.evaluation.experiment
    assert isinstance(body, Proposed | JobStarted | JobFinished | Analysed)
    return body.experiment


def _bodies(nodes: tuple[Node, ...]) -> Iterator[Body]:
    scores: dict[str, float] = {}
    champion: str | None = None
    for number, node in enumerate(nodes):
        yield _proposed(node, number, champion)
        yield job_started(node.id)
        if node.state == "pending":
            continue
        boundary, kind = node.failure.split("/")
        failure = Failure.model_validate({"boundary": boundary, "kind": kind, "message": "It did not work."})
        yield job_finished(node.id, failure=failure if node.state == "failed" else None)
        if node.state == "done":
            yield evaluated(node.id, node.score)
            scores[node.id] = node.score
            champion = max(scores, key=lambda name: scores[name])
        yield Analysed(experiment=node.id, analysis=analysis_of(node, scores), champion=champion)


def _proposed(node: Node, number: int, champion: str | None) -> Proposed:
    recipe = node.recipe or Recipe(stage=Stage(backend="classic", params={"C": 1.0 + number}))
    proposal = Proposal(
        recipe=recipe,
        kind=node.kind,
        hypothesis="It may help.",
        change="something",
        expected_effect=0.01,
        refuted_by="no gain",
        proposer="hand",
        seed=node.seed,
    )
    move = node.move or (Move.DRAFT if node.parent is None else Move.IMPROVE)
    choice = Choice(parent=node.parent, move=move, other=node.other)
    return Proposed(experiment=node.id, choice=choice, proposal=proposal, incumbent=champion, nominal_s=node.nominal_s)


def analysis_of(node: Node, scores: dict[str, float]) -> Analysis:
    """The analysis of an ended experiment; `scores` holds those of the scored ones so far."""
    if node.state in ("failed", "unscored"):
        return Analysis.model_validate({"verdict": node.state, "against": None, "difference": None, "cause": "by hand"})
    against = node.against or node.parent
    gap = node.gap
    if gap is None and against in scores and node.state == "done":
        gap = node.score - scores[against]
    if gap is None or against is None:
        verdict = "raced" if node.state == "raced" else "tie"
        return Analysis.model_validate({"verdict": verdict, "against": None, "difference": None, "cause": "by hand"})
    low, high = gap - HALF_WIDTH, gap + HALF_WIDTH
    verdict = "raced" if node.state == "raced" else "better" if low > 0 else "worse" if high < 0 else "tie"
    difference = Difference(value=gap, low=low, high=high, p=0.5, n=100)
    return Analysis.model_validate(
        {"verdict": verdict, "against": against, "difference": difference, "cause": "by hand"}
    )
