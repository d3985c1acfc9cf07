"""Runs of any length for `bench scale`, experiment by experiment, as the events that the loop would write.

Recipes are real: the playbook's drafts and what its plays make of them, each experiment with numbers of its own. Which
experiment is extended, and what comes of it, is drawn by chance in shares like those of real runs: most extend the
champion or a recent one, one in twelve fails, and the newest is under way. No policy was asked and nothing was trained,
so scores mean nothing. Hundreds of experiments a second are made, and nothing is kept but their names and scores.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Iterator

from postgrad.bench.landscapes import TASK
from postgrad.events import Analysed, Body, Evaluated, Event, JobFinished, JobStarted, Proposed
from postgrad.records import (
    Analysis,
    Choice,
    Confusion,
    Difference,
    Estimate,
    Evaluation,
    Failure,
    JobResult,
    Move,
    Proposal,
    Recipe,
    UnitResult,
    Usage,
    Value,
)
from postgrad.research import edit
from postgrad.research.drafts import drafts
from postgrad.research.moves import PLAYS
from postgrad.research.references import reference_recipes

TEMPLATES, DEEPEST = 300, 8
RECENT = 200
MOST_NUMBERS = 3
FOLDS, ITEMS = 4, 400
ERROR, SEED_SD = 0.02, 0.006
MOVES = {
    Move.IMPROVE: 0.58,
    Move.TUNE: 0.25,
    Move.COMBINE: 0.05,
    Move.ABLATE: 0.04,
    Move.REPLICATE: 0.03,
    Move.DRAFT: 0.05,
}
# How often the champion is extended, by a play that is in the table for it; how often a failure is mended.
CHAMPION_SHARE, NEAR_SHARE, REPAIR_SHARE = 0.6, 0.5, 0.5
ENDS = {"scored": 0.87, "failed": 0.08, "raced": 0.04, "unscored": 0.01}


@dataclass
class Template:
    """A recipe that others have the structure of. `below` are those that one play makes of it; `effect` is the true
    value of the structure."""

    recipe: Recipe
    kind: str
    effect: float
    above: Template | None = None
    depth: int = 0
    below: list[Template] = field(default_factory=list)


@dataclass(frozen=True)
class Known:
    """What later experiments need to know of one."""

    name: str
    template: Template
    recipe: Recipe
    score: float
    seed: int = 0


@dataclass
class Growth:
    """One run. The same seed gives the same events, however many are asked for."""

    seed: int = 0
    made: int = 0
    champion: Known | None = None
    recent: deque[Known] = field(default_factory=lambda: deque(maxlen=RECENT))
    broken: Known | None = None
    written: int = 0

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)
        self.known = templates(Random(self.seed))
        self.starts = [template for template in self.known if template.above is None]
        self.open = self._opened()

    def step(self) -> tuple[Event, ...]:
        """The events of one step: the experiment that is under way ends, and the next one begins."""
        node, proposed = self.open
        bodies = list(self._ended(node, proposed))
        self.open = self._opened()
        bodies += _begun(self.open[1])
        return self._numbered(bodies)

    def events(self, experiments: int) -> Iterator[Event]:
        """The events up to so many experiments, the last one under way. For a run that has not been asked before."""
        yield from self._numbered(_begun(self.open[1]))
        for _ in range(experiments - 1):
            yield from self.step()

    # --- proposing ----------------------------------------------------------------------------------------------------

    def _opened(self) -> tuple[Known, Proposed]:
        name, references = f"e{self.made:06d}", reference_recipes(TASK)
        incumbent = self.champion.name if self.champion else None
        if self.made < len(references):
            choice, proposal = Choice(parent=None, move=Move.DRAFT, reason="reference"), references[self.made]
            node = Known(name, self.starts[0], proposal.recipe, 0.1 + 0.2 * self.made)
        else:
            choice, node = self._chosen(name)
            proposal = self._proposal(choice, node)
        self.made += 1
        cost = round(self.rng.uniform(2.0, 60.0), 3)
        return node, Proposed(experiment=name, choice=choice, proposal=proposal, incumbent=incumbent, nominal_s=cost)

    def _chosen(self, name: str) -> tuple[Choice, Known]:
        rng = self.rng
        if self.broken is not None and rng.random() < REPAIR_SHARE:
            broken, self.broken = self.broken, None
            return Choice(parent=broken.name, move=Move.REPAIR), self._varied(name, broken.template)
        move = rng.choices(list(MOVES), list(MOVES.values()))[0]
        lead = self.champion
        if move is Move.DRAFT or lead is None:
            return Choice(parent=None, move=Move.DRAFT), self._varied(name, rng.choice(self.starts))
        parent = lead if rng.random() < CHAMPION_SHARE or not self.recent else rng.choice(self.recent)
        reason = f"{parent.name} leads, number {self.made}"
        if move is Move.REPLICATE:
            node = Known(name, parent.template, parent.recipe, rng.gauss(parent.score, SEED_SD), parent.seed + 1)
            return Choice(parent=parent.name, move=move, reason=reason), node
        template, other = parent.template, None
        if move is Move.COMBINE and self.recent:
            other = rng.choice(self.recent).name
        if move in (Move.IMPROVE, Move.COMBINE):
            near = template.below if rng.random() < NEAR_SHARE else []
            template = rng.choice(near or self.known)
        elif move is Move.ABLATE and template.above is not None:
            template = template.above
        return Choice(parent=parent.name, move=move, other=other, reason=reason), self._varied(name, template)

    def _varied(self, name: str, template: Template) -> Known:
        """An experiment with the template's structure and some numbers of its own."""
        rng, space = self.rng, edit.space_of(template.recipe)
        numbers: dict[str, Value] = {}
        for path in rng.sample(sorted(space), min(MOST_NUMBERS, len(space))):
            dimension = space[path]
            drawn = rng.uniform(dimension.low, dimension.high)
            numbers[path] = rng.choice(dimension.choices) if dimension.choices else drawn
            if dimension.integer and not dimension.choices:
                numbers[path] = round(drawn)
        score = min(0.98, max(0.02, 0.6 + template.effect + rng.gauss(0.0, ERROR)))
        return Known(name, template, edit.with_numbers(template.recipe, numbers), score)

    def _proposal(self, choice: Choice, node: Known) -> Proposal:
        changed = choice.move in (Move.DRAFT, Move.IMPROVE)
        return Proposal(
            recipe=node.recipe,
            kind=node.template.kind if changed else f"{choice.move.value}.numbers",
            hypothesis=f"It may help {choice.parent}, as it did in one of {self.made} others.",
            change=f"{node.template.kind} for {node.name}",
            expected_effect=0.01,
            refuted_by=f"{node.name} scores no higher than {choice.parent}",
            proposer="playbook",
            seed=node.seed,
        )

    # --- ending -------------------------------------------------------------------------------------------------------

    def _ended(self, node: Known, proposed: Proposed) -> Iterator[Body]:
        rng, name = self.rng, node.name
        end = "scored" if len(self.recent) < len(MOVES) else rng.choices(list(ENDS), list(ENDS.values()))[0]
        failure = Failure(boundary="train", kind="nan", message=f"The loss of {name} is not a number.")
        units = tuple(
            UnitResult(name=f"fold-{i}", outputs=f"{rng.getrandbits(256):064x}", wall_s=rng.random())
            for i in range(0 if end == "failed" else FOLDS)
        )
        usage = Usage(wall_s=proposed.nominal_s, cpu_s=proposed.nominal_s, max_rss_mb=300.0)
        found = failure if end == "failed" else None
        result = JobResult(job=f"{name}-search", units=units, usage=usage, failure=found)
        yield JobFinished(job=result.job, experiment=name, purpose="search", result=result)
        if end != "failed":
            yield Evaluated(evaluation=_evaluation(node, 1 if end == "raced" else FOLDS, rng))
        analysis = self._analysis(node, proposed, end)
        if end == "failed":
            self.broken = node
        elif end == "scored":
            self.recent.append(node)
            if self.champion is None or node.score > self.champion.score + ERROR:
                self.champion = node
        yield Analysed(experiment=name, analysis=analysis, champion=self.champion.name if self.champion else None)

    def _analysis(self, node: Known, proposed: Proposed, end: str) -> Analysis:
        rng, rival = self.rng, self.champion
        shown = tuple(
            Confusion(truth=f"intent {i}", predicted=f"intent {i + 1}", count=3, ids=(f"{rng.getrandbits(64):016x}",))
            for i in range(3)
        )
        if end in ("failed", "unscored") or rival is None:
            verdict = end if end in ("failed", "unscored") else "tie"
            return Analysis.model_validate(
                {"verdict": verdict, "against": None, "difference": None, "cause": node.name}
            )
        gap = node.score - rival.score
        low, high = gap - 2 * ERROR, gap + 2 * ERROR
        verdict = "raced" if end == "raced" else "discard" if high < 0 else "retest" if rng.random() < 0.05 else "tie"
        return Analysis.model_validate(
            {
                "verdict": verdict,
                "against": proposed.choice.parent,
                "difference": Difference(value=gap, low=low, high=high, p=0.5, n=ITEMS),
                "cause": f"{node.name} does not lead (believed gain {gap:+.3f})",
                "rival": rival.name,
                "gain": None if end == "raced" else Estimate(value=gap / 2, low=low / 2, high=high / 2, n=ITEMS),
                "seed_sd": SEED_SD,
                "confusions": shown,
            }
        )

    def _numbered(self, bodies: list[Body]) -> tuple[Event, ...]:
        first = self.written + 1
        self.written += len(bodies)
        return tuple(Event(seq=n, at=1e9 + n, clock=float(n), body=body) for n, body in enumerate(bodies, first))


def templates(rng: Random) -> list[Template]:
    """The starting points of a task with two base models, and what some plays make of them."""
    known = [
        Template(draft.recipe, draft.kind, rng.gauss(0.0, 0.03)) for base in TASK.base_models for draft in drafts(base)
    ]
    while len(known) < TEMPLATES:
        above = rng.choice(known)
        play = rng.choice(PLAYS)
        if above.depth < DEEPEST and play.applies(above.recipe, TASK):
            made = play.apply(above.recipe, TASK)
            if edit.valid(made):
                effect = above.effect + rng.gauss(0.0, 0.01)
                known.append(Template(made, play.kind, effect, above, above.depth + 1))
                above.below.append(known[-1])
    return known


def _begun(proposed: Proposed) -> list[Body]:
    name = proposed.experiment
    units = tuple(f"fold-{i}" for i in range(FOLDS))
    reserved = 3 * proposed.nominal_s
    return [
        proposed,
        JobStarted(job=f"{name}-search", experiment=name, purpose="search", units=units, reserved_s=reserved),
    ]


def _evaluation(node: Known, units: int, rng: Random) -> Evaluation:
    low, high = node.score - 2 * ERROR, node.score + 2 * ERROR
    return Evaluation(
        experiment=node.name,
        split="search",
        seed=node.seed,
        metric="accuracy",
        estimate=Estimate(value=node.score, low=low, high=high, n=ITEMS * units // FOLDS),
        metrics={"accuracy": node.score, "macro_f1": node.score - 0.01, "mcc": node.score - 0.02},
        threshold=0.5,
        items=f"{rng.getrandbits(256):064x}",
        units=units,
        units_planned=FOLDS,
    )
