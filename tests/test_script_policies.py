"""Every search policy on a script: six experiments on a stand-in that trains at once, and crashes that are mended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from postgrad.bench.scripts_planted import Beside, planted
from postgrad.chooser import Chooser
from postgrad.errors import UserError
from postgrad.people.desk import Desk
from postgrad.records import Move, TaskSpec
from postgrad.runner import drive, opened, start_run
from postgrad.scripts.reading import CONSTANT
from postgrad.scripts.researcher import belief_of
from postgrad.scripts.session import ScriptSession
from postgrad.scripts.workspace import Workspace
from postgrad.search import POLICIES
from postgrad.search.base import OptionPolicy, SpacePolicy
from postgrad.spec import load_task
from postgrad.store.sqlite import SqliteStore
from postgrad.testing.trees import Node
from postgrad.testing.trees import tree_of as tree_from
from postgrad.tree import Tree
from test_script_edits_by_models import rate, scripted, spec_of, whole, with_researcher
from test_scripts import run_of, task_of

# A policy that names recipes is refused in the task file: a script has none.
PLAYED = [name for name in POLICIES.names() if not isinstance(POLICIES.get(name), SpacePolicy | OptionPolicy)]
REPAIRING = [name for name in PLAYED if "max_repairs" in POLICIES.get(name).Params.model_fields]


def under(task: TaskSpec, policy: str, **params: Any) -> TaskSpec:
    return task.model_copy(update={"search": task.search.model_copy(update={"policy": policy, "params": params})})


@pytest.mark.parametrize("policy", sorted(set(POLICIES.names()) - set(PLAYED)))
def test_a_policy_that_names_recipes_is_refused(tmp_path: Path, policy: str) -> None:
    task_of(tmp_path)
    with (tmp_path / "task.yaml").open("a") as file:
        file.write(f"search: {policy}\n")
    with pytest.raises(UserError, match="a script has none"):
        load_task(tmp_path / "task.yaml")


@pytest.mark.parametrize("policy", PLAYED)
def test_each_policy_plays_a_script(tmp_path: Path, policy: str) -> None:
    task = under(planted(tmp_path, 3, 1.0, 6), policy)
    with opened(start_run(task, tmp_path / "runs"), engine=Beside()) as session:
        drive(session)
        seen, events, folder = session.tree, session.store.events(), session.store.folder
    tree = Tree.from_events(events)
    assert tree.all() == seen.all() and tree.champion == seen.champion
    assert len(tree) == 6 and all(node.score is not None and node.analysis is not None for node in tree.all())
    for node in tree.all()[1:]:
        assert node.parent is not None and tree[node.parent].index < node.index, "each extends an earlier one"
    bodies = [event.body for event in events]
    jobs = [body.job for body in bodies if body.type == "job_finished"]
    assert len(jobs) == len(set(jobs))
    assert [body.type for body in bodies if body.type in ("search_ended", "sealed_done", "run_ended")] == [
        "search_ended",
        "sealed_done",
        "run_ended",
    ]
    assert set(Workspace.open(folder, folder.name).commits()) <= set(tree.experiments)
    assert (folder / "model").is_dir()


@pytest.mark.parametrize("policy", REPAIRING)
def test_a_crash_is_mended_at_most_twice_in_a_row(tmp_path: Path, policy: str) -> None:
    """Whoever edits only makes crashes that an edit may mend. Policies that begin with new starts, which a script does
    not have, ask for repairs as well; `random` asks by chance."""
    asked: list[bool] = []

    def reply(request: Any) -> str:
        asked.append("Mend the crash" in request.messages[1].text)
        return whole(rate("0.02").replace("loss = 1.0", f"loss = 1.0 + missing_{len(asked)}"))

    task = under(task_of(tmp_path, budget="5 experiments"), policy)
    folder = run_of(tmp_path, with_researcher(task, spec_of()))
    with opened(SqliteStore.open(folder, write=True)) as session:
        assert isinstance(session, ScriptSession)
        drive(session, researcher=scripted(session, reply))
        tree = session.tree
    chains = [_repairs(tree, node.id) for node in tree.all()]
    assert max(chains) == 2 or policy == "random" and max(chains) < 2, f"{policy}: {chains}"


def _repairs(tree: Tree, name: str) -> int:
    """How many repairs in a row end with an experiment."""
    count, node = 0, tree[name]
    while node.proposed.choice.move is Move.REPAIR and node.parent is not None:
        count, node = count + 1, tree[node.parent]
    return count


@pytest.mark.parametrize(
    ("who", "params", "expected"), [("models", {}, 2), ("models", {"max_repairs": 5}, 5), ("", {}, 1)]
)
def test_two_repairs_are_the_default_where_somebody_can_repair(
    tmp_path: Path, who: str, params: dict[str, int], expected: int
) -> None:
    task = under(task_of(tmp_path), "uct", **params)
    folder = run_of(tmp_path, with_researcher(task, spec_of()) if who else task)
    with opened(SqliteStore.open(folder, write=True)) as session:
        assert isinstance(session, ScriptSession)
        chooser = Chooser(session, Desk(session, lambda: False), 1, lambda: 0.0, scripted(session, []))
    assert chooser.params.model_dump()["max_repairs"] == expected


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_failure_is_as_bad_on_each_scale_of_the_metric(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postgrad.scripts.researcher.PLAYBOOK", "hand")
    tree = tree_from(
        [
            Node("e0000", score=0.0, kind="reference.script"),
            Node("e0001", "e0000", score=scale, gap=scale, kind="constant.LR"),
            Node("e0002", "e0000", state="failed", kind="edit.relu"),
        ]
    )
    weight = 0.3**2 / (0.3**2 + 0.25)
    assert belief_of("edit", tree).mean == pytest.approx(-0.3 * weight)
    assert belief_of(CONSTANT, tree).mean == pytest.approx(weight)
