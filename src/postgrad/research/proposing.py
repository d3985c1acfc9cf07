"""What a language model or another program may propose, and how it is checked: all problems of all proposals at once.

A proposal chooses from what the project knows: a move of the menu, settings of the main stage, data steps, base models
of the task. It holds no code and no path, and whatever a text in it says, nothing reads it but people.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Annotated, Iterator, Sequence

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from postgrad.data import OPERATORS
from postgrad.quoting import escaped, inlined
from postgrad.records import Dimension, Recipe, Sketch, Value
from postgrad.research import edit
from postgrad.research.exact import SEVERAL
from postgrad.research.ideas import Ask, recipe_of
from postgrad.research.menu import Item, Setting, settings_of, steps
from postgrad.research.novelty import near
from postgrad.research.play import NEGATIVE_STEPS, learns
from postgrad.research.tuner import placed
from postgrad.train import BACKENDS
from postgrad.train.models import model_kind

MOST, MOST_CHANGES = 5, 4
WORDS, NAMES, NAME = 600, 40, 120
# Numbers that the tuner is asked for, where the first ones were tried already.
DRAWS = 4
LARGEST = 2**53
COMPOSED = "draft.composed"


def _told(text: str) -> str:
    """One printable line of bounded length, and not an empty one."""
    line = " ".join(text.split())
    if not line:
        raise ValueError("words were expected")
    return escaped(line[:WORDS])


# A longer text is cut and not refused; the schema names the length for servers that hold their models to it.
Words = Annotated[str, Field(min_length=1, json_schema_extra={"maxLength": WORDS}), AfterValidator(_told)]
Name = Annotated[str, Field(min_length=1, max_length=NAME)]
# Servers do not hold numbers to bounds, and what is too large says no more than the bound does.
Effect = Annotated[
    float,
    Field(json_schema_extra={"minimum": -1, "maximum": 1}),
    AfterValidator(lambda effect: min(1.0, max(-1.0, effect))),
]


def _sized(value: bool | int | float | str) -> bool | int | float | str:
    """A value that the log can hold."""
    if isinstance(value, int | float) and abs(value) > LARGEST:
        raise ValueError("no setting is that large")
    return value


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Given(_Part):
    """A parameter and its value."""

    name: Name
    value: Annotated[bool | int | float | Annotated[str, Field(max_length=NAME)], AfterValidator(_sized)]


class Range(_Part):
    """A number that is left to the tuner, and where it may be."""

    name: Name
    low: float
    high: float


class NewStep(_Part):
    """A data step with its parameters; those that are left out have their defaults."""

    op: Name
    params: tuple[Given, ...] = Field(default=(), max_length=10)


class Suggestion(_Part):
    """One idea. All of its changes are made to the recipe that was named, the move first."""

    move: Name | None = Field(default=None, description="The name of one open move, or of an open starting point.")
    settings: tuple[Given, ...] = Field(default=(), max_length=4, description="Settings of the main stage to set.")
    tune: tuple[Range, ...] = Field(default=(), max_length=4, description="Numbers that are left to the tuner.")
    add_steps: tuple[NewStep, ...] = Field(default=(), max_length=3, description="Data steps to add.")
    remove_steps: tuple[Name, ...] = Field(default=(), max_length=3, description="Data steps to take away.")
    base_model: Name | None = Field(default=None, description="Another base model of the task.")
    hypothesis: Words = Field(description="Why this should help, in one or two sentences.")
    expected_effect: Effect = Field(description="Expected change of the metric.")
    refuted_by: Words = Field(description="What would show that the hypothesis is wrong.")
    evidence: tuple[Name, ...] = Field(default=(), max_length=8, description="Experiments that speak for it: e0012.")


class Reply(_Part):
    """What is asked for: one to five ideas, the best first."""

    proposals: tuple[Suggestion, ...] = Field(min_length=1, max_length=MOST)


@dataclass
class Checked:
    """What came of a reply so far: sketches that can be tried, and what is wrong with the rest."""

    sketches: list[Sketch] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def checked(reply: Reply, ask: Ask, menu: Sequence[Item]) -> Checked:
    """Make recipes of the proposals. Every problem of every proposal is named, with what would be legal."""
    found = Checked()
    for number, suggestion in enumerate(reply.proposals, start=1):
        sketch, problems = _Reading(suggestion, ask, menu).sketch()
        if sketch is not None and any(near(sketch.recipe, other.recipe) for other in found.sketches):
            sketch, problems = None, ["it is the same as one before it. Leave it out."]
        found.sketches += [] if sketch is None else [sketch]
        found.problems += [f"proposal {number}: {problem}" for problem in problems]
    return found


class _Reading:
    """One suggestion on its way to a recipe."""

    def __init__(self, suggestion: Suggestion, ask: Ask, menu: Sequence[Item]) -> None:
        self.said, self.ask, self.menu = suggestion, ask, menu
        self.problems: list[str] = []
        self.changes: list[tuple[str, str]] = []

    def sketch(self) -> tuple[Sketch | None, list[str]]:
        """The sketch, or what is wrong."""
        self.problems += _unknown(self.said.evidence, tuple(self.ask.tree.experiments), "evidence: no experiment")
        recipe = self._start()
        if recipe is not None:
            recipe = self._tuned(self._set(self._stepped(self._based(recipe))))
        if not self.problems and recipe is not None:
            recipe = self._accepted(recipe)
        if self.problems or recipe is None:
            return None, self.problems
        kinds = tuple(dict.fromkeys(kind for kind, _ in self.changes))
        several = COMPOSED if self.ask.parent is None else SEVERAL
        said = self.said
        made = Sketch(
            parent=self.ask.parent.id if self.ask.parent else None,
            recipe=recipe,
            kind=kinds[0] if len(kinds) == 1 else several,
            kinds=kinds,
            change="; ".join(words for _, words in self.changes),
            hypothesis=said.hypothesis,
            expected_effect=round(said.expected_effect, 4),
            refuted_by=said.refuted_by,
            evidence=tuple(dict.fromkeys(said.evidence)),
        )
        return made, []

    def _start(self) -> Recipe | None:
        """The recipe that the rest is done to: the parent's, after the move if there is one; a starting point's."""
        name = self.said.move
        item = next((item for item in self.menu if item.name == name), None)
        if item is not None:
            self.changes.append((item.kind, item.change))
            return item.recipe
        if name is not None or self.ask.parent is None:
            what = (
                "a starting point was expected as move"
                if name is None
                else f"the move {inlined(name, NAME)} is not open"
            )
            self.problems.append(f"{what}. Open: {_listed([item.name for item in self.menu])}")
        return recipe_of(self.ask.parent) if self.ask.parent is not None else None

    def _based(self, recipe: Recipe) -> Recipe:
        wanted, task = self.said.base_model, self.ask.task
        if wanted is None or wanted == recipe.base_model:
            return recipe
        same = [
            base for base in task.base_models if recipe.base_model and model_kind(base) == model_kind(recipe.base_model)
        ]
        if wanted not in same:
            self.problems.append(f"base_model {inlined(wanted, NAME)} cannot take its place. Legal: {_listed(same)}")
            return recipe
        self.changes.append(("base.next", f"base model {wanted}"))
        return edit.checked(recipe.model_copy(update={"base_model": wanted}))

    # --- data steps ---------------------------------------------------------------------------------------------------

    def _stepped(self, recipe: Recipe) -> Recipe:
        there = [step.op for step in recipe.data]
        missing = _unknown(self.said.remove_steps, there, "remove_steps: the recipe has no step")
        self.problems += missing
        for op in self.said.remove_steps if not missing else ():
            recipe = edit.without_step(recipe, op)
            self.changes.append((f"ablate.{op}", f"without {op}"))
        if self.said.add_steps and not learns(recipe, self.ask.task):
            self.problems.append("add_steps: this recipe does not learn from rows, so it takes no data step")
            return recipe
        for step in self.said.add_steps:
            recipe = self._with_step(recipe, step)
        return recipe

    def _with_step(self, recipe: Recipe, step: NewStep) -> Recipe:
        rejects = self.ask.task.data.out_of_scope is not None
        known = {op: taken for op, taken in steps().items() if rejects or op not in NEGATIVE_STEPS}
        unknown = _unknown((step.op,), list(known), "add_steps: no data step")
        if not unknown:
            names = [given.name for given in step.params]
            unknown = _unknown(names, list(known[step.op]), f"add_steps: {step.op} has no parameter")
        params: dict[str, Value] = {given.name: given.value for given in step.params}
        if not unknown:
            unknown = list(_refused(OPERATORS.get(step.op).Params, params, f"add_steps: {step.op}"))
        if unknown:
            self.problems += unknown
            return recipe
        told = ", ".join(f"{name} {value}" for name, value in params.items())
        self.changes.append((f"data.{step.op}", f"with {step.op}{f' ({told})' if told else ''}"))
        return edit.with_step(recipe, step.op, **params)

    # --- settings -----------------------------------------------------------------------------------------------------

    def _set(self, recipe: Recipe) -> Recipe:
        known = settings_of(recipe)
        names = [given.name for given in self.said.settings]
        wrong = _unknown(names, list(known), "settings: the main stage has no plain setting")
        wrong += [
            problem
            for given in self.said.settings
            if given.name in known
            for problem in _outside(given, known[given.name])
        ]
        values: dict[str, Value] = {given.name: given.value for given in self.said.settings}
        if not wrong and values:
            stage = edit.main_stage(recipe)
            wrong = list(_refused(BACKENDS.get(stage.backend).Params, {**stage.params, **values}, "settings"))
        self.problems += wrong
        if wrong or not values:
            return recipe
        changed = {name: value for name, value in values.items() if value != known[name].value}
        self.changes += [(f"set.{name}", f"{name} {known[name].value} -> {value}") for name, value in changed.items()]
        return edit.with_main(recipe, **changed) if changed else recipe

    def _tuned(self, recipe: Recipe) -> Recipe:
        """The tuner's numbers, where the suggestion leaves some to it."""
        if not self.said.tune or self.problems:
            return recipe
        known = {name: setting.range for name, setting in settings_of(recipe).items() if setting.range}
        barred = self.ask.context.barred
        open_ones = {name: each for name, each in known.items() if not each.choices and not barred(f"set.{name}")}
        wrong = _unknown([each.name for each in self.said.tune], list(open_ones), "tune: no number of the tuner's is")
        ranges = {}
        for each in self.said.tune if not wrong else ():
            whole = open_ones[each.name]
            if not whole.low <= each.low < each.high <= whole.high:
                wrong.append(f"tune: {each.name} may be moved within {whole.low:g} to {whole.high:g}, from low to high")
            ranges[_path(recipe, each.name)] = whole.model_copy(update={"low": each.low, "high": each.high})
        self.problems += wrong
        if wrong:
            return recipe
        drawn = self._drawn(recipe, ranges)
        first = next(drawn)
        others = islice(drawn, DRAWS - 1)
        numbers, made = next((each for each in chain([first], others) if not self.ask.tried.repeat(each[1])), first)
        told = ", ".join(f"{path.rpartition('.')[2]} {value:g}" for path, value in numbers.items())
        self.changes.append(("tune", f"numbers of the tuner: {told}"))
        return made

    def _drawn(self, recipe: Recipe, ranges: dict[str, Dimension]) -> Iterator[tuple[dict[str, Value], Recipe]]:
        """Numbers of the tuner within ranges, and the recipe with them, the most promising first."""
        for drawn in placed(self.ask.tree, recipe, ranges, self.ask.context.rng):
            params = edit.full_params(drawn)
            numbers: dict[str, Value] = {
                path: _clipped(edit.get_path(params, path), each) for path, each in ranges.items()
            }
            yield numbers, edit.with_numbers(recipe, numbers)

    # --- the whole ----------------------------------------------------------------------------------------------------

    def _accepted(self, recipe: Recipe) -> Recipe | None:
        """The recipe as it will be run, where it is new, valid and can be paid."""
        ask = self.ask
        if not self.changes:
            self.problems.append("it changes nothing. Name a move, settings, data steps or a base model.")
        elif len(self.changes) > MOST_CHANGES:
            self.problems.append(f"it makes {len(self.changes)} changes, and at most {MOST_CHANGES} are one idea")
        elif barred := sorted({kind for kind, _ in self.changes if ask.context.barred(kind)}):
            self.problems.append(f"a person ruled out {_listed(barred)} Propose something else.")
        elif not edit.valid(recipe):
            self.problems.append("the recipe that comes of it is not valid: its changes do not go together")
        elif (same := ask.tried.repeat(recipe)) is not None:
            self.problems.append(f"{same.told}. Propose something else.")
        elif not ask.affordable(recipe):
            limit = ask.context.affordable_s or 0.0
            self.problems.append(
                f"it costs {ask.context.nominal_s(recipe):.0f} nominal seconds, and {limit:.0f} are left"
            )
        elif (found := ask.fresh(recipe)) is None:
            self.problems.append("it cannot be run here. Propose something else.")
        else:
            return found
        return None


def _unknown(names: Sequence[str], known: Sequence[str], what: str) -> list[str]:
    return [f"{what} {inlined(name, NAME)}. Legal: {_listed(known)}" for name in names if name not in known]


def _listed(names: Sequence[str]) -> str:
    if len(names) > NAMES:
        return f"{', '.join(names[:NAMES])} and {len(names) - NAMES} more."
    return f"{', '.join(names) or 'nothing'}."


def _outside(given: Given, setting: Setting) -> Iterator[str]:
    """What is wrong with a number that the tuner has a range for."""
    known, value = setting.range, given.value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if known is not None and not known.choices and is_number and not known.low <= float(value) <= known.high:
        yield f"settings: {given.name} is {value:g}, and {known.low:g} to {known.high:g} is legal"


def _refused(params: type[BaseModel], values: dict[str, Value], where: str) -> Iterator[str]:
    """What the owner of these parameters says against them."""
    try:
        params.model_validate(values)
    except ValidationError as wrong:
        for error in wrong.errors(include_url=False, include_input=False):
            place = ".".join(map(str, error["loc"])) or "together"
            yield f"{where}: {place}: {error['msg'][:NAME]}"


def _path(recipe: Recipe, name: str) -> str:
    """The path of a number of the main stage among those of the whole recipe."""
    if recipe.stage.backend != "ensemble":
        return name
    return f"members.{edit.main_index(recipe)}.stage.params.{name}"


def _clipped(value: Value, known: Dimension) -> int | float:
    assert isinstance(value, int | float), "a range is of a number"
    found = min(max(float(value), known.low), known.high)
    return round(found) if known.integer else found
