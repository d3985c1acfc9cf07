"""Starting points: recipes that differ in structure, cheapest first, and more of them by chance when these are used up.

What is fixed here was found on out-of-fold rows of several public intent sets, none of it tuned to one: a short
fine-tune is as good as a long one, the largest logit rejects better than the largest probability, and a tuned encoder,
the untouched encoder and TF-IDF err on different inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Iterable, Iterator, Mapping

from postgrad.records import Prior, Recipe, Stage, TaskSpec
from postgrad.research import edit, hub
from postgrad.research.ideas import changed
from postgrad.research.language import STANDS_IN, STARTS, lm_recipe, speaks
from postgrad.research.learning import Belief, prior_of
from postgrad.research.moves import plays_of
from postgrad.research.play import CLASSIC, FROZEN, TUNED, Play

#: What a starting point is believed to gain over the classic reference before any run.
DRAFT_PRIOR = Belief(0.02, 0.05)
NEAREST = Stage(backend="nearest")
COMPOSED = 60
MOST_CHANGES = 4


@dataclass(frozen=True)
class Draft:
    """One starting point. `stands_in` is the kind of the one that it is a cheaper form of."""

    kind: str
    change: str
    recipe: Recipe
    stands_in: str | None = None


def drafts(base_model: str | None) -> tuple[Draft, ...]:
    """The fixed starting points."""
    classic = Recipe(stage=CLASSIC)
    if base_model is None:
        svm = Recipe(stage=Stage(backend="classic", params={"head": "svm", "score": "log_prob"}))
        bayes = Recipe(stage=Stage(backend="classic", params={"head": "nb", "score": "log_prob"}))
        return (
            Draft("draft.classic", "TF-IDF, rejection by log probability", classic),
            Draft("draft.classic_svm", "TF-IDF with a support vector machine", svm),
            Draft("draft.classic_nb", "TF-IDF with complement naive Bayes", bayes),
        )
    frozen = Recipe(base_model=base_model, stage=FROZEN)
    tuned = Recipe(base_model=base_model, stage=TUNED)
    everything = edit.with_member(edit.with_member(tuned, FROZEN), CLASSIC)
    return (
        Draft("draft.frozen", "frozen encoder with a logistic head, rejection by nearest row", frozen),
        Draft("draft.frozen_classic", "frozen encoder and TF-IDF together", edit.with_member(frozen, CLASSIC)),
        Draft("draft.everything", "fine-tuned encoder, frozen encoder and TF-IDF together", everything),
        Draft("draft.tuned", "fine-tuned encoder alone", tuned),
        Draft("draft.classic", "TF-IDF, rejection by log probability", classic),
        Draft("draft.lora", "low-rank adapters", edit.with_main(tuned, tune="lora", lr=1e-3)),
    )


def spoken(base_model: str | None) -> tuple[Draft, ...]:
    """The fixed starting points of a base model that is used as a language model, and the cheapest answer in words."""
    found = [Draft(kind, change, lm_recipe(base_model, stage), STANDS_IN.get(kind)) for kind, change, stage in STARTS]
    return (*found, Draft("draft.nearest", "the answer of the most similar train row", Recipe(stage=NEAREST)))


def starts_of(task: TaskSpec, base_model: str | None) -> tuple[Draft, ...]:
    """The fixed starting points of one base model of a task."""
    if hub.wanted(task) and (found := hub.starts(task, base_model)):
        return tuple(Draft(*each) for each in found)
    if not speaks(task, base_model):
        return drafts(base_model)
    *tuned, nearest = spoken(base_model)
    if task.kind == "generation":
        return (*tuned, nearest)
    return (*tuned, Draft("draft.classic", "TF-IDF, rejection by log probability", Recipe(stage=CLASSIC)))


def best_first(found: Iterable[Draft], priors: Mapping[str, Prior]) -> list[Draft]:
    """By what finished runs taught; in the order given where they taught nothing."""
    return sorted(found, key=lambda draft: -prior_of(draft.kind, DRAFT_PRIOR, priors).mean)


@dataclass(frozen=True)
class _About:
    """A recipe of a task, as a key; the task object is held so that its id stays its own."""

    hash: str
    about: int
    recipe: Recipe = field(compare=False)
    task: TaskSpec = field(compare=False)


@lru_cache(maxsize=edit.REMEMBERED)
def _fitting(about: _About) -> tuple[Play, ...]:
    """The plays that apply to a recipe."""
    return tuple(play for play in plays_of(about.task) if play.applies(about.recipe, about.task))


def starting_points(task: TaskSpec, rng: Random, priors: Mapping[str, Prior] | None = None) -> Iterator[Draft]:
    """The fixed ones of every base model, then composed ones: a fixed one with two or more moves at once. Of one base
    model's, those that finished runs found best come first."""
    fixed = [draft for base in task.base_models or (None,) for draft in best_first(starts_of(task, base), priors or {})]
    yield from fixed
    for _ in range(COMPOSED):
        draft = rng.choice(fixed)
        recipe, words = draft.recipe, [draft.change]
        for _ in range(rng.randint(2, MOST_CHANGES)):
            fitting = _fitting(_About(recipe.hash, id(task), recipe, task))
            if not fitting:
                break
            play = rng.choice(fitting)
            recipe = changed(play, recipe, task) or recipe
            words.append(play.change)
        yield Draft("draft.composed", "; ".join(words), recipe)
