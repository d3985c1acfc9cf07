"""What a proposal may choose from: the moves that are open to a recipe, and the settings that it has.

A move is an entry of the playbook's table, or a starting point. Nothing that is not listed here can be proposed, so
whoever proposes needs no trust.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Iterator, Mapping

from postgrad.data import OPERATORS
from postgrad.records import Dimension, Prior, Recipe, Value
from postgrad.research import edit
from postgrad.research.drafts import DRAFT_PRIOR, starts_of
from postgrad.research.ideas import Ask, changed, recipe_of
from postgrad.research.learning import Belief, prior_of
from postgrad.research.moves import plays_of
from postgrad.research.promises import promises
from postgrad.research.tally import Sum
from postgrad.train import BACKENDS

# A text that is none of a list could name a file or a model.
SCALARS = ("boolean", "integer", "number", "null")


@dataclass(frozen=True)
class Item:
    """One move that is open.

    Attributes:
        name: how a proposal names it.
        kind: what the change is learnt under; several starting points with different bases share theirs.
        effect: what is believed of its effect, after the experiments of this run.
        nominal_s: what an experiment with the recipe that it makes costs.
    """

    name: str
    kind: str
    change: str
    why: str
    refuted_by: str
    recipe: Recipe
    effect: Belief
    nominal_s: float


@dataclass(frozen=True)
class Setting:
    """A parameter of the main stage, or of a data step: what it is, what it may be, and the range that the tuner knows,
    where it is tunable."""

    name: str
    value: Value
    legal: str
    range: Dimension | None = None


def moves(ask: Ask, known: Mapping[str, Sum]) -> tuple[Item, ...]:
    """The moves that are open: changes of the parent that none of its children made, else starting points; none that
    people ruled out. The most promising for their cost come first."""
    found = _starts(ask, known) if ask.parent is None else _changes(ask, known)
    return tuple(sorted(found, key=lambda item: (-item.effect.mean, item.nominal_s)))


def _changes(ask: Ask, known: Mapping[str, Sum]) -> Iterator[Item]:
    assert ask.parent is not None, "a change has a parent"
    base = recipe_of(ask.parent)
    tried = {child.proposed.proposal.kind for child in ask.tree.children(ask.parent.id)}
    promised = promises(ask.parent.analysis)
    for play in plays_of(ask.task):
        is_open = play.kind not in tried and not ask.context.barred(play.kind)
        after = changed(play, base, ask.task) if is_open else None
        recipe = None if after is None else ask.fresh(after)
        if recipe is not None:
            effect = _believed(play.kind, Belief(play.gain, play.spread), ask.context.priors, known)
            why = play.hypothesis
            if (found := promised.get(play.kind)) is not None:
                effect, why = effect.updated(found.gain, found.sd**2), f"{why} {found.words}"
            cost = ask.context.nominal_s(recipe)
            yield Item(play.kind, play.kind, play.change, why, play.refuted_by, recipe, effect, cost)


def _starts(ask: Ask, known: Mapping[str, Sum]) -> Iterator[Item]:
    roots = {(node.proposed.proposal.kind, recipe_of(node).base_model) for node in ask.tree.roots()}
    for place, base in enumerate(ask.task.base_models or (None,)):
        for start in starts_of(ask.task, base):
            recipe = None if ask.context.barred(start.kind) else ask.fresh(start.recipe)
            if recipe is None or (start.kind, recipe.base_model) in roots:
                continue
            name = start.kind if place == 0 else f"{start.kind}@{base}"
            effect = _believed(start.kind, DRAFT_PRIOR, ask.context.priors, known)
            why = "A different starting point may lead higher."
            refuted = "it and what is built on it stay behind the other starting points"
            cost = ask.context.nominal_s(recipe)
            yield Item(name, start.kind, start.change, why, refuted, recipe, effect, cost)


def _believed(kind: str, table: Belief, priors: Mapping[str, Prior], known: Mapping[str, Sum]) -> Belief:
    prior = prior_of(kind, table, priors)
    return known[kind].believed(prior) if kind in known else prior


# --- settings ---------------------------------------------------------------------------------------------------------


def settings_of(recipe: Recipe) -> dict[str, Setting]:
    """The plain parameters of the main stage by name; of a soup's, those that its members share."""
    stage = edit.single(edit.main_stage(recipe))
    ranges = BACKENDS.get(stage.backend).space(stage.params)
    legal = _legal_of_backend(stage.backend)
    return {
        name: Setting(name, edit.setting(stage, name), words, ranges.get(name))
        for name, words in legal.items()
        if isinstance(edit.setting(stage, name), bool | int | float | str | None)
    }


def open_settings(ask: Ask) -> list[Setting]:
    """The settings of the parent's main stage that may be set: none that people ruled out, alone or all settings."""
    found = settings_of(recipe_of(ask.parent)) if ask.parent else {}
    return [each for name, each in found.items() if not ask.context.barred(f"set.{name}")]


def open_steps(ask: Ask) -> dict[str, dict[str, str]]:
    """Data step -> its parameters, of the steps that may be added."""
    return {op: taken for op, taken in steps().items() if not ask.context.barred(f"data.{op}")}


def open_bases(ask: Ask) -> tuple[str, ...]:
    """The base models that may be taken in place of the parent's."""
    return () if ask.context.barred("base.next") else tuple(ask.task.base_models)


@lru_cache(maxsize=1)
def steps() -> dict[str, dict[str, str]]:
    """Data step -> its plain parameters, each with what it may be."""
    return {name: _legal_of_step(name) for name in OPERATORS.names()}


@lru_cache(maxsize=64)
def _legal_of_backend(backend: str) -> dict[str, str]:
    return _legal(BACKENDS.get(backend).Params.model_json_schema())


@lru_cache(maxsize=64)
def _legal_of_step(op: str) -> dict[str, str]:
    return _legal(OPERATORS.get(op).Params.model_json_schema())


def _legal(schema: Mapping[str, Any]) -> dict[str, str]:
    """Parameter -> what it may be, in words; those that are no plain value are left out."""
    found = {name: _words(part) for name, part in schema.get("properties", {}).items()}
    return {name: words for name, words in found.items() if words}


def _words(part: Mapping[str, Any]) -> str:
    if "anyOf" in part:
        options = [_words(one) for one in part["anyOf"]]
        return " or ".join(options) if all(options) else ""
    if "enum" in part:
        return "one of " + ", ".join(map(str, part["enum"]))
    if "const" in part:
        return str(part["const"])
    if part.get("type") not in SCALARS:
        return ""
    bounds = (("minimum", "from "), ("exclusiveMinimum", "above "), ("maximum", "to "), ("exclusiveMaximum", "below "))
    said = " ".join(f"{word}{part[key]:g}" for key, word in bounds if key in part)
    return f"{part['type']} {said}".strip()
