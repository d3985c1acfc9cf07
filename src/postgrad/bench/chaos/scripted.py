"""A run on a script that is struck: the script, and what has to hold of commits and log besides."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Sequence

from postgrad.events import Event
from postgrad.scripts.git import GitError
from postgrad.scripts.session import tree_of
from postgrad.scripts.workspace import Workspace
from postgrad.tree import Tree

TASK = """
name: {name}
kind: script
objective: lower the loss
script:
  source: src
  editable: [train.py]
  run: python train.py
  time: 2s
  kill: 60s
  leaves: [out]
  metric: loss
  referee: python referee.py
  hidden: {{search: val.txt, sealed: sealed.txt}}
  direction: min
budget: {experiments} experiments
engine: {engine}
"""
# Trains for a moment in which it can be struck, and repeats itself to the bit.
TRAIN = """
import json, os, random, time
from math import log
from pathlib import Path

LEARNING_RATE = 0.01
BATCH_SIZE = 32
rng = random.Random(int(os.environ["POSTGRAD_SEED"]))
time.sleep(0.4)
loss = 1.0 + 0.05 * log(LEARNING_RATE / 0.04) ** 2 + 0.02 * log(BATCH_SIZE / 64) ** 2 + rng.gauss(0, 0.002)
Path("out").mkdir()
Path("out/model.json").write_text(json.dumps({"loss": loss}))
print("val_loss:", loss)
"""
REFEREE = """
import json, os, random
from pathlib import Path

loss = json.loads(Path("out/model.json").read_text())["loss"]
hidden = next(Path(os.environ["POSTGRAD_HIDDEN"]).iterdir()).read_text().split()
rng = random.Random(os.environ["POSTGRAD_SPLIT"])
items = {word: loss + rng.gauss(0, 0.05) for word in hidden}
Path("score.json").write_text(json.dumps({"value": sum(items.values()) / len(items), "items": items}))
"""
ITEMS = 50
# What a git that was killed leaves: locks, and objects without a name.
_OF_GIT = re.compile(r"\.lock$|/tmp_|fast_import")
# What no two runs have in common: times, and the folder that a run was read from.
TIMES = frozenset({"usage", "cost_s", "source", "wall_s", "cpu_s", "measured"})


def write_source(folder: Path) -> None:
    """The folder of the script."""
    source = folder / "src"
    source.mkdir()
    (source / "train.py").write_text(TRAIN)
    (source / "referee.py").write_text(REFEREE)
    for name in ("val", "sealed"):
        (source / f"{name}.txt").write_text(" ".join(f"{name}{number}" for number in range(ITEMS)))


def in_step(run: Path, events: Sequence[Event]) -> list[str]:
    """What is wrong with the commits of a run that has ended: one for each version that was proposed."""
    workspace, wrong, seen = Workspace.open(run.resolve(), run.name), [], {""}
    commits, nodes = workspace.commits(), Tree.from_events(events).all()
    for node in nodes:
        made = tree_of(node.proposed.proposal.recipe)
        if (node.id in commits) == (made in seen):
            wrong.append(f"{node.id} has no commit of its own, or one too many")
        elif node.id in commits and workspace.tree_of(commits[node.id]) != made:
            wrong.append(f"the commit of {node.id} has other files")
        seen.add(made)
    wrong += [f"{name} is a commit of no experiment" for name in sorted(set(commits) - {node.id for node in nodes})]
    try:
        if workspace.git.ask("fsck", "--strict", "--full", "--no-dangling").status:
            wrong.append("git fsck finds the repository damaged")
    except GitError as problem:
        wrong.append(f"git cannot look at the repository: {problem}")
    left = [path.relative_to(run).as_posix() for path in run.rglob("*")]
    return wrong + [f"left behind: {name}" for name in left if _OF_GIT.search(name)]


def timeless(found: Any) -> Any:
    """The same without times."""
    if isinstance(found, dict):
        return {name: timeless(value) for name, value in found.items() if name not in TIMES}
    return [timeless(value) for value in found] if isinstance(found, list) else found
