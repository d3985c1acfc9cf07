"""The playbook: a researcher without a language model. It knows a table of moves and learns which kinds of them pay.

Kinds are compared by Thompson sampling (Thompson 1933) on gain per nominal cost: each kind has a normal belief about
its effect, started at the table's prior and updated with the differences that this run's analyses report. Nominal cost
is a function of the recipe, so a replayed run makes the same choices.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Callable

from postgrad.groups import has_child
from postgrad.records import Choice, Move, Proposal, RootCause, TaskSpec
from postgrad.research.base import Context
from postgrad.research.drafts import DRAFT_PRIOR, Draft, drafts, starting_points, starts_of
from postgrad.research.ideas import Ask, Idea, changed, recipe_of
from postgrad.research.learning import Belief, belief, prior_of, worth
from postgrad.research.moves import plays_of
from postgrad.research.priors import TUNE_PRIOR
from postgrad.research.promises import promises
from postgrad.research.recombine import ablate, combine
from postgrad.research.repairs import repaired
from postgrad.research.tuner import alike, described, suggestions
from postgrad.tree import Experiment, Tree

OVERHEAD_S = 10.0
COMPOSED = "draft.composed"

Maker = Callable[[Ask], Idea | None]


class Playbook:
    """The researcher."""

    def propose(self, task: TaskSpec, choice: Choice, context: Context) -> Proposal:
        """Answer a choice. Where its move has nothing new, fall back on the same experiment: improve, tune; then draft,
        improve the best, replicate."""
        ask = Ask(task, choice, context)
        for move, about in self._order(ask):
            idea = MAKERS[move](about)
            if idea is not None and not context.barred(idea.kind):
                return _proposal(ask, move, idea)
        return _proposal(ask, Move.DRAFT, _last_resort(ask))

    def _order(self, ask: Ask) -> list[tuple[Move, Ask]]:
        """Moves in the order they are tried, each with the experiment it is tried on, and each once."""
        order = [(ask.choice.move, ask)]
        if ask.parent is not None:
            here = ask.about(ask.parent, Move.IMPROVE)
            order += [(Move.IMPROVE, here), (Move.TUNE, here)]
        order.append((Move.DRAFT, ask))
        leader = ask.tree.leader()
        if leader is not None:
            there = ask.about(leader, Move.IMPROVE)
            order += [(Move.IMPROVE, there), (Move.TUNE, there), (Move.REPLICATE, there)]
        once: dict[tuple[Move, str | None], tuple[Move, Ask]] = {}
        for move, about in order:
            once.setdefault((move, about.choice.parent), (move, about))
        return list(once.values())


def draft(ask: Ask) -> Idea | None:
    """The next starting point whose structure is not in the tree yet; of one base model's, the one that finished runs
    found best comes first."""
    for found in starting_points(ask.task, ask.context.rng, ask.context.priors):
        if ask.context.barred(found.kind):
            continue
        composed = found.kind == COMPOSED
        recipe = ask.fresh(found.recipe, near=composed)
        moved = composed and recipe != found.recipe
        if recipe is not None and (moved or not alike(ask.tree, recipe)):
            return _drafted(replace(found, recipe=recipe), _prior(ask, found.kind, DRAFT_PRIOR).mean)
    return None


def _prior(ask: Ask, kind: str, known: Belief) -> Belief:
    return prior_of(kind, known, ask.context.priors)


def _drafted(found: Draft, gain: float = DRAFT_PRIOR.mean) -> Idea:
    return Idea(
        found.kind,
        found.change,
        f"A different starting point may lead higher: {found.change}.",
        found.recipe,
        round(gain, 4),
        "it and what is built on it stay behind the other starting points",
    )


def improve(ask: Ask) -> Idea | None:
    """The move with the best sampled gain per cost among those that are new for the parent."""
    parent = ask.parent
    if parent is None:
        return None
    base = recipe_of(parent)
    promised = promises(parent.analysis)
    best: tuple[float, Idea] | None = None
    for play in plays_of(ask.task):
        learnt = belief(play.kind, _prior(ask, play.kind, Belief(play.gain, play.spread)), ask.tree)
        if play.kind in promised:
            learnt = learnt.updated(promised[play.kind].gain, promised[play.kind].sd ** 2)
        drawn = learnt.draw(ask.context.rng)
        closed = ask.context.barred(play.kind) or has_child(ask.tree, parent.id, play.kind)
        after = None if closed else changed(play, base, ask.task)
        recipe = None if after is None else ask.fresh(after)
        if recipe is None:
            continue
        value = worth(drawn, OVERHEAD_S + ask.context.nominal_s(recipe))
        if best is None or value > best[0]:
            cause = f" {promised[play.kind].words}" if play.kind in promised else ""
            why = f"{play.hypothesis}{cause} With this change: {play.change}."
            best = value, Idea(play.kind, play.change, why, recipe, learnt.mean, play.refuted_by, parent.id)
    return best[1] if best else None


def tune(ask: Ask) -> Idea | None:
    """New numbers for the parent's structure."""
    parent = ask.parent
    if parent is None:
        return None
    base = recipe_of(parent)
    for suggested in suggestions(ask.tree, base, ask.context.rng):
        recipe = ask.fresh(suggested)
        if recipe is not None and (change := described(base, recipe)):
            learnt = belief("tune", _prior(ask, "tune", TUNE_PRIOR), ask.tree)
            why = "By the numbers tried so far in this structure (TPE), these are the likeliest to do better."
            refuted = "the score is not above that of the numbers before"
            return Idea("tune", change, why, recipe, learnt.mean, refuted, parent.id)
    return None


def repair(ask: Ask) -> Idea | None:
    """The failed recipe with the one change that its failure asks for."""
    if ask.choice.parent is None:
        return None
    node = ask.tree[ask.choice.parent]
    root = node.analysis.root if node.analysis else None
    if root is not None and root.repair is not None and _in_a_row(ask.tree, node, root) > root.repair.most:
        root = None
    found = repaired(recipe_of(node), node.failure, root) if node.failure else None
    recipe = ask.fresh(found[1]) if found else None
    if node.failure is None or found is None or recipe is None:
        return None
    change = found[0]
    cause = f" ({root.cause}: {root.lesson})" if root is not None else ""
    why = f"{node.id} ended with {node.failure.boundary}/{node.failure.kind}{cause}; {change} should get it through."
    kind = f"repair.{node.failure.kind}"
    return Idea(kind, change, why, recipe, refuted_by="it fails in the same way", parent=node.id)


def _in_a_row(tree: Tree, node: Experiment, root: RootCause) -> int:
    """How many experiments in a row, this one the last, failed for the same cause."""
    count = 1
    while node.parent is not None and (above := tree[node.parent].analysis) is not None:
        if above.root is None or above.root.cause != root.cause:
            break
        node, count = tree[node.parent], count + 1
    return count


def replicate(ask: Ask) -> Idea | None:
    """The parent's recipe with a seed of its own: never a new recipe."""
    parent = ask.parent
    if parent is None:
        return None
    return Idea(
        "replicate",
        f"{parent.id} again with another seed",
        f"How much of the score of {parent.id} is training noise: another seed should score about the same.",
        recipe_of(parent),
        refuted_by="the two scores differ by more than the intervals of their items say",
        parent=parent.id,
    )


def _last_resort(ask: Ask) -> Idea:
    """The cheapest starting point with a seed of its own: nothing has a score, and nothing new can be paid for."""
    bases = ask.task.base_models or (None,)
    found = [each for base in bases for each in starts_of(ask.task, base)] if _in_words(ask) else [*drafts(None)]
    cheapest = min(found, key=lambda one: ask.context.nominal_s(one.recipe))
    return _drafted(cheapest)


def _in_words(ask: Ask) -> bool:
    return ask.task.kind == "generation"


MAKERS: dict[Move, Maker] = {
    Move.DRAFT: draft,
    Move.IMPROVE: improve,
    Move.TUNE: tune,
    Move.COMBINE: combine,
    Move.ABLATE: ablate,
    Move.REPAIR: repair,
    Move.REPLICATE: replicate,
}


def _proposal(ask: Ask, move: Move, idea: Idea) -> Proposal:
    """The idea as a record; it names the choice it answers where that is not the one that was asked."""
    asked = ask.choice
    carried_out, note = None, ""
    if move is not asked.move or idea.parent != asked.parent:
        wanted = asked.move.value if asked.parent is None else f"{asked.move.value} of {asked.parent}"
        note = f" Chosen because {wanted} had nothing new to offer."
        reason = f"{asked.reason}; {wanted} had nothing new".removeprefix("; ")
        carried_out = Choice(parent=idea.parent, move=move, other=idea.other, reason=reason)
    known = ask.tree.has_tried(idea.recipe)
    return Proposal(
        recipe=idea.recipe,
        kind=idea.kind,
        hypothesis=idea.hypothesis + note,
        change=idea.change,
        expected_effect=round(idea.gain, 4),
        refuted_by=idea.refuted_by,
        proposer="playbook",
        seed=ask.task.seed + 1 + ask.context.index if known else ask.task.seed,
        carried_out=carried_out,
    )
