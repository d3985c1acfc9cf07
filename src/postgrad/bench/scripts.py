"""`postgrad bench scripts`: a script under Postgrad's rule and under that of autoresearch, from the same proposers, the
same seeds and the same number of experiments, or the same time; then the true quality of both deliveries.

On a task of yours truth is what fresh trainings score on the sealed file. On planted stand-ins it is known. Everything
is kept in the work folder, so the benchmark goes on where it stopped.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any, Callable, Mapping, Sequence

from postgrad.bench.base import BenchSpec, whole_number
from postgrad.bench.scripts_measured import Measured, Version, load, loads_of
from postgrad.bench.scripts_planted import Beside, World, planted, truth
from postgrad.bench.scripts_rules import BASELINE, EVEN, OURS, PLAIN, Played, play, run_of
from postgrad.bench.scripts_table import markdown, planted_rows, task_rows
from postgrad.bench.search import kept
from postgrad.budget import parse_budget
from postgrad.errors import PostgradError, UserError
from postgrad.events import Event
from postgrad.records import Budget, TaskSpec
from postgrad.records.base import content_hash
from postgrad.runner import machine
from postgrad.spec import load_task
from postgrad.spec.script import KILL_FACTOR, KILL_MORE_S

NONE = "none"
RULES = (OURS, PLAIN)
QUICK_EXPERIMENTS, QUICK_SEEDS, QUICK_NOISE = 10, 3, 2.0
LEAST_EXPERIMENTS, LEAST_SEEDS = 2, 2


class Scripts:
    """The benchmark."""

    options = {
        "task": ("examples/nanolm/task.yaml", "a task of kind script; none for planted stand-ins alone"),
        "experiments": ("30", "experiments of each rule"),
        "budget": ("", "what each rule may spend on the task, such as 40m, in place of --experiments"),
        "seconds": ("task", "what the script is told to train for, in place of the task's time"),
        "seeds": ("5", "fresh trainings of each version that is measured again"),
        "keeps": ("3", "keeps of each rule, drawn by chance, that are measured again; 0 for none"),
        "workers": ("1", "trainings side by side under Postgrad's rule; the other rule has one at a time"),
        "planted": ("20", "runs of each rule on planted stand-ins; 0 for none"),
        "noise": ("0.5,1,2", "standard deviation of a planted training, in typical true effects"),
    }

    def run(self, spec: BenchSpec, say: Callable[[str], None]) -> dict[str, Any]:
        """Play both rules on the task and on the stand-ins; return a row for each."""
        options = dict(spec.options)
        if spec.quick:
            options |= {"experiments": str(QUICK_EXPERIMENTS), "seeds": str(QUICK_SEEDS), "planted": "0"}
        count = whole_number(options, "experiments")
        if count < LEAST_EXPERIMENTS:
            raise UserError(f"--experiments is {count}; {LEAST_EXPERIMENTS} or more are needed to compare anything.")
        rows, told = [], {"experiments": count, "budget": options["budget"]}
        if spec.quick:
            task = planted(spec.folder / "stand-in", 0, QUICK_NOISE, count)
            rows += self._compared(task, spec.folder / "stand-in", options, say, known=True)
        elif options["task"] != NONE:
            task = _task(options)
            name = f"{task.name}-{content_hash(task.model_dump(mode='json'))[:8]}"
            rows += self._compared(task, spec.folder / name, options, say, known=False)
        if options["planted"] != "0":
            rows += self._planted(spec.folder / "planted", options, say)
        return {**told, "table": rows, "markdown": markdown(rows, told)}

    # --- a task -------------------------------------------------------------------------------------------------------

    def _compared(
        self, task: TaskSpec, folder: Path, options: dict[str, str], say: Callable[[str], None], *, known: bool
    ) -> list[dict[str, Any]]:
        """One task under both rules, and what they delivered measured again.

        Args:
            known: the script is a stand-in that prints its true loss.
        """
        seeds, keeps = whole_number(options, "seeds"), 0 if options["keeps"] == "0" else whole_number(options, "keeps")
        if seeds < LEAST_SEEDS:
            raise UserError(f"--seeds is {seeds}; {LEAST_SEEDS} or more are needed for an interval.")
        both = {rule: play(rule, task, folder / rule, _noting(rule, folder, say)) for rule in RULES}
        measured = Measured(folder / "measured", seeds, say)
        with ExitStack() as stack:
            sessions = {rule: stack.enter_context(run_of(task, folder / rule)) for rule in RULES}
            if len({session.workspace.tree_of(session.workspace.baseline) for session in sessions.values()}) > 1:
                raise PostgradError(
                    f"The source of {task.name} changed between the two rules. Remove {folder}, and begin again."
                )
            versions = {
                rule: {name: Version(session, name) for name in session.tree.experiments}
                for rule, session in sessions.items()
            }
            drawn = {rule: _drawn(both[rule].built, keeps, task.seed) for rule in RULES}
            wanted = [versions[OURS][BASELINE]]
            for rule in RULES:
                names = [both[rule].delivered, *(name for pair in drawn[rule] for name in pair)]
                wanted += [versions[rule][name] for name in names]
            measured.measure(wanted)
            rows = task_rows(task, both, versions, drawn, measured)
        loads = {rule: loads_of(folder / "loads" / rule) for rule in RULES}
        for row in rows:
            found = loads.get(row["rule"], [])
            row |= {"load": round(sum(found) / len(found), 2) if found else None, "cores": machine()["cores"]}
            if known:
                row["true_gain"] = round(_true_gain(both[row["rule"]]), 5)
        return rows

    # --- stand-ins ----------------------------------------------------------------------------------------------------

    def _planted(self, folder: Path, options: dict[str, str], say: Callable[[str], None]) -> list[dict[str, Any]]:
        """Stand-ins whose truth is known, at several sizes of noise."""
        runs, count = whole_number(options, "planted"), whole_number(options, "experiments")
        rows = []
        for noise in _noises(options["noise"]):
            found = []
            for line in kept(folder / f"{noise:g}-{count}.jsonl", runs, _player(noise, count)):
                found.append(line)
                say(f"planted, noise {noise:g}, run {len(found)} of {runs}: {_shown(line)}")
            rows += planted_rows(noise, found)
        return rows


def _player(noise: float, experiments: int) -> Callable[[int], dict[str, Any]]:
    """What plays one seed of one size of noise under both rules."""

    def play_both(seed: int) -> dict[str, Any]:
        line: dict[str, Any] = {"effect": World.drawn(seed).effect}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            ours = play(OURS, planted(folder, seed, noise, experiments), folder / OURS, _nothing, Beside())
            # Nothing that the plain rule does depends on its budget: its longer run begins with the shorter one.
            longer = planted(folder, seed, noise, max(experiments, ours.trainings))
            even = play(PLAIN, longer, folder / PLAIN, _nothing, Beside())
            plain = play(PLAIN, longer, folder / PLAIN, _nothing, Beside(), first=experiments)
            line |= {rule: planted_facts(out) for rule, out in ((OURS, ours), (PLAIN, plain), (EVEN, even))}
        return line

    return play_both


def _nothing(event: Event) -> None:
    """Nobody listens to a stand-in."""


def planted_facts(out: Played) -> dict[str, Any]:
    """What is kept of a run on a stand-in: gains are true ones, changes and keeps are counted with the false ones."""
    gain = {name: truth(said) - truth(out.said[BASELINE]) for name, said in out.said.items() if said}
    false = {
        name: sum(gain[new] <= gain[old] for new, old in pairs)
        for name, pairs in (("built", out.built), ("kept", out.kept))
    }
    return {
        "gain": gain[out.delivered],
        "best": max(gain.values()),
        "claimed": out.claimed,
        "searched": out.searched,
        "built": len(out.built),
        "false_built": false["built"],
        "kept": len(out.kept),
        "false_kept": false["kept"],
        "trainings": out.trainings,
        "failures": out.failures,
        "wall_s": round(out.wall_s, 2),
    }


def _true_gain(out: Played) -> float:
    return float(planted_facts(out)["gain"])


def _shown(line: Mapping[str, Any]) -> str:
    return ", ".join(f"{rule} {line[rule]['gain']:+.4f}, claimed {line[rule]['claimed']:+.4f}" for rule in RULES)


# --- what was asked for -----------------------------------------------------------------------------------------------


def _task(options: dict[str, str]) -> TaskSpec:
    """The task with the budget, the workers and the time of the benchmark."""
    experiments, workers = whole_number(options, "experiments"), whole_number(options, "workers")
    budget = parse_budget(options["budget"]) if options["budget"] else Budget(experiments=experiments)
    if budget.experiments is None and budget.wall_s is None:
        raise UserError(f"--budget is '{options['budget']}'; expected a time or a number of experiments, such as 40m.")
    task = load_task(Path(options["task"]), {"engine": {"workers": workers}})
    task = task.model_copy(update={"budget": budget})  # In place of the task's own, whatever that limits.
    if task.script is None:
        raise UserError(f"{options['task']} is no task of kind 'script', and this benchmark plays nothing else.")
    if not task.script.trusted:
        raise UserError(f"{options['task']} has no referee: what a script prints of itself is no true quality.")
    if options["seconds"] == "task":
        return task
    seconds = parse_budget(f"{options['seconds'].removesuffix('s')}s").wall_s
    assert seconds is not None, "what ends in s is a time"
    script = task.script.model_copy(update={"time_s": seconds, "kill_s": KILL_FACTOR * seconds + KILL_MORE_S})
    return task.model_copy(update={"script": script})


def _noises(text: str) -> list[float]:
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 <= one < 1000 for one in found):
        raise UserError(f"--noise is '{text}'; expected numbers with commas, such as --noise 0.5,1,2.")
    return found


def _drawn(built: Sequence[tuple[str, str]], most: int, seed: int) -> list[tuple[str, str]]:
    """At most so many of the changes, by chance: neither the first ones, which are often real, nor the last."""
    if len(built) <= most:
        return list(built)
    return sorted(Random(f"{seed}/keeps").sample(list(built), most))


def _noting(rule: str, folder: Path, say: Callable[[str], None]) -> Callable[[Event], None]:
    """Says what a run does, and notes the load of the machine with every training."""
    place = folder / "loads" / rule
    place.mkdir(parents=True, exist_ok=True)

    def heard(event: Event) -> None:
        body = event.body
        if body.type == "job_finished":
            with (place / "loads.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"job": body.job, "load": load()}) + "\n")
        if body.type == "analysed":
            say(f"{rule}: {body.experiment} {body.analysis.verdict}, on {body.champion}")

    return heard
