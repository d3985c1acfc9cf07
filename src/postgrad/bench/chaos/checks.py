"""What has to hold of a run, whatever struck it: worked out here from its events, and compared with what it says."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any, Iterable, Sequence

import psutil

from postgrad.bench.chaos.scripted import timeless
from postgrad.budget import Ledger
from postgrad.events import Event, JobFinished, RunStarted
from postgrad.records import Budget, Recipe
from postgrad.store.artifacts import Artifacts
from postgrad.tree import Tree

HALF = (".gone", ".part", ".own", ".unfinished", ".tmp", "-journal", ".new", ".kept")
ONCE = ("run_started", "data_prepared", "search_ended", "certified", "sealed_done", "run_ended")
SAVED = "postgrad.json"
# Sums of floating-point numbers in another order.
NEAR = 1e-6


# --- the log ----------------------------------------------------------------------------------------------------------


def order(events: Sequence[Event]) -> list[str]:
    """What is wrong with what happened when. Holds of a run that is not over, too."""
    wrong: list[str] = []
    open_jobs: Counter[str] = Counter()
    worked: set[str] = set()
    known: dict[str, str | None] = {}
    closed: set[str] = set()
    live: set[str] = set()
    counts: Counter[str] = Counter(event.body.type for event in events)
    refused = sum(event.body.type == "final_model" and event.body.refused is not None for event in events)
    for kind in ONCE:
        if counts[kind] > 1 + (refused if kind == "certified" else 0):
            wrong.append(f"{kind} is there {counts[kind]} times")
    for event in events:
        body, at = event.body, f"event {event.seq}"
        if body.type == "proposed":
            if body.experiment != f"e{len(known):04d}":
                wrong.append(f"{at}: {body.experiment} was proposed after {len(known)} others")
            if body.choice.parent is not None and body.choice.parent not in known:
                wrong.append(f"{at}: the parent of {body.experiment} is no experiment")
            known[body.experiment] = body.choice.parent
        elif body.type == "run_resumed":
            live.clear()  # What was under way is begun again, or fetched.
        elif body.type == "job_started":
            if body.job in live:
                wrong.append(f"{at}: {body.job} began twice")
            live.add(body.job)
            open_jobs[body.job] += 1
        elif body.type == "job_finished":
            untried = body.result.failure is not None and not body.result.usage.wall_s
            if not open_jobs[body.job] and not untried:
                wrong.append(f"{at}: {body.job} ended and had not begun")
            open_jobs[body.job] = 0
            live.discard(body.job)
            if body.job in worked:
                wrong.append(f"{at}: {body.job} is on the account twice")
            if body.result.failure is None:
                worked.add(body.job)
        elif body.type == "analysed":
            if body.experiment in closed or body.experiment not in known:
                wrong.append(f"{at}: {body.experiment} was closed twice, or never proposed")
            closed.add(body.experiment)
    return wrong + measurements(events)


def measurements(events: Sequence[Event]) -> list[str]:
    """What was measured twice, or without the answers of a job. Holds of a run that is not over, too."""
    wrong: list[str] = []
    given: Counter[tuple[str, str]] = Counter()
    seen: set[str] = set()
    for event in events:
        body, at = event.body, f"event {event.seq}"
        if body.type == "job_finished" and body.result.failure is None:
            given[body.experiment, body.purpose] += len(body.result.units)
        elif body.type == "evaluated":
            found = body.evaluation
            if found.units > given[found.experiment, found.split]:
                wrong.append(f"{at}: more of {found.experiment} was measured than its jobs have given")
            if (line := found.model_dump_json()) in seen:
                wrong.append(f"{at}: {found.experiment} was measured twice")
            seen.add(line)
        elif body.type == "final_model":
            if (line := f"final {body.experiment}") in seen:
                wrong.append(f"{at}: the final model of {body.experiment} was looked at twice")
            seen.add(line)
    return wrong


def repeated(events: Sequence[Event]) -> list[str]:
    """Jobs of the search that are recorded twice: only a final training that failed is tried again by its name."""
    ended = Counter(e.body.job for e in events if e.body.type == "job_finished" and e.body.purpose != "sealed")
    return [f"{job} ended {count} times" for job, count in ended.items() if count > 1]


# --- the account ------------------------------------------------------------------------------------------------------


def account(events: Sequence[Event]) -> dict[str, float]:
    """What the run has spent, added up by other means than those of the ledger."""
    jobs = [event.body for event in events if isinstance(event.body, JobFinished)]
    extra = [event.body.usage for event in events if event.body.type == "rebuilt" or event.body.type == "job_stopped"]
    used = [*(job.result.usage for job in jobs), *extra]
    return {
        "wall_s": max(event.clock for event in events),
        "cpu_s": sum(usage.cpu_s for usage in used),
        "gpu_s": sum(usage.gpu_s for usage in used),
        "usd": sum(usage.usd for usage in used),
        "experiments": sum(event.body.type == "proposed" for event in events),
        "jobs": len(jobs),
        "failures": sum(job.result.failure is not None for job in jobs),
    }


def ledger(
    events: Sequence[Event], said: dict[str, Any] | None, alive_s: float, slots: int, real_s: float
) -> list[str]:
    """Whether the account is exact.

    Args:
        said: what the run said that it had spent; None where it did not end.
        alive_s: seconds for which a controller of the run lived.
        real_s: seconds from its beginning to now.
    """
    wrong: list[str] = []
    mine, walls = account(events), [0.0]
    theirs = Ledger(Budget())
    for event in events:
        theirs = theirs.with_event(event)
        walls.append(theirs.spent.wall_s)
    if walls != sorted(walls):
        wrong.append("the time that was spent became less")
    for name, value in mine.items():
        for whose, found in (("the ledger", theirs.spent.model_dump()), ("the summary", said)):
            if found is not None and abs(found[name] - value) > NEAR * max(1.0, abs(value)):
                wrong.append(f"{name} is {value:g} by the events, and {whose} says {found[name]:g}")
    if mine["wall_s"] > alive_s:
        wrong.append(f"{mine['wall_s']:.1f} s are charged, and controllers lived for {alive_s:.1f} s")
    worked = sum(e.body.result.usage.wall_s for e in events if isinstance(e.body, JobFinished))
    if worked > slots * real_s:
        wrong.append(f"jobs are charged {worked:.1f} s, and {slots} workers had {slots * real_s:.1f} s")
    return wrong


# --- the end ----------------------------------------------------------------------------------------------------------


def is_script(events: Sequence[Event]) -> bool:
    """Whether the task of the run is a script."""
    return any(isinstance(event.body, RunStarted) and event.body.task.script is not None for event in events[:1])


def traces(events: Sequence[Event]) -> list[str]:
    """Whether everything in a run that has ended left what it has to: jobs an end, what was measured a measurement."""
    tree, bodies = Tree.from_events(events), [event.body for event in events]
    over = {body.job for body in bodies if body.type == "job_finished" or body.type == "job_stopped"}
    begun = dict.fromkeys(body.job for body in bodies if body.type == "job_started")
    wrong = [f"{job} began, and nothing says how it ended" for job in begun if job not in over]
    results = {node.id: [result for result in node.results if result.failure is None] for node in tree.all()}
    unmeasured = [node.id for node in tree.all() if node.evaluation is None and node.failure is None]
    wrong += [f"{name} was answered and not measured" for name in unmeasured if results[name]]
    broken = {body.experiment for body in bodies if body.type == "job_finished" and body.result.failure is not None}
    chosen = {name for body in bodies if body.type == "search_ended" for name in body.finalists}
    lacking = [name for name in sorted(chosen - broken & set(tree.experiments)) if not tree[name].select]
    wrong += [f"the finalist {name} was not measured on the select items" for name in lacking]
    for champion in {body.champion for body in bodies if body.type == "certified"} - broken:
        own = [body for body in bodies if getattr(body, "experiment", "") == champion]
        if not any(body.type == "final_model" for body in own):
            wrong.append(f"nothing says whether the final model of {champion} was accepted")
        if not any(body.type == "job_finished" and body.purpose == "sealed" for body in own):
            wrong.append(f"{champion} was read on the sealed items without a job")
    return wrong


def dead_end(events: Sequence[Event], said: str) -> list[str]:
    """What is wrong with a run that stopped for good: nothing, where its baseline failed and it has nothing to improve
    on."""
    first = next(iter(Tree.from_events(events).all()), None)
    return [] if first is not None and first.failure is not None else [f"it cannot be resumed: {said}"]


def ended(run: Path, events: Sequence[Event], experiments: int, lost: Iterable[str]) -> list[str]:
    """Whether the tree of a run that has ended is whole, and what it names is there.

    Args:
        lost: artefacts that were deleted, and may not be missed by anybody.
    """
    tree, wrong = Tree.from_events(events), traces(events)
    bodies = {event.body.type: event.body for event in events}
    if len(tree) != experiments:
        wrong.append(f"{len(tree)} experiments, and {experiments} were granted")
    wrong += [f"{node.id} has no analysis" for node in tree.all() if node.analysis is None]
    wrong += [f"{node.id} failed without a kind" for node in tree.all() if node.failure and not node.failure.kind]
    champion = tree.champion
    if champion is None or champion not in tree.experiments:
        wrong.append(f"the champion {champion} is no experiment")
    missing = set(ONCE) - set(bodies)
    last = next((event.body.champion for event in reversed(events) if event.body.type == "certified"), "")
    wrong += [f"it ended without {kind}" for kind in sorted(missing)]
    delivered = run / "model"
    if not missing and not (any(delivered.glob("*")) if is_script(events) else _is_of(delivered, tree, last)):
        wrong.append("the champion's model was not delivered")
    store, gone = Artifacts(run / "artifacts"), set(lost)
    for digest in sorted(named(events)):
        if digest not in gone and not store.verify(digest):
            wrong.append(f"the artefact {digest[:12]} is named and not whole")
    return wrong


def _is_of(delivered: Path, tree: Tree, champion: str) -> bool:
    """Whether a delivered model says that it was trained by the recipe of an experiment."""
    if not (delivered / SAVED).is_file() or champion not in tree.experiments:
        return False
    said = json.loads((delivered / SAVED).read_text(encoding="utf-8"))["recipe"]
    return Recipe.model_validate(said).hash == tree[champion].proposed.proposal.recipe.hash


def named(events: Sequence[Event]) -> set[str]:
    """Every artefact that is named by an event."""
    found: set[str] = set()
    for event in events:
        if event.body.type == "data_prepared":
            found.add("" if event.body.script is not None else event.body.plan)
        elif event.body.type == "job_finished":
            result = event.body.result
            found |= {unit.outputs for unit in result.units} | {result.model or "", result.trained or ""}
        elif event.body.type == "evaluated":
            found.add(event.body.evaluation.items)
    return found - {""}


def left(run: Path, patience_s: float) -> list[str]:
    """Processes, temporary files and job folders that outlive a run that has ended."""
    until = time.monotonic() + patience_s
    while (others := processes(run)) and time.monotonic() < until:
        time.sleep(0.1)
    names = [path.relative_to(run).as_posix() for path in run.rglob("*")]
    half = [name for name in names if name.endswith(HALF) or "unfinished/" in name or name.startswith("scratch")]
    return [*(f"still runs: {line}" for line in others), *(f"left behind: {name}" for name in half[:10])]


def processes(run: Path) -> list[str]:
    """Command lines of what runs in this run's folder: told by the line itself, by where it runs, or by its HOME, which
    is all there is of a script that says nothing of where it lies."""
    found = []
    for process in psutil.process_iter(["cmdline", "status", "cwd", "environ"]):
        facts = process.info
        line = " ".join(facts["cmdline"] or ())
        places = [line, f"{facts['cwd']}{os.sep}", *(facts["environ"] or {}).values()]
        if facts["status"] != psutil.STATUS_ZOMBIE and any(f"{run}{os.sep}" in place for place in places):
            found.append(line[:300])
    return found


# --- beside a run that nothing struck ---------------------------------------------------------------------------------


def outline(events: Sequence[Event]) -> str:
    """Everything of a run that may not depend on when what was killed: the tree, its scores, the end. No times."""
    parts: list[Any] = []
    for node in Tree.from_events(events).all():
        parts.append([node.proposed.model_dump(mode="json"), node.analysis and node.analysis.model_dump(mode="json")])
        scores = (node.evaluation, *node.select)
        parts += [found.model_dump(mode="json") for found in scores if found is not None]
    ends = ("data_prepared", "search_ended", "certified", "final_model", "sealed_done")
    parts += [event.body.model_dump(mode="json") for event in events if event.body.type in ends]
    return json.dumps(timeless(parts) if is_script(events) else parts, sort_keys=True)
