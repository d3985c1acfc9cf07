"""Rounds of chaos for so many minutes: local engine and cluster in turns, and what did not hold."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Sequence

from postgrad.bench.base import BenchSpec, whole_number
from postgrad.bench.chaos.checks import outline
from postgrad.bench.chaos.faults import LOCAL, REMOTE, drawn
from postgrad.bench.chaos.play import WHOLE, Alone, Play, Played
from postgrad.bench.chaos.scene import Scene
from postgrad.errors import PostgradError, UserError
from postgrad.store.sqlite import SqliteStore

ENGINES = ("local", "cluster")
STRUCK = 12
QUICK_MINUTES = 1


class Chaos:
    """The benchmark."""

    options = {
        "minutes": ("30", "how long; a round that was begun is ended"),
        "seed": ("0", "decides the faults of every round, and when they strike"),
        "engine": ("both", "local, cluster, or both in turns"),
        "faults": (str(STRUCK), "how many strike in one round"),
    }

    def run(self, spec: BenchSpec, say: Callable[[str], None]) -> dict[str, Any]:
        minutes = QUICK_MINUTES if spec.quick else whole_number(spec.options, "minutes")
        wanted, seed = spec.options["engine"], spec.options["seed"]
        if wanted not in (*ENGINES, "both"):
            raise UserError(f"--engine is '{wanted}'; expected local, cluster or both.")
        engines = ENGINES if wanted == "both" else (wanted,)
        folder, until = spec.folder.resolve(), time.monotonic() + 60.0 * minutes
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        alone = undisturbed(folder / "undisturbed")
        found: list[Played] = []
        while time.monotonic() < until or not found:
            remote = engines[len(found) % len(engines)] == "cluster"
            count = whole_number(spec.options, "faults")
            found.append(played(folder / f"round-{len(found):03d}", f"{seed}/{len(found)}", remote, count, alone))
            say(told(len(found) - 1, found[-1]))
            with (folder / "rounds.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(facts(found[-1])) + "\n")
        return {"minutes": minutes, "seed": seed, "table": table(found), "rounds": [facts(each) for each in found]}


def undisturbed(folder: Path) -> Alone:
    """How the run ends that nothing strikes, on this machine.

    Raises:
        PostgradError: not even that one is whole.
    """
    scene = Scene(folder, remote=False)
    found = Play(scene, ()).run()
    if found.wrong or found.failed_jobs:
        raise PostgradError(f"A run that nothing struck is not whole: {found.wrong or found.said} ({folder})")
    with SqliteStore.open(scene.run, write=False) as store:
        return Alone(outline(store.events()), found.seconds)


def played(folder: Path, seed: str, remote: bool, count: int, alone: Alone | None) -> Played:
    """One round. Its folder stays where something did not hold, or it was never whole, so that it can be looked at."""
    scene = Scene(folder, remote)
    found = Play(scene, drawn(seed, REMOTE if remote else LOCAL, count), seed, alone).run()
    if not found.wrong and found.end == WHOLE:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def facts(found: Played) -> dict[str, Any]:
    """A round for the result file."""
    return {**vars(found), "struck": dict(found.struck)}


def told(number: int, found: Played) -> str:
    """A round in one line, and what did not hold in more."""
    struck = ", ".join(f"{kind} {count}" for kind, count in sorted(found.struck.items()))
    same = {True: "the same as undisturbed", False: "another tree", None: "jobs failed"}[found.same]
    line = (
        f"round {number} ({'cluster' if found.remote else 'local'}): {found.seconds:.0f} s, {found.experiments} "
        f"experiments, {found.resumes} resumes, {len(found.said)} stops, {same}; {struck}; {found.end[:200]}"
    )
    return "\n".join([line, *(f"  WRONG: {each}" for each in found.wrong)])


def table(found: Sequence[Played]) -> list[dict[str, Any]]:
    """One row for each engine."""
    rows = []
    for remote, name in ((False, "local"), (True, "cluster")):
        own = [each for each in found if each.remote == remote]
        struck = sum((each.struck for each in own), Counter())
        rows.append(
            {
                "engine": name,
                "rounds": len(own),
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
    return [row for row in rows if row["rounds"]]
