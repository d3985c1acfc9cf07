"""Where root causes go: the log of a run, the screen, the report, whoever proposes, and bounded repairs."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner

from postgrad.analyze.failures import cause_of
from postgrad.cli.main import app
from postgrad.events import Analysed, Body
from postgrad.records import Analysis, Choice, EngineSpec, Failure, JobResult, Move, RootCause
from postgrad.research import edit
from postgrad.research.base import Context
from postgrad.research.brief import Brief
from postgrad.research.context import brief
from postgrad.research.drafts import drafts
from postgrad.research.ideas import Ask
from postgrad.research.playbook import Playbook
from postgrad.research.repairs import MENDS, REPAIRS, repaired
from postgrad.search import legal
from postgrad.store.sqlite import SqliteStore, new_run_folder
from postgrad.testing.researcher import PLAIN
from postgrad.testing.trees import Node, tree_of
from postgrad.tree import Experiment, Tree
from recorded import events

TUNED = next(draft.recipe for draft in drafts("path:encoder") if draft.kind == "draft.tuned")
KILLED = Failure(
    boundary="train", kind="crash", message="RuntimeError: std::bad_alloc", evidence="RuntimeError: std::bad_alloc"
)


def with_failure(tree: Tree, name: str, failure: Failure) -> Tree:
    """The tree in which an experiment failed like this, analysed anew."""
    node = tree[name]
    results = (JobResult(job=f"{name}-job", failure=failure),)
    broken = Experiment(node.id, node.index, node.proposed, results=results)
    analysis = Analysis(verdict="failed", against=None, difference=None, cause="", root=cause_of(broken, EngineSpec()))
    broken = Experiment(node.id, node.index, node.proposed, results=results, analysis=analysis)
    return tree.with_experiments([broken], tree.champion)


def failing(count: int) -> Tree:
    """A chain of experiments that all failed for want of memory, each the repair of the one before."""
    nodes = [Node("e0000", state="failed", recipe=TUNED)]
    for n in range(1, count):
        recipe = edit.with_main(TUNED, batch_size=max(2, 32 - n))
        nodes.append(Node(f"e000{n}", f"e000{n - 1}", state="failed", recipe=recipe, move=Move.REPAIR))
    tree = tree_of(nodes)
    for node in tree.all():
        tree = with_failure(tree, node.id, KILLED)
    return tree


def root_of(node: Experiment) -> RootCause:
    assert node.analysis is not None and node.analysis.root is not None
    return node.analysis.root


# --- the log --------------------------------------------------------------------------------------------------------


def test_an_analysis_of_an_older_version_loads() -> None:
    old = {"verdict": "failed", "against": None, "difference": None, "cause": "resource: out of memory"}
    assert Analysis.model_validate_json(json.dumps(old)).root is None


def test_only_failures_of_jobs_have_a_root_cause() -> None:
    tree = tree_of([Node("e0000", state="failed", failure="train/nan"), Node("e0001")])
    found = cause_of(tree["e0000"], EngineSpec())
    assert found is not None and found.cause == "nan"
    assert cause_of(tree["e0001"], EngineSpec()) is None
    judged = with_failure(tree, "e0000", Failure(boundary="evaluate", kind="no_score", message="No number."))
    assert cause_of(judged["e0000"], EngineSpec()) is None


# --- people ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run whose experiment e0003 failed, with its root cause."""
    folder = new_run_folder(tmp_path / "runs", "shop")
    with SqliteStore.create(folder) as store:
        for body in events(store, folder.name):
            store.append(_with_root(body))
    return folder


def _with_root(body: Body) -> Body:
    if not isinstance(body, Analysed) or body.analysis.verdict != "failed":
        return body
    node = with_failure(tree_of([Node("e0000", state="failed")]), "e0000", KILLED)["e0000"]
    return body.model_copy(update={"analysis": body.analysis.model_copy(update={"root": root_of(node)})})


def call(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.output


def test_show_names_cause_lines_and_advice(run: Path) -> None:
    said = " ".join(call("show", run.name, "e0003", "--runs-dir", str(run.parent)).split())
    assert "Root cause: host_oom, confidence 0.95" in said
    assert "failure:1 | RuntimeError: std::bad_alloc" in said
    assert "What to do: Halve the rows at once" in said
    assert "the search tries it 2 times in a row at most" in said


def test_json_has_the_whole_verdict(run: Path) -> None:
    document = json.loads(call("show", run.name, "e0003", "--runs-dir", str(run.parent), "--json"))
    found = RootCause.model_validate(document["analysis"]["root"])
    assert (found.cause, found.repair and found.repair.kind) == ("host_oom", "less_memory")


def test_the_report_counts_failures_by_cause(run: Path) -> None:
    call("report", run.name, "--runs-dir", str(run.parent))
    for page in ("report.md", "report.html"):
        text = (run / page).read_text(encoding="utf-8")
        assert "What failed, and why" in text and "Halve the rows at once" in text
    table = (run / "report.md").read_text(encoding="utf-8").split("## What failed, and why")[1]
    assert "| host_oom | 1 | e0003 |" in table.replace("\\_", "_")


# --- whoever proposes -----------------------------------------------------------------------------------------------


def told(tree: Tree) -> Brief:
    return brief(
        Ask(PLAIN, Choice(parent=None, move=Move.DRAFT), Context(tree, Random(0), len(tree), None, lambda _: 1))
    )


def test_the_researcher_is_told_in_one_line() -> None:
    (line,) = told(failing(1)).section("Failures").lines
    assert line.startswith("- train/crash: 1 times, last e0000:")
    assert "root cause host_oom (0.95): The machine's memory" in line and "\n" not in line


# --- repairs --------------------------------------------------------------------------------------------------------


def test_a_crash_is_repaired_by_its_root_cause() -> None:
    root = root_of(failing(1)["e0000"])
    assert repaired(TUNED, KILLED) is None
    found = repaired(TUNED, KILLED, root)
    assert found is not None and found[1].stage.params["batch_size"] == 16


def test_what_is_no_recipe_of_ours_is_left_alone() -> None:
    root = root_of(failing(1)["e0000"])
    unknown = TUNED.model_copy(update={"stage": TUNED.stage.model_copy(update={"backend": "script"})})
    assert repaired(unknown, KILLED, root) is None


def test_a_kind_with_a_repair_of_its_own_keeps_it() -> None:
    root = root_of(failing(1)["e0000"])
    nan = Failure(boundary="train", kind="nan", message="Training diverged.")
    assert repaired(TUNED, nan, root) == REPAIRS["nan"](TUNED)


def test_starting_again_is_told_and_not_done() -> None:
    root = root_of(failing(1)["e0000"])
    again = root.model_copy(update={"repair": root.repair and root.repair.model_copy(update={"kind": "start_again"})})
    assert "start_again" not in MENDS and repaired(TUNED, KILLED, again) is None


@pytest.mark.parametrize(("failed", "tried"), [(1, True), (2, True), (3, False)])
def test_the_playbook_tries_it_as_often_as_the_repair_says(failed: int, tried: bool) -> None:
    tree = failing(failed)
    last = tree.all()[-1]
    assert legal.repairs(tree, last) == failed - 1
    context = Context(tree, Random(0), len(tree), None, lambda _: 1.0)
    proposal = Playbook().propose(PLAIN, Choice(parent=last.id, move=Move.REPAIR), context)
    assert (proposal.kind == "repair.crash") is tried
    if tried:
        assert "host_oom: this recipe needs more memory" in proposal.hypothesis
