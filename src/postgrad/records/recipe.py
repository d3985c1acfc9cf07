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


class Sketch(Record):
    """One idea of a proposer, checked and made into a recipe, not tried yet. `parent` is None for a starting point;
    `kinds` are the changes that make it, in order."""

    parent: str | None
    recipe: Recipe
    kind: str
    kinds: tuple[str, ...]
    change: str
    hypothesis: str
    expected_effect: float
    refuted_by: str
    evidence: tuple[str, ...] = ()


class Asked(Record):
    """One question to a language model or another program, what it cost, and what came back.

    Attributes:
        proposer: whom the task names; `provider` and `model` say what that is, "" where it is no model.
        slot: names the question within its run.
        key: names the first request by its content; see `llm/recorded.py`.
        tokens_in, tokens_out: of all rounds and attempts together.
        usd: what they cost; None where the price is not known.
        estimated: True where a count is ours and not the server's.
        rounds: replies that were read.
        seconds: that the replies took.
        failed: why nothing came of it; None where something did.
        sketches: what came of it, in the order given; the first was tried at once.
        notes: what was wrong with the rest.
    """

    proposer: str
    provider: str = ""
    model: str = ""
    slot: str = ""
    key: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float | None = 0.0
    estimated: bool = False
    rounds: int = 0
    seconds: float = 0.0
    failed: str | None = None
    sketches: tuple[Sketch, ...] = ()
    notes: tuple[str, ...] = ()


class Described(Record):
    """A language model's words for a group of bad cases: one line each, escaped."""

    name: str
    sentence: str


class Proposal(Record):
    """A hypothesis and the one change to the parent's recipe that tests it.

    `kind` is "<group>.<name>". `carried_out` is the choice that the recipe answers, where the one that was asked for
    had nothing new to offer. `evidence` are the experiments that speak for it. `asked` is the question that this
    experiment began with, whoever proposed it in the end: where nothing came of it, the playbook did.
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
    evidence: tuple[str, ...] = ()
    asked: Asked | None = None
