"""The playbook: a researcher without a language model. It knows a table of moves and learns which kinds of them pay.

Kinds are compared by Thompson sampling (Thompson 1933) on gain per nominal cost: each kind has a normal belief about
its effect, started at the table's prior and updated with the differences that this run's analyses report. Nominal cost
is a function of the recipe, so a replayed run makes the same choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterable

from postgrad.errors import PostgradError
from postgrad.records import Choice, Move, Proposal, Recipe, TaskSpec
from postgrad.research import edit
from postgrad.research.base import Context
from postgrad.research.moves import PLAYS, Play, drafts
from postgrad.research.repairs import repaired
from postgrad.research.tuner import suggest
from postgrad.tree import Experiment, Tree

NOISE = 0.03
OVERHEAD_S = 10.0
TUNE_EFFECT = 0.01
TRIES = 20


@dataclass(frozen=True)
class Idea:
    """A recipe with the words for it."""

    kind: str
    change: str
    hypothesis: str
    gain: float
    recipe: Recipe


class Playbook:
    """The researcher."""

    def propose(self, task: TaskSpec, choice: Choice, context: Context) -> Proposal:
        """Answer a choice; where its move has nothing new to offer, fall back to improve, tune, draft, replicate."""
        makers: dict[Move, Callable[[TaskSpec, Choice, Context], Idea | None]] = {
            Move.DRAFT: self._draft,
            Move.IMPROVE: self._improve,
            Move.TUNE: self._tune,
            Move.COMBINE: self._combine,
            Move.ABLATE: self._ablate,
            Move.REPAIR: self._repair,
        }
        order = dict.fromkeys([choice.move, Move.IMPROVE, Move.TUNE, Move.DRAFT])
        for move in order:
            maker = makers.get(move)
            idea = maker(task, choice, context) if maker else None
            if idea is not None:
                return self._proposal(task, idea, instead=move if move is not choice.move else None)
        return self._replicate(task, choice, context)

    # --- the moves ------------------------------------------------------------------------------------------------

    def _draft(self, task: TaskSpec, choice: Choice, context: Context) -> Idea | None:
        """The next starting point whose structure is not in the tree yet."""
        for base in task.base_models or (None,):
            for kind, change, recipe in drafts(base):
                if self._new(recipe, context) and self._affordable(recipe, context):
                    why = f"A different starting point: {change}."
                    return Idea(kind, change, why, 0.05, recipe)
        return None

    def _improve(self, task: TaskSpec, choice: Choice, context: Context) -> Idea | None:
        """The play with the best sampled gain per cost."""
        parent = self._parent(choice, context)
        if parent is None:
            return None
        base = parent.proposed.proposal.recipe
        best: tuple[float, Idea] | None = None
        for play in PLAYS:
            mean, sd = belief(play, context.tree)
            drawn = context.rng.gauss(mean, sd)
            if not play.applies(base, task):
                continue
            recipe = play.apply(base)
            if not (edit.valid(recipe) and self._new(recipe, context) and self._affordable(recipe, context)):
                continue
            worth = drawn / (OVERHEAD_S + context.nominal_s(recipe))
            if best is None or worth > best[0]:
                best = (worth, Idea(play.kind, play.change, play.hypothesis, mean, recipe))
        return best[1] if best else None

    def _tune(self, task: TaskSpec, choice: Choice, context: Context) -> Idea | None:
        """New numbers for the parent's structure."""
        parent = self._parent(choice, context)
        if parent is None:
            return None
        base = parent.proposed.proposal.recipe
        for attempt in range(TRIES):
            recipe = suggest(context.tree, base, seed=context.rng.randrange(2**31) + attempt)
            if recipe is None:
                return None
            if self._new(recipe, context) and self._affordable(recipe, context):
                return Idea(
                    "tune",
                    f"numbers: {described(base, recipe)}",
                    "These numbers look better than the ones tried in this structure (TPE).",
                    TUNE_EFFECT,
                    recipe,
                )
        return None

    def _combine(self, task: TaskSpec, choice: Choice, context: Context) -> Idea | None:
        """The parent's method with the other's data steps and inference."""
        parent = self._parent(choice, context)
        if parent is None or choice.other is None:
            return None
        other = context.tree[choice.other].proposed.proposal.recipe
        base = parent.proposed.proposal.recipe
        recipe = base.model_copy(update={"data": other.data, "inference": other.inference})
        if not (edit.valid(recipe) and self._new(recipe, context) and self._affordable(recipe, context)):
            return None
        change = f"the data steps and rejection rule of {choice.other}"
        return Idea("combine", change, f"What helped {choice.other} should help here too.", 0.01, recipe)

    def _ablate(self, task: TaskSpec, choice: Choice, context: Context) -> Idea | None:
        """The parent without one data step or one member: what does nothing goes."""
        parent = self._parent(choice, context)
        if parent is None:
            return None
        base = parent.proposed.proposal.recipe
        options = [(f"without the data step {s.op}", edit.without_step(base, s.op)) for s in base.data]
        found = edit.members(base)
        if len(found) > 1:
            for i, member in enumerate(found):
                rest = [*found[:i], *found[i + 1 :]]
                options.append((f"without the member {member['stage']['backend']}", edit.with_members(base, rest)))
        fresh = [(words, r) for words, r in options if edit.valid(r) and self._new(r, context)]
        if not fresh:
            return None
        change, recipe = fresh[context.rng.randrange(len(fresh))]
        return Idea("ablate", change, "It is not what makes this recipe good; simpler is better.", 0.0, recipe)

    def _repair(self, task: TaskSpec, choice: Choice, context: Context) -> Idea | None:
        """The failed parent with what its failure asks for."""
        if choice.parent is None:
            return None
        node = context.tree[choice.parent]
        if node.failure is None:
            return None
        found = repaired(node.proposed.proposal.recipe, node.failure)
        if found is None or not self._new(found[1], context):
            return None
        words = f"The failure ({node.failure.kind}) goes away with this change."
        return Idea("repair", found[0], words, 0.0, found[1])

    def _replicate(self, task: TaskSpec, choice: Choice, context: Context) -> Proposal:
        """The same recipe with a seed of its own: never a new recipe."""
        parent = self._parent(choice, context) or context.tree.best()
        if parent is None:
            raise PostgradError("No experiment has a score and no starting point is left to try.")
        idea = Idea(
            "replicate",
            f"{parent.id} again with another seed",
            "How much of the score is training noise.",
            0.0,
            parent.proposed.proposal.recipe,
        )
        return self._proposal(task, idea, instead=None, seed=task.seed + 1 + context.index)

    # --- what is shared -------------------------------------------------------------------------------------------

    def _parent(self, choice: Choice, context: Context) -> Experiment | None:
        """The experiment to extend: the choice's, if it has a score, else the best."""
        if choice.parent is not None and context.tree[choice.parent].score is not None:
            return context.tree[choice.parent]
        return context.tree.best()

    def _new(self, recipe: Recipe, context: Context) -> bool:
        return recipe.hash not in {node.proposed.proposal.recipe.hash for node in context.tree.all()}

    def _affordable(self, recipe: Recipe, context: Context) -> bool:
        return context.affordable_s is None or context.nominal_s(recipe) <= context.affordable_s

    def _proposal(self, task: TaskSpec, idea: Idea, instead: Move | None, seed: int | None = None) -> Proposal:
        note = f" (nothing new for the chosen move; {instead.value} instead)" if instead else ""
        return Proposal(
            recipe=idea.recipe,
            kind=idea.kind,
            hypothesis=idea.hypothesis + note,
            change=idea.change,
            expected_effect=round(idea.gain, 4),
            refuted_by=f"a paired difference in {task.metric} to the parent that is zero or below",
            proposer="playbook",
            seed=task.seed if seed is None else seed,
        )


def belief(play: Play, tree: Tree) -> tuple[float, float]:
    """Posterior mean and standard deviation of a kind's effect: normal prior, normal noise, known variances."""
    effects = list(_effects(play.kind, tree.all()))
    precision = 1 / play.spread**2 + len(effects) / NOISE**2
    mean = (play.gain / play.spread**2 + sum(effects) / NOISE**2) / precision
    return mean, precision**-0.5


def _effects(kind: str, nodes: Iterable[Experiment]) -> Iterable[float]:
    """Differences that experiments of a kind made; a failure counts as one noise unit lost."""
    for node in nodes:
        if node.proposed.proposal.kind != kind or node.analysis is None:
            continue
        if node.analysis.difference is not None:
            yield node.analysis.difference.value
        elif node.analysis.verdict == "failed":
            yield -NOISE


def described(before: Recipe, after: Recipe) -> str:
    """The numbers that changed, as a person reads them."""
    old, new = edit.full_params(before), edit.full_params(after)
    parts = []
    for path in edit.space_of(after):
        value = edit.get_path(new, path)
        if edit.get_path(old, path) != value:
            shown = f"{value:.3g}" if isinstance(value, float) else str(value)
            parts.append(f"{path.replace('stage.params.', '')} {shown}")
    return ", ".join(parts) or "the same"
