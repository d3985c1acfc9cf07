"""Replies of made-up models, of legal parts and whatever JSON can hold: a recipe that can be recorded, or words."""

from __future__ import annotations

import json
from functools import cache
from random import Random
from typing import Any, Callable

import pytest

from hostile_server import ESCAPES, INJECTED
from postgrad.admission import recordable, refusal
from postgrad.llm.structured import parsed
from postgrad.quoting import escaped
from postgrad.records import Choice, Move, Proposal, Sketch
from postgrad.research import proposing
from postgrad.research.asking import noted
from postgrad.research.base import Context
from postgrad.research.ideas import Ask, recipe_of
from postgrad.research.menu import moves, settings_of, steps
from postgrad.research.playbook import Playbook
from postgrad.research.tally import tally
from postgrad.search.random import RandomSearch
from postgrad.testing.researcher import REJECTING, by_hash
from postgrad.testing.simulation import Simulation, nominal_s
from postgrad.tree import Tree

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 3, 1.5, -0.0, 1e308, -1e308, 5e-324, 10**30, 10**400, -(10**400), 2**63, float("inf")),
    *(
        float("nan"),
        "",
        " ",
        "x",
        ESCAPES,
        INJECTED,
        "half a pair \ud800",
        "e0001",
        "e9999",
        "../../etc/passwd",
        "x" * 5000,
    ),
    *(
        [],
        {},
        [1],
        [[]],
        {"a": 1},
        {ESCAPES: ESCAPES},
        ["x"] * 50,
        {"name": "C", "value": 1},
        {"op": "dedup", "params": []},
    ),
)
REPLIES = 4000


@cache
def grown() -> Tree:
    return Simulation(REJECTING, RandomSearch(), Playbook(), by_hash).run(14, seed=1)


def asks() -> list[Ask]:
    """A question about each recipe that has a score, and one about a start."""
    tree = grown()
    parents = [None, *(node.id for node in tree.scored())]
    context = Context(tree, Random(0), len(tree), None, nominal_s)
    return [Ask(REJECTING, Choice(parent=name, move=Move.IMPROVE if name else Move.DRAFT), context) for name in parents]


class Speaker:
    """Says things about a question, one part in twenty of them odd."""

    def __init__(self, ask: Ask, rng: Random) -> None:
        self.rng = rng
        self.moves = [item.name for item in moves(ask, tally(ask.tree).kinds)]
        self.settings = settings_of(recipe_of(ask.parent)) if ask.parent else {}
        self.parents = list(ask.tree.experiments)

    def or_odd(self, made: Callable[[], Any]) -> Any:
        return self.rng.choice(ODD) if self.rng.random() < 1 / 20 else made()

    def given(self) -> dict[str, Any]:
        name = self.rng.choice(list(self.settings) or ["C"])
        known = self.settings[name].range if name in self.settings else None
        ends = [known.low, known.high] if known is not None and not known.choices else [1, 2, 4, True]
        return {"name": self.or_odd(lambda: name), "value": self.or_odd(lambda: self.rng.choice(ends))}

    def range(self) -> dict[str, Any]:
        names = [name for name, each in self.settings.items() if each.range] or ["C"]
        name = self.rng.choice(names)
        known = self.settings[name].range if name in self.settings else None
        low, high = (known.low, known.high) if known is not None else (0.0, 1.0)
        return {"name": self.or_odd(lambda: name), "low": self.or_odd(lambda: low), "high": self.or_odd(lambda: high)}

    def step(self) -> dict[str, Any]:
        op = self.rng.choice(list(steps()))
        params = [
            {"name": name, "value": self.or_odd(lambda: self.rng.choice((0.1, 0.3, 2)))}
            for name in steps()[op]
            if self.rng.random() < 0.2
        ]
        return {"op": self.or_odd(lambda: op), "params": params}

    def some(self, made: Callable[[], Any]) -> Any:
        return self.or_odd(lambda: [made() for _ in range(self.rng.choice((0, 0, 1, 1, 2)))])

    def idea(self) -> dict[str, Any]:
        rng = self.rng
        said: dict[str, Any] = {
            "move": self.or_odd(lambda: rng.choice([*self.moves, None])),
            "hypothesis": self.or_odd(lambda: rng.choice(("It may help.", INJECTED))),
            "expected_effect": self.or_odd(lambda: 0.01),
            "refuted_by": rng.choice(("It does not.", ESCAPES + "x")),
        }
        parts: dict[str, Callable[[], Any]] = {
            "settings": lambda: self.some(self.given),
            "tune": lambda: self.some(self.range),
            "add_steps": lambda: self.some(self.step),
            "remove_steps": lambda: self.some(lambda: rng.choice([*steps(), "typos"])),
            "evidence": lambda: self.some(lambda: rng.choice(self.parents)),
            "base_model": lambda: rng.choice((*REJECTING.base_models, *ODD)),
            ESCAPES: lambda: rng.choice(ODD),
        }
        return said | {name: made() for name, made in parts.items() if rng.random() < 0.2}


def judged(ask: Ask, text: str) -> tuple[list[Sketch], tuple[str, ...]]:
    reply, problems = parsed(text, proposing.Reply)
    if reply is None:
        assert problems
        return [], problems
    found = proposing.checked(reply, ask, moves(ask, tally(ask.tree).kinds))
    assert found.sketches or found.problems
    return found.sketches, noted(found.problems)


@pytest.mark.parametrize("place", range(5))
def test_whatever_a_reply_holds_it_is_a_recipe_or_words(place: int) -> None:
    about, rng = asks(), Random(place)
    usable = 0
    for number in range(REPLIES // 5):
        ask = about[number % len(about)]
        speaker = Speaker(ask, rng)
        text = json.dumps({"proposals": [speaker.idea() for _ in range(rng.randrange(1, 4))]})
        sketches, problems = judged(ask, text)
        usable += bool(sketches)
        for problem in problems:
            assert len(problem) <= 300 and escaped(problem) == problem, problem
        for sketch in sketches:
            _can_be_tried(sketch)
    assert usable > REPLIES / 5 / 10, "too few of them are legal to say anything"


def _can_be_tried(sketch: Sketch) -> None:
    words = (sketch.hypothesis, sketch.change, sketch.refuted_by, sketch.kind, *sketch.kinds, *sketch.evidence)
    assert all(escaped(text) == text and text.strip() for text in words), words
    proposal = Proposal(proposer="m", seed=0, **sketch.model_dump(exclude={"parent", "kinds"}))
    assert recordable(proposal) is proposal
    assert refusal(sketch.recipe, REJECTING) is None


def test_every_odd_value_of_every_setting_is_a_recipe_or_words() -> None:
    said = {"move": None, "hypothesis": "h", "expected_effect": 0.0, "refuted_by": "r"}
    tried = 0
    for ask in asks()[1:]:
        for name in settings_of(recipe_of(ask.parent)) if ask.parent else ():
            for odd in ODD:
                for more in ({"settings": [{"name": name, "value": odd}]}, {"tune": [_range(name, odd)]}):
                    sketches, problems = judged(ask, json.dumps({"proposals": [said | more]}))
                    assert sketches or problems
                    tried += 1
                    for sketch in sketches:
                        _can_be_tried(sketch)
    assert tried > 1000


def _range(name: str, odd: Any) -> dict[str, Any]:
    return {"name": name, "low": odd, "high": 1.0 if odd is None else odd}
