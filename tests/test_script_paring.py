"""Paring of scripts: the champion less one of its changes is an experiment of its own, and its commit is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from postgrad.events import Analysed, Pared, Proposed
from postgrad.pare import is_paring
from postgrad.records import Move
from postgrad.report.markdown import markdown_report
from postgrad.report.view import build_view
from postgrad.scripts.session import tree_of
from postgrad.scripts.workspace import Workspace
from postgrad.tree import Tree
from test_scripts import TRAIN, driven, run_of, task_of

# Batches bring almost nothing beside what a training differs by.
NOISY = TRAIN.replace("rng.gauss(0, 0.002)", "rng.gauss(0, 0.02)").replace("0.02 * log(BATCH", "0.001 * log(BATCH")


def test_a_constant_that_brings_nothing_is_put_back(tmp_path: Path) -> None:
    task = task_of(tmp_path, NOISY, budget="24 experiments")
    task = task.model_copy(update={"search": task.search.model_copy(update={"pare": 0.25})})
    folder = run_of(tmp_path, task)
    events = driven(folder)
    bodies = [event.body for event in events]
    pared = [body for body in bodies if isinstance(body, Pared)]
    assert any(body.what == "BATCH_SIZE" and body.dropped for body in pared)
    tree, workspace = Tree.from_events(events), Workspace.open(folder, folder.name)
    commits = workspace.commits()
    own = [node for node in tree.all() if is_paring(node)]
    assert own
    for node in own:
        proposal = node.proposed.proposal
        assert node.proposed.choice.move is Move.ABLATE and node.parent is not None
        assert workspace.tree_of(commits[node.id]) == tree_of(proposal.recipe), "its commit has its files"
        source = workspace.read(commits[node.id], "train.py").decode()
        assert "BATCH_SIZE = 32\n" in source or "LEARNING_RATE = 0.01\n" in source, "a number is that of the source"
        before = workspace.read(tree_of(tree[node.parent].proposed.proposal.recipe), "train.py").decode()
        changed = [pair for pair in zip(source.splitlines(), before.splitlines(), strict=True) if pair[0] != pair[1]]
        assert len(changed) == 1, "and nothing else differs from what led"
    leads = next(body for body in pared if body.dropped)
    later = [b for b in bodies if isinstance(b, Proposed) and b.choice.parent == leads.experiment]
    assert tree[leads.experiment].verdict != "discard" and (later or tree.champion == leads.experiment)
    assert "BATCH_SIZE" in markdown_report(build_view(events))


EDITED = TRAIN.replace("print(", "EXTRA = 0\n\n\n\n\nprint(")


def test_an_edit_is_taken_back_as_a_patch_and_what_depends_on_it_stays(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "train.py").write_text(EDITED)
    workspace = Workspace.create(tmp_path / "run", "run", source, {})
    first = workspace.commit("e0001", workspace.baseline, {"train.py": EDITED.encode() + b"first = 1\n"}, "one")
    text = workspace.read(first, "train.py").replace(b"import json", b"import sys\nimport json")
    second = workspace.commit("e0002", first, {"train.py": text}, "two")
    without = workspace.without(second, (workspace.baseline, first))
    assert without is not None
    assert workspace.read(without, "train.py") == text.replace(b"first = 1\n", b"")
    third = workspace.commit("e0003", second, {"train.py": text.replace(b"first = 1", b"first = 2")}, "three")
    assert workspace.without(third, (workspace.baseline, first)) is None, "a later change is on the same line"
    assert workspace.without(third, (second, second)) is None, "nothing was changed"
    commit = workspace.adopt("e0004", second, without, "less one\x1b[0m")
    assert workspace.tree_of(commit) == without and workspace.commits()["e0004"] == commit
    assert workspace.adopt("e0004", second, without, "less one\x1b[0m") == commit, "the same again"
    other = workspace.tree_with(second, "train.py", b"x = 1\n")
    assert workspace.read(other, "train.py") == b"x = 1\n" and set(workspace.files(other)) == {"train.py"}


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_how_much_is_spent_is_what_the_task_says(tmp_path: Path, share: float) -> None:
    task = task_of(tmp_path, NOISY, budget="16 experiments")
    task = task.model_copy(update={"search": task.search.model_copy(update={"pare": share})})
    events = driven(run_of(tmp_path, task))
    tree = Tree.from_events(events)
    assert sum(is_paring(node) for node in tree.all()) <= share * 16
    assert share or not any(isinstance(event.body, Pared) for event in events)
    assert len([event for event in events if isinstance(event.body, Analysed)]) >= 16
