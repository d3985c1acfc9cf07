"""Recipes, and the proposals and choices that lead to them."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from typing import Any, Mapping, Self

from pydantic import Field

from postgrad.records.base import Record, Value, content_hash


class Step(Record):
    """One data operator with its parameters. Runs inside the worker, on train rows only."""

    op: str
    params: dict[str, Value] = Field(default_factory=dict)


class Stage(Record):
    """One training backend with its parameters."""

    backend: str
    params: dict[str, Value] = Field(default_factory=dict)


class Recipe(Record):
    """The typed description of one way to make a model. Its seed is not part of it."""

    base_model: str | None = None
    data: tuple[Step, ...] = ()
    stage: Stage
    inference: dict[str, Value] = Field(default_factory=dict)

    @cached_property
    def hash(self) -> str:
        """16 hex digits; equal recipes have equal hashes."""
        return content_hash(self.model_dump(mode="json"))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy works its own hash out: pydantic copies what was cached along."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("hash", None)
        return copied


class Dimension(Record):
    """One number or choice that the tuner may move. `choices` excludes the rest."""

    low: float = 0.0
    high: float = 1.0
    log: bool = False
    integer: bool = False
    choices: tuple[Value, ...] = ()


class Move(StrEnum):
    """What a policy can ask for."""

    DRAFT = "draft"
    IMPROVE = "improve"
    TUNE = "tune"
    COMBINE = "combine"
    ABLATE = "ablate"
    REPAIR = "repair"
    REPLICATE = "replicate"
    STOP = "stop"


class Choice(Record):
    """A policy's answer: extend this experiment with this move. `other` is the second parent of a combine.

    `recipe` asks for exactly this recipe, without the researcher. In the log it is None: the proposal holds the recipe.
    `kinds` are the changes that make it, in order, and `gain` is what it is believed to score above the parent.
    """

    parent: str | None
    move: Move
    other: str | None = None
    reason: str = ""
    recipe: Recipe | None = None
    kinds: tuple[str, ...] = ()
    gain: float = 0.0


class Proposal(Record):
    """A hypothesis and the one change to the parent's recipe that tests it.

    `kind` is "<group>.<name>". `carried_out` is the choice that the recipe answers, where the one that was asked for
    had nothing new to offer.
    """

    recipe: Recipe
    kind: str
    hypothesis: str
    change: str
    expected_effect: float
    refuted_by: str
    proposer: str
    seed: int
    carried_out: Choice | None = None
