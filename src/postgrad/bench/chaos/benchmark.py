"""Rounds of chaos for so many minutes: this machine and a cluster, labels and a script in turns, and what broke."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Sequence

from postgrad.bench.base import BenchSpec, whole_number
from postgrad.bench.chaos.checks import outline
from postgrad.bench.chaos.faults import drawn, kinds_of
from postgrad.bench.chaos.play import WHOLE, Alone, Play, Played
from postgrad.bench.chaos.scene import Scene
from postgrad.errors import PostgradError, UserError
from postgrad.store.sqlite import SqliteStore

ENGINES, TASKS = ("local", "cluster"), ("labels", "script")
STRUCK = 12
QUICK_MINUTES = 1


class Chaos:
    """The benchmark."""

    options = {
        "minutes": ("30", "how long; a round that was begun is ended"),
        "seed": ("0", "decides the faults of every round, and when they strike"),
        "engine": ("both", "local, cluster, or both in turns"),
        "task": ("both", "labels, script, or both in turns"),
        "faults": (str(STRUCK), "how many strike in one round"),
    }

    def run(self, spec: BenchSpec, say: Callable[[str], None]) -> dict[str, Any]:
        minutes = QUICK_MINUTES if spec.quick else whole_number(spec.options, "minutes")
        wanted, seed = spec.options["engine"], spec.options["seed"]
        if wanted not in (*ENGINES, "both"):
            raise UserError(f"--engine is '{wanted}'; expected local, cluster or both.")
        task = spec.options["task"]
        if task not in (*TASKS, "both"):
            raise UserError(f"--task is '{task}'; expected labels, script or both.")
        engines = ENGINES if wanted == "both" else (wanted,)
        turns = [(on == "cluster", of == "script") for of in (TASKS if task == "both" else (task,)) for on in engines]
        folder, until = spec.folder.resolve(), time.monotonic() + 60.0 * minutes
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        alone = {
            of: undisturbed(folder / f"undisturbed-{TASKS[of]}", script=of) for of in sorted({of for _, of in turns})
        }
        found: list[Played] = []
        while time.monotonic() < until or not found:
            remote, script = turns[len(found) % len(turns)]
            count = whole_number(spec.options, "faults")
            scene = Scene(folder / f"round-{len(found):03d}", remote, script)
            found.append(played(scene, f"{seed}/{len(found)}", count, alone[script]))
            say(told(len(found) - 1, found[-1]))
            with (folder / "rounds.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(facts(found[-1])) + "\n")
        return {"minutes": minutes, "seed": seed, "table": table(found), "rounds": [facts(each) for each in found]}


def undisturbed(folder: Path, *, script: bool = False) -> Alone:
    """How the run ends that nothing strikes, on this machine.

    Raises:
        PostgradError: not even that one is whole.
    """
    scene = Scene(folder, remote=False, script=script)
    found = Play(scene, ()).run()
    if found.wrong or found.failed_jobs:
        raise PostgradError(f"A run that nothing struck is not whole: {found.wrong or found.said} ({folder})")
    with SqliteStore.open(scene.run, write=False) as store:
        return Alone(outline(store.events()), found.seconds)


def played(scene: Scene, seed: str, count: int, alone: Alone | None) -> Played:
    """One round. Its folder stays where something did not hold, or it was never whole, so that it can be looked at."""
    kinds = kinds_of(remote=scene.remote, script=scene.script)
    found = Play(scene, drawn(seed, kinds, count), seed, alone).run()
    if not found.wrong and found.end == WHOLE:
        shutil.rmtree(scene.folder, ignore_errors=True)
    return found


def facts(found: Played) -> dict[str, Any]:
    """A round for the result file."""
    return {**vars(found), "struck": dict(found.struck)}


def told(number: int, found: Played) -> str:
    """A round in one line, and what did not hold in more."""
    struck = ", ".join(f"{kind} {count}" for kind, count in sorted(found.struck.items()))
    same = {True: "the same as undisturbed", False: "another tree", None: "jobs failed"}[found.same]
    line = (
        f"round {number} ({name_of(found)}): {found.seconds:.0f} s, {found.experiments} "
        f"experiments, {found.resumes} resumes, {len(found.said)} stops, {same}; {struck}; {found.end[:200]}"
    )
    return "\n".join([line, *(f"  WRONG: {each}" for each in found.wrong)])


def name_of(found: Played) -> str:
    """Where it ran, and what."""
    return f"{ENGINES[found.remote]}, {TASKS[found.script]}"


def table(found: Sequence[Played]) -> list[dict[str, Any]]:
    """One row for each engine and kind of task."""
    rows = []
    for name in dict.fromkeys(name_of(each) for each in found):
        own = [each for each in found if name_of(each) == name]
        struck = sum((each.struck for each in own), Counter())
        rows.append(
            {
                "engine, task": name,
                "rounds": len(own),
                "not ended": sum(each.end != WHOLE for each in own),
                "minutes": round(sum(each.seconds for each in own) / 60, 1),
                "experiments": sum(each.experiments for each in own),
                "faults": sum(struck.values()),
                "controller kills": struck["controller_killed"],
                "resumes": sum(each.resumes for each in own),
                "failed jobs": sum(each.failed_jobs for each in own),
                "same tree": sum(each.same is True for each in own),
                "violations": sum(len(each.wrong) for each in own),
                "by kind": dict(sorted(struck.items())),
            }
        )
    return rows
