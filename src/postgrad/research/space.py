"""The whole recipe space of a task, as coordinates: which starting point, which plays are on, and every tunable number.

A point is a mapping from coordinate names to values. Decoding walks the coordinates in one fixed order and asks only
for those that matter for what was picked so far: the starting points of `drafts.py`, then the plays of `moves.py` in
the order of the table, each where it applies, then the numbers of the structure that came out. So the space holds every
recipe that the drafts and plays can make, each play at most once, with any numbers inside the backends' ranges.

It trains and scores nothing, and knows nothing about what is promising. It lies here and not in `search/` because it is
made of drafts and plays, which a policy may not import; a policy gets it as `postgrad.search.base.Space`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from math import exp, inf, log
from random import Random
from typing import Any, Callable, Mapping

from postgrad.records import Dimension, Recipe, Stage, TaskSpec, Value
from postgrad.research import edit
from postgrad.research.drafts import starts_of
from postgrad.research.moves import PLAYS
from postgrad.research.play import Play
from postgrad.search.base import Coordinate, Point
from postgrad.train import BACKENDS

START = "start"
SAMPLED_PLAYS = 3.0
SURVEYS = 150
SURVEY_SHARE = 0.3
PART = "part"
PART_WEIGHT = 50
DIGITS = 3
TURNS_KEPT = 4096
STAGES_KEPT = 1024
TASKS_KEPT = 8

Pick = Callable[[Coordinate], float]
Features = frozenset[tuple[str, ...]]

# Plays that overwrite each other are the options of one coordinate; every other play is on or off.
ALTERNATIVES = {
    "method": ("method.full_finetune", "method.partial", "method.lora"),
    "head": ("head.linear", "head.cosine", "head.logistic", "head.prototype"),
    "score": ("score.blend", "score.knn", "score.max_logit", "score.energy", "score.mahalanobis", "score.log_prob"),
    "soup": ("soup.seeds", "soup.rates"),
}


def _toggles() -> dict[str, tuple[Play, ...]]:
    """Coordinate name -> its plays, in the order of the table."""
    names = {kind: name for name, kinds in ALTERNATIVES.items() for kind in kinds}
    found: dict[str, tuple[Play, ...]] = {}
    for play in PLAYS:
        name = names.get(play.kind, play.kind)
        found[name] = (*found.get(name, ()), play)
    return found


TOGGLES = _toggles()


@dataclass(frozen=True)
class Made:
    """A recipe on the way, with its features. Two are one when the hashes of their recipes are."""

    hash: str
    recipe: Recipe = field(compare=False)
    features: Features = field(compare=False)


#: (coordinate, the recipe so far, what each option makes of it) -> 0 for none of them, or the number of one.
Turn = Callable[[str, Made, "tuple[Made | None, ...]"], int]


@dataclass(frozen=True)
class RecipeSpace:
    """The space of one task. Two spaces of one task are equal; what is worked out once is kept beside it."""

    task: TaskSpec

    @cached_property
    def starts(self) -> tuple[Recipe, ...]:
        """The fixed starting points of every base model, each structure once."""
        found: dict[str, Recipe] = {}
        for base in self.task.base_models or (None,):
            for draft in starts_of(self.task, base):
                found.setdefault(edit.structure_of(draft.recipe), draft.recipe)
        return tuple(found.values())

    @cached_property
    def coordinates(self) -> tuple[Coordinate, ...]:
        """Every coordinate: the starting point, the plays, then the numbers by name.

        Which numbers there are is read off recipes that a fixed generator makes, because backends name the numbers of
        one structure at a time. A number that none of them has is left as the starting point and the plays set it.
        """
        plays: set[str] = set()
        numbers: dict[str, None] = {}
        rng = Random(0)

        def survey(coordinate: Coordinate) -> float:
            if coordinate.name == START:
                return rng.randrange(coordinate.options)
            plays.add(coordinate.name)
            return rng.randrange(1, coordinate.options) if rng.random() < SURVEY_SHARE else 0

        for _ in range(SURVEYS):
            numbers |= dict.fromkeys(_numbers(self._structure(survey)))
        start = Coordinate(START, len(self.starts))
        known = [Coordinate(name, 1 + len(made)) for name, made in TOGGLES.items() if name in plays]
        return (start, *known, *(Coordinate(name) for name in sorted(numbers)))

    def decode(self, point: Mapping[str, float]) -> Recipe:
        """The recipe of a point. Coordinates that it lacks are the first starting point, no play, and numbers left as
        they are; coordinates that do not matter for its structure are not read."""
        return self.walk(lambda coordinate: point.get(coordinate.name, 0.0 if coordinate.options else -1.0))[1]

    def walk(self, pick: Pick) -> tuple[Point, Recipe]:
        """Ask `pick` for one coordinate after the other; return what it said, and the recipe of that.

        An answer for a coordinate with options is the number of one; for another it is a number in [0, 1], or below 0
        to leave the number as it is.
        """
        point: Point = {}

        def noted(coordinate: Coordinate) -> float:
            point[coordinate.name] = pick(coordinate)
            return point[coordinate.name]

        recipe = self._structure(noted)
        known = self._number_names
        values: dict[str, Value] = {}
        for name, dimensions in _numbers(recipe).items():
            if name in known and (share := noted(Coordinate(name))) >= 0:
                values |= {path: _value(dimension, share) for path, dimension in dimensions.items()}
        return {name: value for name, value in point.items() if value >= 0}, edit.with_numbers(recipe, values)

    def sample(self, rng: Random) -> Point:
        """A point by chance: any starting point, about three plays, any numbers."""
        share = SAMPLED_PLAYS / max(1, sum(coordinate.options > 0 for coordinate in self.coordinates) - 1)

        def pick(coordinate: Coordinate) -> float:
            if coordinate.name == START:
                return rng.randrange(coordinate.options)
            if not coordinate.options:
                return rng.random()
            return rng.randrange(1, coordinate.options) if rng.random() < share else 0

        return self.walk(pick)[0]

    def encode(self, recipe: Recipe) -> Point | None:
        """The point of a recipe, or None where no starting point and plays make its structure.

        Several points may give one recipe; this one is a function of the recipe alone. Numbers outside their range are
        moved to its edge.
        """
        return self._point_of(recipe)

    # --- parts --------------------------------------------------------------------------------------------------------

    @cached_property
    def _number_names(self) -> frozenset[str]:
        return frozenset(coordinate.name for coordinate in self.coordinates if not coordinate.options)

    @cached_property
    def _made_starts(self) -> tuple[Made, ...]:
        return tuple(_made(start) for start in self.starts)

    @cached_property
    def _point_of(self) -> Callable[[Recipe], Point | None]:
        """Remembered: a policy asks for all experiments at every choice."""
        return edit.remembered(self._encode)

    @cached_property
    def _options(self) -> Callable[[str, Made], tuple[Made | None, ...]]:
        """(coordinate, recipe so far) -> what each of its plays makes of that. Many walks begin alike."""
        return lru_cache(maxsize=TURNS_KEPT)(lambda name, now: self._after(TOGGLES[name], now))

    def _after(self, plays: tuple[Play, ...], now: Made) -> tuple[Made | None, ...]:
        """What each play makes of a recipe; None where it does not apply or moves nothing but numbers."""
        found: list[Made | None] = []
        for play in plays:
            after = _made(play.apply(now.recipe, self.task)) if play.applies(now.recipe, self.task) else None
            found.append(after if after is not None and after.features != now.features else None)
        return tuple(found)

    def _walk(self, start: int, turn: Turn) -> Made:
        """From a starting point through the plays, in the order of the table."""
        now = self._made_starts[start]
        for name in TOGGLES:
            options = self._options(name, now)
            if any(options):
                now = (None, *options)[turn(name, now, options)] or now
        return now

    def _structure(self, pick: Pick) -> Recipe:
        start = int(pick(Coordinate(START, len(self.starts))))
        return self._walk(start, lambda name, now, options: int(pick(Coordinate(name, 1 + len(options))))).recipe

    def _encode(self, recipe: Recipe) -> Point | None:
        if not edit.valid(recipe):
            return None
        wanted = _features(recipe)
        order = sorted(range(len(self.starts)), key=lambda i: (_distance(self._made_starts[i].features, wanted), i))
        for start in order:
            point = self._plays_to(start, wanted)
            if point is not None:
                known, params = self._number_names, edit.full_params(recipe)
                for name, dimensions in _numbers(recipe).items():
                    if name in known:
                        path, dimension = next(iter(dimensions.items()))
                        point[name] = _share(dimension, edit.get_path(params, path))
                return point
        return None

    def _plays_to(self, start: int, wanted: Features) -> Point | None:
        """The starting point and the plays that make a structure: each is on that brings it nearer."""
        point: Point = {START: start}

        def turn(name: str, now: Made, options: tuple[Made | None, ...]) -> int:
            far = [_distance(made.features, wanted) if made else inf for made in (now, *options)]
            point[name] = far.index(min(far))
            return far.index(min(far))

        return point if self._walk(start, turn).features == wanted else None


def space_of(task: TaskSpec) -> RecipeSpace:
    """The space of a task. Equal tasks share one, with what was worked out in it: a benchmark plays many runs."""
    return _space(task.model_dump_json())


@lru_cache(maxsize=TASKS_KEPT)
def _space(task: str) -> RecipeSpace:
    return RecipeSpace(TaskSpec.model_validate_json(task))


def _made(recipe: Recipe) -> Made:
    return Made(recipe.hash, recipe, _features(recipe))


@edit.remembered
def _features(recipe: Recipe) -> Features:
    """What a structure is made of: equal for recipes that differ in tunable numbers only."""
    found: set[tuple[str, ...]] = {(PART, "base", str(recipe.base_model)), ("order", *(s.op for s in recipe.data))}
    found |= {(PART, "step", step.op, json.dumps(dict(step.params), sort_keys=True)) for step in recipe.data}
    found |= {("inference", key, json.dumps(value)) for key, value in recipe.inference.items()}
    for i, stage in enumerate(edit.stages(recipe)):
        found.add((PART, str(i), _kind(stage)))
        found |= {(str(i), key, value) for key, value in _settings(stage.model_dump_json())}
    return frozenset(found)


@lru_cache(maxsize=STAGES_KEPT)
def _settings(plain: str) -> tuple[tuple[str, str], ...]:
    """(name, value) of every parameter of a stage that is no tunable number. Recipes share most of their stages."""
    stage = Stage.model_validate_json(plain)
    backend = BACKENDS.get(stage.backend)
    tunable = backend.space(stage.params)
    params = backend.Params.model_validate(stage.params).model_dump(mode="json")
    return tuple((key, json.dumps(value)) for key, value in params.items() if key not in tunable)


def _distance(one: Features, two: Features) -> int:
    """How many features differ. Members, steps and base models weigh more than settings: a play that brings a wrong one
    is not nearer for the settings that come with it."""
    return sum(PART_WEIGHT if feature[0] == PART else 1 for feature in one ^ two)


@edit.remembered
def _numbers(recipe: Recipe) -> dict[str, dict[str, Dimension]]:
    """Coordinate name -> path -> dimension of the tunable numbers.

    A number is named after the kind of member it belongs to, so that it keeps its name when other members come and go;
    two members of one kind share their numbers.
    """
    stages = edit.stages(recipe)
    found: dict[str, dict[str, Dimension]] = {}
    for path, dimension in sorted(edit.space_of(recipe).items()):
        parts = path.split(".")
        owner = int(parts[1]) if parts[0] == "members" else 0
        found.setdefault(f"{_kind(stages[owner])}.{parts[-1]}", {})[path] = dimension
    return found


def _kind(stage: Stage) -> str:
    tune = stage.params.get("tune")
    return f"{stage.backend}.{tune}" if tune else stage.backend


def _value(dimension: Dimension, share: float) -> Value:
    """The number at a share of the way from low to high, to three digits: more than a score can tell apart."""
    share = min(1.0, max(0.0, share))
    if dimension.choices:
        return dimension.choices[min(len(dimension.choices) - 1, int(share * len(dimension.choices)))]
    low, high = dimension.low, dimension.high
    value = exp(log(low) + share * (log(high) - log(low))) if dimension.log else low + share * (high - low)
    return round(value) if dimension.integer else min(high, max(low, float(f"{value:.{DIGITS}g}")))


def _share(dimension: Dimension, value: Any) -> float:
    """How far from low to high a number lies; the middle of its part of the way for a choice or where it is unknown."""
    if dimension.choices:
        known = dimension.choices.index(value) if value in dimension.choices else len(dimension.choices) // 2
        return (known + 0.5) / len(dimension.choices)
    low, high = dimension.low, dimension.high
    inside = min(high, max(low, float(value)))
    if high <= low:
        return 0.5
    share = (log(inside) - log(low)) / (log(high) - log(low)) if dimension.log else (inside - low) / (high - low)
    return min(1.0, max(0.0, share))
