"""Paring of scripts: the champion less one of its changes is an experiment of its own, and its commit is there."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Iterator

import numpy as np
import pytest

from postgrad.evaluate.statistics.judge import Judge
from postgrad.events import Analysed, Pared, Proposed
from postgrad.pare import is_paring
from postgrad.prepare import prepare
from postgrad.records import Estimate, Move, Recipe, Stage, Value
from postgrad.report.markdown import markdown_report
from postgrad.report.view import build_view
from postgrad.report.wording import pared as worded
from postgrad.research.ablations import Ablation
from postgrad.runner import opened
from postgrad.scripts.paring import ScriptChanges
from postgrad.scripts.session import ScriptSession, tree_of
from postgrad.scripts.workspace import Workspace
from postgrad.spec import load_task
from postgrad.store.sqlite import SqliteStore
from postgrad.testing.trees import Node
from postgrad.testing.trees import tree_of as tree_from
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


# --- what a path is made of -------------------------------------------------------------------------------------------

Files = dict[str, str | None]


@dataclass
class Made:
    """A champion's path that was made by hand, and the changes that are found on it, by their words."""

    changes: ScriptChanges
    tree: Tree
    texts: Callable[[str], dict[str, str]]

    def found(self) -> dict[str, Ablation]:
        last = self.tree.all()[-1].id
        return {each.change: each for each in self.changes.ablations(self.tree.path(last))}

    def without(self, change: str) -> dict[str, str]:
        return self.texts(tree_of(self.found()[change].recipe))


@contextmanager
def path_of(folder: Path, source: dict[str, str], steps: list[tuple[str, Files, float]]) -> Iterator[Made]:
    """A path from the source, each step (kind, files, score) a change of the one before."""
    task_of(folder, more=source)
    text = (folder / "task.yaml").read_text()
    (folder / "task.yaml").write_text(text.replace("[train.py]", f"[{', '.join(source)}]"))
    with opened(SqliteStore.open(run_of(folder, load_task(folder / "task.yaml")), write=True)) as session:
        assert isinstance(session, ScriptSession)
        prepare(session)
        workspace, commit, spread = session.workspace, session.workspace.baseline, np.linspace(-0.1, 0.1, 40)
        nodes, judge = [Node("e0000", recipe=Recipe(stage=Stage(backend="script")))], Judge(30)
        judge.start("e0000", spread)
        for number, (kind, files, score) in enumerate(steps, 1):
            name, above = f"e{number:04d}", nodes[-1].id
            changed = {path: text.encode() if text is not None else None for path, text in files.items()}
            commit = workspace.commit(name, commit, changed, "m")
            tree = workspace.tree_of(commit)
            params: dict[str, Value] = {"tree": tree} if tree != workspace.tree_of(workspace.baseline) else {}
            move = Move.ABLATE if kind.startswith("pare.") else Move.IMPROVE
            nodes.append(
                Node(name, above, kind=kind, recipe=Recipe(stage=Stage(backend="script", params=params)), move=move)
            )
            judge.weigh(name, above, score + spread + 1e-4 * np.cos(np.arange(40) * number), may_retest=False)

        def texts(version: str) -> dict[str, str]:
            return {path: workspace.read(version, path).decode() for path in workspace.files(version)}

        champion = nodes[-1].id
        made = tree_from([replace(node, score=number / 100) for number, node in enumerate(nodes)])
        assert made.champion == champion
        yield Made(ScriptChanges(session, judge), made, texts)


def numbers(rate: str, batch: str = "32") -> str:
    return TRAIN.replace("LEARNING_RATE = 0.01", f"LEARNING_RATE = {rate}").replace("SIZE = 32", f"SIZE = {batch}")


@pytest.mark.parametrize("given", ["0.001", "1e-2", "10 ** -3", "-(-0.01)"])
def test_a_constant_goes_back_to_the_very_text_of_the_source(tmp_path: Path, given: str) -> None:
    """Equal numbers that are written otherwise would be another version, which is refused as changing only seeds."""
    steps: list[tuple[str, Files, float]] = [
        ("constant.BATCH_SIZE", {"train.py": numbers(given, "64")}, 0.1),
        ("constant.LEARNING_RATE", {"train.py": numbers("0.02", "64")}, 0.2),
    ]
    with path_of(tmp_path, {"train.py": numbers(given)}, steps) as path:
        change = f"with LEARNING_RATE {given} as in the source"
        assert path.without(change)["train.py"] == numbers(given, "64")
        assert path.tree.has_tried(path.found()[change].recipe), "what was tried is its own answer"


def test_what_an_edit_set_is_the_edits(tmp_path: Path) -> None:
    """A number that was set by an edit, then tuned: it goes back to what the edit made of it, whatever its type was."""
    ratio = TRAIN.replace("BATCH_SIZE = 32", "WARMUP = 0.1").replace("log(BATCH_SIZE / 64)", "log(1 + WARMUP)")
    steps: list[tuple[str, Files, float]] = [
        ("patch.train.py", {"train.py": ratio.replace("= 0.1", "= 100")}, 0.1),
        ("constant.WARMUP", {"train.py": ratio.replace("= 0.1", "= 200")}, 0.2),
    ]
    with path_of(tmp_path, {"train.py": ratio}, steps) as path:
        assert path.without("with WARMUP 100 as in e0001")["train.py"] == ratio.replace("= 0.1", "= 100")
        assert list(path.found()) == ["with WARMUP 100 as in e0001"], "what was changed since is not taken back"


def test_constants_with_one_name_in_two_files_are_two(tmp_path: Path) -> None:
    second = numbers("0.01").replace("out", "more")
    steps: list[tuple[str, Files, float]] = [
        ("constant.BATCH_SIZE", {"train.py": numbers("0.01", "64")}, 0.5),
        ("constant.BATCH_SIZE", {"second.py": second.replace("SIZE = 32", "SIZE = 16")}, 0.1),
    ]
    with path_of(tmp_path, {"train.py": numbers("0.01"), "second.py": second}, steps) as path:
        first, other = path.found().values()
        assert first.change == "with BATCH_SIZE 32 as in the source of train.py"
        assert (first.brought_by, other.brought_by) == ("e0001", "e0002") and first.what == other.what
        brings = path.changes.brings(path.tree, [first, other])
        assert brings[0] > 0 > brings[1], "each by its own steps"


def test_edits_that_are_no_text_of_ours_are_taken_back(tmp_path: Path) -> None:
    source = {"train.py": TRAIN, "dos.py": "a = 1\r\n++ b\r\nc = 1\r\n", "gone.py": "x = 1\n", "né w.py": "y = 1\n"}
    steps: list[tuple[str, Files, float]] = [
        ("patch.dos.py", {"dos.py": source["dos.py"].replace("++ b", "++ B")}, 0.1),
        ("patch.gone.py", {"gone.py": None}, 0.2),
        ("patch.né w.py", {"né w.py": "y = 2\n"}, 0.3),
        ("patch.train.py", {"train.py": TRAIN + "# \u00ff\x00\n"}, 0.4),
    ]
    with path_of(tmp_path, source, steps) as path:
        found = path.found()
        assert [each.what for each in found.values()] == ["dos.py", "gone.py", "né w.py", "train.py"]
        last = path.texts(tree_of(path.tree.all()[-1].proposed.proposal.recipe))
        for name, change in zip(source, [list(found)[3], *list(found)[:3]], strict=True):
            assert path.without(change) == {**last, name: source[name]}


def test_it_says_what_is_set_back_and_what_is_left_out() -> None:
    told = Pared(
        experiment="e0009",
        against="e0008",
        what="BATCH_SIZE",
        change="with BATCH_SIZE 32 as in the source",
        brought_by="e0003",
        gain=None,
        measured=None,
        dropped=False,
        champion="e0008",
    )
    assert worded(told).startswith("BATCH_SIZE (of e0003) stays")
    edit = told.model_copy(update={"what": "my_train.py", "change": "without e0003 (line 3)"})
    assert worded(edit).startswith("my_train.py (of e0003) stays")
    gain = Estimate(value=0.0, low=-0.1, high=0.1, n=40)
    back = told.model_copy(update={"dropped": True, "gain": gain, "measured": 0.0})
    assert "BATCH_SIZE (of e0003) is set back, because it brings e0008" in worded(back)
