"""HINT3 (Arora et al. 2020, arXiv 2009.13833): whole searches from train rows alone, then the frozen recipe over seeds.

For each bot and repeat one search is run; label versions whose train files are equal share it. The champion's recipe
and its threshold are then frozen and trained again with other seeds, and every version's test file is scored once a
seed. The published systems are read from their own prediction files and, as published, take the threshold that is best
on the test labels; ours never sees them. Resumable: what is on disk is not done again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Sequence

from postgrad.bench.base import BenchSpec, whole_number
from postgrad.bench.published import compare_with_published, holm
from postgrad.bench.signals import correlations, signals
from postgrad.budget import parse_budget
from postgrad.data.hint3 import HINT3_OUT_OF_SCOPE
from postgrad.data.sources import load_rows
from postgrad.errors import PostgradError, UserError
from postgrad.evaluate.evaluator import UnitOutputs, all_metrics, read_outputs
from postgrad.evaluate.sealed import Questions, sealed_items
from postgrad.events import Event
from postgrad.metrics.items import Items
from postgrad.records import DataSpec, EngineSpec, Row, SearchSpec, TaskSpec
from postgrad.runner import drive, opened, resume_event, start_run
from postgrad.seal import sealed_job
from postgrad.session import Session, run_started
from postgrad.side_by_side import apart
from postgrad.spec.keys import DEFAULT_BASE_MODEL
from postgrad.store.sqlite import SqliteStore

SEEDS = 5
FROZEN_SEED = 5000
SIGNALS = ("first", "all", "no")
PAPER = "in_scope_accuracy_at_0.1"
SHOWN = (
    "mcc",
    "macro_f1",
    "unthresholded_accuracy",
    PAPER,
    "in_scope_accuracy",
    "out_of_scope_recall",
    "weighted_f1",
    "auroc",
)
GOALS = {
    ("sofmattress", "v1"): {"mcc": 0.638, PAPER: 0.736},
    ("curekart", "v1"): {"mcc": 0.621, PAPER: 0.841},
    ("sofmattress", "v2"): {"mcc": 0.68},
    ("curekart", "v2"): {"mcc": 0.631},
}


@dataclass(frozen=True)
class Search:
    """One whole search: a bot, the versions that share its train file, and a repeat."""

    bot: str
    versions: tuple[str, ...]
    repeat: int

    @property
    def name(self) -> str:
        return f"{self.bot}-{'-'.join(self.versions)}-r{self.repeat}"


def _rows(bot: str, version: str, part: str) -> tuple[Row, ...]:
    return load_rows(f"hint3:{bot}/{version}", part=part, input="sentence", target="label")


def searches(bots: Sequence[str], versions: Sequence[str], repeats: int) -> list[Search]:
    """Every search, the first repeat of each bot before the second of any."""
    groups: list[tuple[str, tuple[str, ...]]] = []
    for bot in bots:
        by_train: dict[tuple[Row, ...], list[str]] = {}
        for version in versions:
            by_train.setdefault(_rows(bot, version, "train"), []).append(version)
        groups += [(bot, tuple(shared)) for shared in by_train.values()]
    return [Search(bot, shared, repeat) for repeat in range(repeats) for bot, shared in groups]


class Hint3:
    """The benchmark."""

    options = {
        "bots": ("sofmattress,curekart", "which bots"),
        "versions": ("v1,v2", "which label versions"),
        "budget": ("10m", "budget of one search"),
        "repeats": ("3", "whole searches for each bot"),
        "policy": ("posterior", "search policy"),
        "signal": (
            "first",
            "train every recipe that was tried and report rank correlations with the test score: "
            "of the first repeat, of all, or no",
        ),
    }

    def run(self, spec: BenchSpec, say: Callable[[str], None]) -> dict[str, Any]:
        options = dict(spec.options)
        seeds = SEEDS
        if spec.quick:
            options |= {"bots": "sofmattress", "versions": "v2", "budget": "4 experiments", "repeats": "1"}
            options |= {"signal": "no"}
            seeds = 1
        if options["signal"] not in SIGNALS:
            raise UserError(f"--signal is '{options['signal']}'; expected one of: {', '.join(SIGNALS)}.")
        done = []
        todo = searches(options["bots"].split(","), options["versions"].split(","), whole_number(options, "repeats"))
        for search in todo:
            say(f"search {search.name}")
            with opened(self._store(search, spec.folder, options)) as session:
                drive(session)
                frozen = _frozen(session, search, spec.folder / search.name, seeds, say)
                wanted = options["signal"] == "all" or (options["signal"] == "first" and search.repeat == 0)
                signal = _signal(session, search, spec.folder / search.name, say) if wanted else None
                done.append({**_search_facts(session, search), "frozen": frozen, "signal": signal})
        return {"options": options, "searches": done, "table": summarise(done), "goals_note": _NOTE}

    def _store(self, search: Search, root: Path, options: dict[str, str]) -> SqliteStore:
        """The store of one search: of the run that is there already, or of a new one.

        Raises:
            UserError: the run that is there was made with other options.
        """
        place = root / search.name
        task = TaskSpec(
            name=search.name,
            objective=f"Route customer messages of the {search.bot} bot to intents and reject what none covers.",
            data=DataSpec(
                train=f"hint3:{search.bot}/{search.versions[-1]}",
                test=f"hint3:{search.bot}/{search.versions[-1]}",
                input="sentence",
                target="label",
                out_of_scope=HINT3_OUT_OF_SCOPE,
            ),
            metric="mcc",
            min_effect=0.005,
            base_models=(DEFAULT_BASE_MODEL,),
            budget=parse_budget(options["budget"]),
            search=SearchSpec(policy=options["policy"]),
            engine=EngineSpec(),
            seed=search.repeat,
        )
        for found in sorted(place.glob(f"{search.name}-*/events.sqlite")):
            store = SqliteStore.open(found.parent, write=True)
            if not (events := store.events()):
                store.close()
                continue
            before = run_started(store, events).task
            if (before.budget, before.search) != (task.budget, task.search):
                store.close()
                raise UserError(
                    f"{found.parent} was searched with another budget or policy. Give the same options as then, or "
                    "name another --folder."
                )
            if not any(event.body.type == "run_ended" for event in events):
                resume_event(store, None, "the benchmark was called again")
            return store
        return start_run(task, place)


_NOTE = (
    "Published figures are best-threshold figures: the threshold was chosen on the test labels. Ours is chosen from "
    "train rows alone, before the test file is read."
)


def _search_facts(session: Session, search: Search) -> dict[str, Any]:
    certified = session.certified
    assert certified is not None
    node = session.tree[certified.champion]
    return {
        "search": search.name,
        "bot": search.bot,
        "versions": list(search.versions),
        "repeat": search.repeat,
        "experiments": len(session.tree),
        "failures": len(session.tree.failed()),
        "champion": node.id,
        "recipe": node.proposed.proposal.recipe.model_dump(mode="json"),
        "search_score": node.score,
        "threshold": certified.threshold,
        "wall_s": round(session.ledger.spent.wall_s, 1),
        "outside_jobs": round(outside_jobs(session.store.events()), 4),
    }


def outside_jobs(events: Sequence[Event]) -> float:
    """Share of controller time in which no job was under way."""
    open_jobs: set[str] = set()
    idle, since = 0.0, 0.0
    for event in events:
        if not open_jobs:
            idle += max(0.0, event.clock - since)
        since = event.clock
        body = event.body
        if body.type in ("run_resumed", "search_ended"):  # Jobs of a dead controller, and jobs that were cut off.
            open_jobs.clear()
        elif body.type == "job_started":
            open_jobs.add(body.job)
        elif body.type == "job_finished":
            open_jobs.discard(body.job)
    return idle / since if since else 0.0


def _answers(
    session: Session, wanted: Sequence[tuple[str, int]], place: Path, what: str
) -> dict[tuple[str, int], UnitOutputs]:
    """Outputs on the test inputs of each (experiment, seed) that could be trained. Kept in `place`, a few at a time, so
    that a benchmark that is stopped loses little."""
    place.mkdir(parents=True, exist_ok=True)
    index = place / f"{what}.json"
    known: dict[str, str] = json.loads(index.read_text()) if index.exists() else {}
    owed = [(name, seed) for name, seed in wanted if f"{name}/{seed}" not in known]
    size = 2 * session.executor.engine.slots
    for start in range(0, len(owed), size):
        jobs = {
            f"{name}/{seed}": sealed_job(session, name, save_model=False, seed=seed)
            for name, seed in owed[start : start + size]
        }
        results = apart(session, list(jobs.values()))
        for key, job in jobs.items():
            if results[job.id].failure is None:
                known[key] = results[job.id].units[0].outputs
        unfinished = index.with_suffix(".part")
        unfinished.write_text(json.dumps(known))
        unfinished.replace(index)
    read = session.store.artifacts.read
    there = [(name, seed) for name, seed in wanted if f"{name}/{seed}" in known]
    found = {(name, seed): read_outputs(read(known[f"{name}/{seed}"])) for name, seed in there}
    return {key: outputs for key, outputs in found.items() if isinstance(outputs, UnitOutputs)}


def _questions(session: Session, bot: str, version: str) -> Questions:
    return Questions(
        rows=_rows(bot, version, "test"), labels=session.plan.labels, out_of_scope=session.plan.out_of_scope
    )


def _frozen(
    session: Session, search: Search, place: Path, seeds: int, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Version -> metrics of the frozen recipe at its frozen threshold, one value a seed."""
    certified = session.certified
    assert certified is not None
    say(f"  frozen recipe of {certified.champion}, {seeds} seeds")
    first = FROZEN_SEED + SEEDS * search.repeat
    wanted = [(certified.champion, first + i) for i in range(seeds)]
    answers = list(_answers(session, wanted, place, "frozen").values())
    if not answers:
        raise PostgradError(f"None of the {seeds} trainings of {search.name}'s frozen recipe succeeded.")
    result: dict[str, dict[str, Any]] = {}
    for version in search.versions:
        questions = _questions(session, search.bot, version)
        items = [sealed_items(outputs, questions, certified.threshold) for outputs in answers]
        values = [
            {**all_metrics(answered), PAPER: _at_a_tenth(outputs, answered)}
            for outputs, answered in zip(answers, items, strict=True)
        ]
        result[version] = {name: [round(v[name], 4) for v in values] for name in SHOWN}
        result[version]["published"] = compare_with_published(search.bot, questions, items[0])
    return result


def _at_a_tenth(outputs: UnitOutputs, items: Items) -> float:
    """The paper's own figure: share of in-scope rows with the right answer and a probability of at least 0.1."""
    inside = items.labelled.truth >= 0
    right = (items.labelled.argmax == items.labelled.truth) & (outputs.probs.max(1) >= 0.1)
    return float(right[inside].mean())


def _signal(session: Session, search: Search, place: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Rank correlation of search signals with the test score over the recipes that were tried, one training each."""
    nodes = [node for node in session.tree.scored() if node.proposed.proposal.kind != "reference.constant"]
    say(f"  signal: {len(nodes)} recipes")
    version = search.versions[-1]
    questions = _questions(session, search.bot, version)
    recipes: list[dict[str, Any]] = []
    answers = _answers(session, [(node.id, FROZEN_SEED) for node in nodes], place, "signal")
    for node in nodes:
        outputs = answers.get((node.id, FROZEN_SEED))
        evaluation, items = node.evaluation, session.items(node)
        if outputs is None or evaluation is None or items is None:
            continue
        values = all_metrics(sealed_items(outputs, questions, evaluation.threshold))
        recipes.append(
            {
                "experiment": node.id,
                "kind": node.proposed.proposal.kind,
                "test": values["mcc"],
                "test_auroc": values["auroc"],
                "signals": {"search_mcc": node.score, **signals(items)},
            }
        )
    return {"version": version, "correlations": correlations(recipes), "recipes": recipes}


def summarise(done: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each bot and version: mean and sd over all seeds of all searches, beside the goals."""
    import numpy as np

    rows: list[dict[str, Any]] = []
    for bot, version in sorted({(d["bot"], v) for d in done for v in d["versions"]}):
        runs = [d["frozen"][version] for d in done if d["bot"] == bot and version in d["versions"]]
        row: dict[str, Any] = {"bot": bot, "version": version, "searches": len(runs)}
        for name in SHOWN:
            means = [float(np.mean(run[name])) for run in runs]
            every = [value for run in runs for value in run[name]]
            row[name] = round(float(np.mean(every)), 4)
            row[f"{name}_sd"] = round(float(np.std(every, ddof=1)), 4) if len(every) > 1 else None
            row[f"{name}_by_search"] = [round(mean, 4) for mean in means]
        row["goal"] = GOALS.get((bot, version), {})
        row["met"] = {name: row[name] > goal for name, goal in row["goal"].items()}
        row["published"] = [run["published"] for run in runs]
        rows.append(row)
    holm(rows)
    return rows
