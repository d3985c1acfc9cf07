"""FT-Bench's tasks (TREX, Ma et al. 2026, arXiv 2604.14116), each as `postgrad run` would run it, with a budget each.

For every task one whole run: search, certificate, and the sealed read of champion and references. Reported is what the
champion gains over the untouched base model on the same test rows, and the relative gain where a reference score is
established for the task's metric. A base model that the budget had no room for is asked afterwards, outside of it: a
gain needs a start. Resumable: a task that is done is kept, and a run that was stopped goes on.
"""

from __future__ import annotations

import csv
import json
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

from postgrad.bench.base import BenchSpec
from postgrad.bench.ftbench_table import markdown, rows_of
from postgrad.budget import format_budget
from postgrad.errors import PostgradError, UserError, near_miss
from postgrad.evaluate.sealed import Questions, sealed_items
from postgrad.evaluate.statistics import difference, estimate
from postgrad.evaluate.statistics.relative_gain import RelativeGain, relative_gain
from postgrad.metrics import metric_of
from postgrad.metrics.items import Items
from postgrad.prepare import load_parts
from postgrad.records import Estimate, SealedRead, SealedScore, TaskSpec
from postgrad.research.references import reference_recipes
from postgrad.runner import drive, opened, resume_event, start_run
from postgrad.seal import sealed_job
from postgrad.session import Session, run_started
from postgrad.side_by_side import apart
from postgrad.spec import load_task
from postgrad.store.sqlite import SqliteStore

# Those whose data can be had as files with known hashes. Of LawBench's tasks, 2-4 has texts that are short enough.
USUAL = ("sst2", "aci-bench", "hoc", "cs-bench", "lawbench-2-4", "omebench")
ASKED_AFTERWARDS = ("base_model", "few_shot")
ROLES = ("champion", "base_model", "few_shot", "baseline", "constant")
REFERENCES = "ftbench_references.csv"


class FtBench:
    """The benchmark."""

    options = {
        "only": (",".join(USUAL), "which tasks: names of task files, with commas"),
        "budget": ("10m", "budget of each task"),
        "tasks": ("examples/ftbench", "the folder of the task files"),
    }

    def run(self, spec: BenchSpec, say: Callable[[str], None]) -> dict[str, Any]:
        options = dict(spec.options)
        if spec.quick:
            options |= {"only": "sst2", "budget": "4 experiments"}
        folder = Path(options["tasks"])
        todo = {name: _task_file(folder, name) for name in _names(options["only"])}
        for name, file in todo.items():
            say(f"task {name}")
            result = {**_one(name, file, options["budget"], spec, say), "command": spec.command}
            _keep(spec.folder / f"{name}.json", result)
            say(f"  {result['status']}" + (f": {result['reason']}" if result.get("reason") else ""))
        tasks = [json.loads(path.read_text(encoding="utf-8")) for path in _kept(spec.folder)]
        return {"options": options, "tasks": tasks, "table": rows_of(tasks), "markdown": markdown(tasks)}


def _names(text: str) -> list[str]:
    """Names with commas; `lawbench/3-1` is the task file `lawbench-3-1`."""
    return list(dict.fromkeys(name.strip().replace("/", "-") for name in text.split(",") if name.strip()))


def _task_file(folder: Path, name: str) -> Path:
    path = folder / f"{name}.yaml"
    if path.is_file():
        return path
    known = sorted(each.stem for each in folder.glob("*.yaml"))
    if not known:
        raise UserError(
            f"{folder} holds no task file. Run this in the project's folder, or name theirs: --tasks FOLDER."
        )
    raise UserError(f"There is no task '{name}' in {folder}.{near_miss(name, known)} There are: {', '.join(known)}.")


def _kept(folder: Path) -> list[Path]:
    """The results in this folder, the usual tasks first."""
    order = {name: place for place, name in enumerate(USUAL)}
    return sorted(folder.glob("*.json"), key=lambda path: (order.get(path.stem, len(order)), path.stem))


def _keep(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf-8")
    unfinished.replace(path)


def _one(name: str, file: Path, budget: str, spec: BenchSpec, say: Callable[[str], None]) -> dict[str, Any]:
    """What came of one task: done, skipped (its data or a library is not here), or failed, with the reason."""
    try:
        task = load_task(file, {"budget": budget})
        metric_of(task.metric)
        load_parts(task)
    except UserError as missing:
        return {"task": name, "status": "skipped", "reason": str(missing)}
    told = {
        "task": name,
        "metric": task.metric,
        "base_model": ", ".join(task.base_models),
        "budget": format_budget(task.budget),
        "run": f"postgrad run {shlex.quote(file.as_posix())} --budget {shlex.quote(budget)}",
    }
    kept = spec.folder / f"{name}.json"
    before = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    try:
        with opened(_store(task, file, spec.folder / name)) as session:
            if session.sealed is not None and before.get("status") == "done":
                say("  done before")
                return {key: value for key, value in before.items() if key != "command"}
            if session.sealed is None:
                drive(session)
            return {**told, "status": "done", **_facts(session, name, say)}
    except PostgradError as failed:
        return {**told, "status": "failed", "reason": str(failed)}


def _store(task: TaskSpec, file: Path, place: Path) -> SqliteStore:
    """The store of a task's run: of the one that is there already, or of a new one.

    Raises:
        UserError: the run that is there was made with another task file or budget.
    """
    for found in sorted(place.glob(f"{task.name}-*/events.sqlite")):
        store = SqliteStore.open(found.parent, write=True)
        if not (events := store.events()):
            store.close()
            continue
        if run_started(store, events).task != task:
            store.close()
            raise UserError(
                f"{found.parent} was run with another task file or budget. Give the same as then, remove that folder, "
                "or name another --folder."
            )
        if not any(event.body.type in ("run_ended", "sealed_done") for event in events):
            resume_event(store, None, "the benchmark was called again")
        return store
    return start_run(task, place, file)


def _facts(session: Session, name: str, say: Callable[[str], None]) -> dict[str, Any]:
    """What the sealed read of a run says, and what its base model would have said."""
    assert session.sealed is not None
    read = session.sealed.read
    roles: dict[str, SealedScore] = {score.role: score for score in read.scores}
    items = {role: _items(session, score.outputs, score.threshold) for role, score in roles.items()}
    missing = [role for role in ASKED_AFTERWARDS if role not in items]
    later, failures = _asked_afterwards(session, missing, say)
    metric, seed = metric_of(read.metric), session.task.seed
    scores: dict[str, Estimate] = {role: score.estimate for role, score in roles.items()}
    scores |= {role: estimate(metric, answered, seed=seed) for role, answered in later.items()}
    champion = session.tree[roles["champion"].experiment]
    return {
        "rows": read.n,
        "scores": {role: scores[role].model_dump() for role in ROLES if role in scores},
        "asked_afterwards": sorted(later),
        "not_asked": failures,
        "champion": {
            "experiment": champion.id,
            "kind": champion.proposed.proposal.kind,
            "recipe": champion.proposed.proposal.recipe.model_dump(mode="json"),
        },
        "winner": _winner(scores, [role for role, score in roles.items() if score.experiment == champion.id]),
        "certified": read.refused is None,
        "experiments": len(session.tree),
        "failed_experiments": len(session.tree.failed()),
        "seconds": round(session.ledger.spent.wall_s, 1),
        **_gains(name, read, {**items, **later}, seed),
    }


def _gains(name: str, read: SealedRead, items: Mapping[str, Items], seed: int) -> dict[str, Any]:
    """The difference to the base model and the relative gain; None where there is no base or no reference."""
    if "base_model" not in items:
        return {"difference": None, "relative_gain": None}
    metric, tuned, base = metric_of(read.metric), items["champion"], items["base_model"]
    gap = difference(metric, tuned, base, seed=seed).model_dump()
    known = references().get(name)
    if known is None or known["metric"] != read.metric:
        return {"difference": gap, "relative_gain": None}
    gain: RelativeGain = relative_gain(metric, tuned, base, float(known["reference"]), seed=seed)
    return {"difference": gap, "relative_gain": {**vars(gain), "reference": known}}


def _winner(scores: Mapping[str, Estimate], same: Sequence[str]) -> str:
    """The role with the highest score. A champion that is one of the references (`same`) goes by that one's name."""
    value = {role: scores[role].value for role in ROLES if role in scores}
    # A score that is not defined loses to every other.
    best = max(value, key=lambda role: value[role] if value[role] == value[role] else float("-inf"))
    return next((role for role in same if role != "champion"), best) if best == "champion" else best


def _items(session: Session, outputs: str, threshold: float | None) -> Items:
    """Stored answers to the sealed rows, joined with what was to be answered."""
    plan = session.plan
    questions = Questions(
        rows=tuple(session.rows("sealed").values()),
        labels=plan.labels,
        out_of_scope=plan.out_of_scope,
        graded=plan.graded,
    )
    return sealed_items(session.outputs(outputs), questions, threshold, session.judge)


def _asked_afterwards(
    session: Session, roles: Sequence[str], say: Callable[[str], None]
) -> tuple[dict[str, Items], dict[str, str]]:
    """Untouched models that the run proposed and had no time for: role -> their answers; role -> why there are none.

    A task that rejects has no threshold for them, so they are left out there.
    """
    kinds = {f"reference.{role}": role for role in roles}
    found = {
        kinds[node.proposed.proposal.kind]: node.id
        for node in session.tree.all()
        if node.index < len(reference_recipes(session.task)) and node.proposed.proposal.kind in kinds
    }
    if not found or session.plan.out_of_scope is not None:
        return {}, {}
    jobs = {role: sealed_job(session, node, save_model=False) for role, node in found.items()}
    # What the run could not finish would not be finished now.
    done = {role: session.finished[job.id].result for role, job in jobs.items() if session.failures[job.id]}
    owed = {role: job for role, job in jobs.items() if role not in done}
    if owed:
        say(f"  asking afterwards: {', '.join(owed)}")
        results = apart(session, list(owed.values()))
        done |= {role: results[job.id] for role, job in owed.items()}
    failures = {role: result.failure.message for role, result in done.items() if result.failure is not None}
    answered = {role: result.units[0].outputs for role, result in done.items() if role not in failures}
    return {role: _items(session, outputs, None) for role, outputs in answered.items()}, failures


def references() -> dict[str, dict[str, str]]:
    """Task -> its line in the table of established reference scores."""
    text = files("postgrad.bench").joinpath(REFERENCES).read_text(encoding="utf-8")
    return {line["task"]: line for line in csv.DictReader(text.splitlines())}
