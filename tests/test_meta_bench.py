"""`postgrad bench search --meta`: priors from runs of their own, paired with runs without."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from postgrad.bench import search_meta
from postgrad.bench.base import BenchSpec
from postgrad.bench.landscapes_families import Kindred
from postgrad.bench.lessons import Lessons, pairs
from postgrad.bench.lessons import entry_of as recorded_entry
from postgrad.bench.record_data import SETS
from postgrad.bench.recorded_file import recording
from postgrad.bench.search import Search
from postgrad.bench.search_meta import FIRST_SEED, entry_of, remembered, taught, taught_by_recordings
from postgrad.bench.simulated import SimulatedRun
from postgrad.bench.simulated_parts import Grant
from postgrad.errors import UserError
from postgrad.memory.effects import BETWEEN_PARENTS
from postgrad.records import Prior
from postgrad.research import edit
from postgrad.research.priors import table

PARTS = ("step.typos", "step.balance", "embedder.head=cosine", "embedder.score=knn", "member.classic", "member.again")


class Cheap(Kindred):
    """Its optimum need not be searched for."""

    def best(self) -> float | None:
        return 0.92


NAME = f"{__name__}:Cheap"


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_meta, "LESSONS", 2)
    search_meta._taught.cache_clear()


def test_effects_persist_within_a_clan_and_not_beyond() -> None:
    def alike(one: int, other: int) -> float:
        import numpy as np

        first, second = (np.array([Kindred(seed).effect(f"step.part{n}") for n in range(300)]) for seed in (one, other))
        return float(np.corrcoef(first, second)[0, 1])

    assert alike(1, 1 + Kindred.clans) == pytest.approx(Kindred.shared, abs=0.1)
    assert alike(1, 2) == pytest.approx(0.0, abs=0.15)
    assert Kindred(1).effect("step.typos") != Kindred(1 + Kindred.clans).effect("step.typos")


def test_every_seed_is_taught_by_its_own_clan(few: None) -> None:
    first, again = taught("kindred", "greedy", Grant(10), 1), taught("kindred", "greedy", Grant(10), 1 + Kindred.clans)
    other = taught("kindred", "greedy", Grant(10), 2)
    assert first == again != other
    assert set(first) <= set(table()) and len(first) > 3


def test_a_recorded_data_set_is_taught_by_the_others_alone() -> None:
    about = {name: taught_by_recordings(f"recorded_{name}") for name in SETS}
    assert all("method.full_finetune" in found for found in about.values())
    alone = [recorded_entry(recording(name)) for name in SETS if name != "sst2"]
    assert about["sst2"] == remembered(alone, recording("sst2").task) != about["banking77"]


def test_what_a_change_brought_is_what_the_pairs_show() -> None:
    """Read off the recording once more, by hand, for one kind."""
    recorded = recording("banking77")
    told = [pair for pair in pairs(recorded) if pair.kind == "ensemble.classic" and pair.after.stood]
    gains = [pair.after.search.mean() - pair.before.search.mean() for pair in told]  # No training of these failed.
    entry = next(kind for kind in recorded_entry(recorded).kinds if kind.kind == "ensemble.classic")
    assert entry.count == len(told) and entry.mean == pytest.approx(sum(gains) / len(gains), abs=1e-3)
    assert all(len(edit.stages(pair.after.recipe)) == len(edit.stages(pair.before.recipe)) + 1 for pair in told)
    assert entry.variance > BETWEEN_PARENTS**2 / len(told)


def test_lessons_are_a_table_of_every_data_set(tmp_path: Path) -> None:
    spec = BenchSpec(quick=False, folder=tmp_path, command="", options={"sets": "banking77,sst2"})
    found = Lessons().run(spec, lambda line: None)
    row = next(row for row in found["table"] if row["kind"] == "draft.tuned")
    assert row["sst2"] > 5 and row["banking77"] > 5 and row["sst2_pairs"] == 1
    assert "| draft.tuned | +" in found["markdown"]


def test_no_seed_of_a_table_teaches() -> None:
    assert FIRST_SEED > 1000


def test_what_an_entry_says_is_what_the_run_did() -> None:
    run = SimulatedRun(Kindred(0), "greedy", Grant(15), 0)
    run.play()
    entry = entry_of(run, 0)
    kinds = {node.proposed.proposal.kind for node in run.tree.all()}
    assert {kind.kind for kind in entry.kinds} <= kinds
    assert all(prior.runs == 1 for prior in remembered([entry], run.task).values())


def test_priors_change_a_run_and_none_leaves_it_as_it_was() -> None:
    def tree(priors: dict[str, Prior] | None) -> object:
        run = SimulatedRun(Kindred(0), "greedy", Grant(12), 0, priors=priors)
        run.play()
        return run.tree

    strong = {kind: Prior(mean=0.1 * (-1) ** n, sd=0.01, runs=5) for n, kind in enumerate(table())}
    assert tree(None) == tree({}) != tree(strong)


def test_the_table_pairs_runs_with_and_without(few: None, tmp_path: Path) -> None:
    defaults = {key: default for key, (default, _) in Search.options.items()}
    small = {"policies": "greedy", "landscapes": NAME, "budgets": "8", "seeds": "2", "processes": "1"}
    options = {**defaults, **small, "meta": "off,own"}
    spec = BenchSpec(quick=False, folder=tmp_path, command="x", options=options)
    result = Search().run(spec, lambda text: None)
    named = [row["policy"] for row in result["table"] if row["landscape"] == NAME]
    assert sorted(named) == ["greedy", "greedy+own"]
    folders = {path.parent.parent.name for path in tmp_path.rglob("8-experiments.jsonl")}
    assert folders == {"greedy", "greedy+own"}
    with pytest.raises(UserError, match="no landscape"):
        Search().run(spec.model_copy(update={"options": {**options, "meta": "nonsense"}}), lambda text: None)


def test_clans_are_not_all_alike() -> None:
    found = [tuple(Kindred(seed).effect(part) for part in PARTS) for seed in range(Kindred.clans)]
    assert all(one != other for one, other in combinations(found, 2))
