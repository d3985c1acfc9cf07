"""The question for changes of a recipe: what is told, how a reply looks, and how it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence

from postgrad.llm.base import Provider, Request, Usage
from postgrad.llm.structured import ask
from postgrad.records import ResearcherSpec, Sketch
from postgrad.research import proposing
from postgrad.research.brief import Brief
from postgrad.research.ideas import Ask, recipe_of
from postgrad.research.menu import Item, open_bases, open_settings, open_steps
from postgrad.research.schema import schema_of

# The version of what is sent; it goes up when a field goes away or changes its meaning.
FORMAT = 1
SYSTEM = """You are the researcher of Postgrad, which tunes a small model on a person's task by experiments. You are \
told what was tried and what came of it, and you propose what to try next. A referee that you cannot reach trains, \
measures and decides.

Reply with one JSON object: {{"proposals": [...]}}, {most} of them, the best first. Each is one idea: a move of the \
list by its name, or settings, data steps or a base model to change, or a move with some of these. Say why it should \
help, what change of the metric you expect, what would refute it, and which experiments speak for it. Prefer what was \
not tried on this recipe. Where you are unsure of a number, leave it to the tuner with a range in `tune`."""


@dataclass(frozen=True)
class RecipeQuestion:
    """What a proposer is asked.

    Attributes:
        slot: names the question within its run: a run that was killed asks it under the same name again.
        most: proposals that are wanted.
        usd: dollars that may be spent on it; None where they are not counted.
    """

    ask: Ask
    brief: Brief
    menu: Sequence[Item]
    slot: str
    most: int
    usd: float | None

    @property
    def number(self) -> int:
        """Of the experiment that it is asked for."""
        return self.ask.context.index

    @property
    def system(self) -> str:
        """Who a model is, and how it is to reply."""
        return SYSTEM.format(most=f"1 to {self.most}" if self.most > 1 else "one")

    def schema(self, spec: ResearcherSpec) -> dict[str, Any]:
        """The JSON schema of the reply."""
        return schema_of(self.ask, self.brief, self.menu, self.most, spec)

    def reading(self) -> _Reading:
        """A new reading of its replies."""
        return _Reading(self)

    def context(self, spec: ResearcherSpec) -> dict[str, object]:
        """What a program gets: the brief, and as data what may be chosen from."""
        parent = self.ask.parent
        menu: Sequence[dict[str, object]] = [
            {
                "move": item.name,
                "change": item.change,
                "why": item.why,
                "believed_effect": round(item.effect.mean, 4),
                "believed_sd": round(item.effect.sd, 4),
                "nominal_s": round(item.nominal_s, 1),
            }
            for item in self.menu
        ]
        return {
            "format": FORMAT,
            "question": self.slot,
            "task": {"name": self.ask.task.name, "metric": self.ask.task.metric},
            "parent": None
            if parent is None
            else {"id": parent.id, "score": parent.score, "recipe": recipe_of(parent).model_dump(mode="json")},
            "text": self.brief.text,
            "brief": self.brief.model_dump(mode="json"),
            "moves": menu,
            "settings": [{"name": one.name, "value": one.value, "legal": one.legal} for one in open_settings(self.ask)],
            "data_steps": open_steps(self.ask),
            "base_models": open_bases(self.ask),
            "proposals": self.most,
            "schema": self.schema(spec),
        }


class _Reading:
    """Checks replies, and keeps what can be used of the last one in which anything could be."""

    def __init__(self, question: RecipeQuestion) -> None:
        self._question = question
        self._rounds = 0
        self.sketches: list[Sketch] = []
        self.problems: Sequence[str] = ()

    def ask(self, provider: Provider, request: Request, repairs: int) -> Usage:
        """Ask for proposals, and check them."""
        return ask(provider, request, proposing.Reply, repairs, self._checked).usage

    def _checked(self, reply: proposing.Reply) -> Sequence[str]:
        """What goes back to the model. A second reply of which something can be used is good enough."""
        self._rounds += 1
        found = proposing.checked(reply, self._question.ask, self._question.menu)
        self.problems = found.problems
        if found.sketches:
            self.sketches = found.sketches
        return () if self.sketches and self._rounds > 1 else found.problems
