"""Runs and their memory: read once and recorded, written when a run ends, switched off, and never a reason to fail."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from postgrad import recall
from postgrad.bench.overhead import SimulatedEngine, simulated_task
from postgrad.cli.main import main
from postgrad.events import Event
from postgrad.memory.book import FILE, Book
from postgrad.memory.effects import brought, merits
from postgrad.memory.entries import KindEntry, RunEntry, task_type
from postgrad.records import (
    Budget,
    Choice,
    DataSpec,
    Failure,
    Guard,
    Move,
    Prior,
    Recipe,
    Record,
    Remembered,
    SearchSpec,
    Stage,
    TaskSpec,
)
from postgrad.research.base import Context
from postgrad.research.drafts import starting_points
from postgrad.research.playbook import Playbook
from postgrad.research.priors import table
from postgrad.runner import drive, opened, reopen, start_run
from postgrad.search.greedy import GreedyParams
from postgrad.spec import load_task
from postgrad.store.sqlite import SqliteStore
from postgrad.testing.simulation import Simulation, nominal_s
from postgrad.tree import Tree

CANARY = "zqcanary"


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Book:
    """An empty memory of its own, switched on."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("POSTGRAD_MEMORY", "on")
    return Book(tmp_path / "data" / "postgrad")


def started(folder: Path, experiments: int = 6, **changes: Any) -> Path:
    task = simulated_task(folder, experiments).model_copy(update=changes)
    with start_run(task, folder / "runs", memory=True) as store:
        return store.folder


def driven(folder: Path) -> str | None:
    with opened(SqliteStore.open(folder, write=True), engine=SimulatedEngine()) as session:
        return drive(session)


def events_of(folder: Path) -> tuple[Event, ...]:
    with SqliteStore.open(folder, write=False) as store:
        return store.events()


def outline(folder: Path) -> str:
    tree = Tree.from_events(events_of(folder))
    return json.dumps([node.proposed.model_dump(mode="json") for node in tree.all()])


def planted(task: TaskSpec, number: int = 7, **effects: float) -> RunEntry:
    """An entry of a run that measured these kinds often and exactly."""
    kinds = tuple(
        KindEntry(kind=name.replace("__", "."), count=50, mean=mean, variance=0.00001) for name, mean in effects.items()
    )
    about = task_type(task, 200, 12)
    return RunEntry(run=f"{number:032x}", month="2026-01", postgrad="0.1.0", task=about, kinds=kinds)


# --- what gets into the file ----------------------------------------------------------------------------------------


def canary_task(folder: Path) -> TaskSpec:
    """A task with a canary in everything that a person writes: names, columns, labels, texts, paths, patterns."""
    place = folder / f"{CANARY}-folder"
    place.mkdir(parents=True)
    rng = Random(0)
    rows = [f"{CANARY}_text,{CANARY}_label"]
    for label in range(12):
        rows += [f"{CANARY} {rng.randrange(10**9)} of kind {label},{CANARY}{label:02d}" for _ in range(20)]
    train = place / f"{CANARY}.csv"
    train.write_text("\n".join(rows) + "\n")
    data = DataSpec(
        train=str(train), input=f"{CANARY}_text", target=f"{CANARY}_label", out_of_scope=f"{CANARY}-nothing"
    )
    plain = simulated_task(folder / "other", 10)
    guards = (Guard(name=f"{CANARY} guard", forbidden=(f"{CANARY}99",), max=1.0),)
    fields = {"name": f"{CANARY}-task", "objective": f"Sort {CANARY}s", "data": data, "guards": guards}
    return plain.model_copy(update=fields)


def test_nothing_of_a_task_gets_in(tmp_path: Path, book: Book) -> None:
    with start_run(canary_task(tmp_path), tmp_path / f"{CANARY}-runs", memory=True) as store:
        folder = store.folder
    assert driven(folder) is None
    log = "".join(event.model_dump_json() for event in events_of(folder))
    assert CANARY in log, "the canary is not in the run either: this test shows nothing"
    files = [path for path in book.folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {FILE, "lock"}
    for path in files:
        assert CANARY not in path.read_text().lower()
    text, plan = book.path.read_text(), events_of(folder)
    hashes = {word for event in plan for word in event.model_dump_json().split('"') if len(word) in (16, 32, 64)}
    name = book.read().entries[0].run
    assert not [one for one in hashes - {name} if one in text and one.isalnum() and any(map(str.isdigit, one))]


def test_every_word_in_the_file_is_one_of_ours(tmp_path: Path, book: Book) -> None:
    driven(started(tmp_path))
    document = json.loads(book.path.read_text())
    assert set(document) == {"version", "run", "month", "postgrad", "task", "kinds", "bases"}
    assert document["bases"] == ["encoder"]
    assert set(document["task"]) == {"kind", "metric", "rejects", "rows", "labels"}
    assert document["kinds"]
    for one in document["kinds"]:
        assert set(one) == {"kind", "count", "mean", "variance", "failures", "cost_s", "experiments"}
        assert one["kind"] in table() and all(re.fullmatch(r"e\d{4}", name) for name in one["experiments"])


# --- writing --------------------------------------------------------------------------------------------------------


def test_a_run_that_ends_again_and_again_counts_once(tmp_path: Path, book: Book) -> None:
    folder = started(tmp_path)
    driven(folder)
    first = book.read().entries
    assert len(first) == 1
    driven(folder)
    assert book.read().entries == first
    with SqliteStore.open(folder, write=True) as store:
        reopen(store, "more data steps to try", Budget(experiments=14))
    driven(folder)
    (again,) = book.read().entries
    assert again.run == first[0].run
    assert sum(one.count for one in again.kinds) > sum(one.count for one in first[0].kinds)


def test_a_run_killed_before_it_was_remembered_is_remembered_when_it_is_resumed(tmp_path: Path, book: Book) -> None:
    folder = started(tmp_path)
    pid = os.fork()
    if pid == 0:
        try:

            def listen(event: Event) -> None:
                if event.body.type == "run_ended":
                    os.kill(os.getpid(), signal.SIGKILL)

            with opened(SqliteStore.open(folder, write=True), listen, SimulatedEngine()) as session:
                drive(session)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    assert book.read().entries == ()
    driven(folder)
    assert len(book.read().entries) == 1


def test_a_memory_that_cannot_be_written_fails_no_run(tmp_path: Path, book: Book) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    folder = started(tmp_path)
    trouble = driven(folder)
    assert trouble is not None and "The run is complete" in trouble
    assert "run_ended" in {event.body.type for event in events_of(folder)}


def test_a_memory_that_cannot_be_read_fails_no_run(tmp_path: Path, book: Book) -> None:
    book.path.mkdir(parents=True)
    folder = started(tmp_path)
    assert driven(folder) is not None
    remembered = next(event.body.remembered for event in events_of(folder) if event.body.type == "data_prepared")
    assert remembered is not None and not remembered.priors
    assert "Nothing was taken" in remembered.notes[0]


def test_a_benchmark_or_a_sentinel_is_no_experience(tmp_path: Path, book: Book) -> None:
    with start_run(simulated_task(tmp_path, 5), tmp_path / "runs") as store:
        folder = store.folder
    driven(folder)
    assert not book.folder.exists()
    assert all(event.body.remembered is None for event in events_of(folder) if event.body.type == "data_prepared")


# --- reading --------------------------------------------------------------------------------------------------------


def test_the_prior_is_recorded_and_the_log_decides(tmp_path: Path, book: Book) -> None:
    """Whatever the file says later, a run that goes on goes on as it began."""
    task = simulated_task(tmp_path, 9)
    teacher = planted(task, score__knn=0.2, data__typos=0.1, draft__lora=0.3)
    book.put(teacher)
    whole = started(tmp_path / "whole", 9)
    driven(whole)
    remembered = next(event.body.remembered for event in events_of(whole) if event.body.type == "data_prepared")
    assert remembered is not None and remembered.runs == 1
    assert set(remembered.priors) == {"score.knn", "data.typos", "draft.lora"}

    book.forget()
    book.put(teacher)
    folder = started(tmp_path / "stopped", 9)
    pid = os.fork()
    if pid == 0:
        try:

            def listen(event: Event) -> None:
                if event.body.type == "analysed" and event.body.experiment == "e0003":
                    os.kill(os.getpid(), signal.SIGKILL)

            with opened(SqliteStore.open(folder, write=True), listen, SimulatedEngine()) as session:
                drive(session)
        finally:
            os._exit(1)
    os.waitpid(pid, 0)
    book.forget()
    book.put(planted(task, 8, score__knn=-0.3, draft__lora=-0.3, data__balance=0.4))
    driven(folder)
    assert outline(folder) == outline(whole)

    book.forget()
    other = started(tmp_path / "untaught", 9)
    driven(other)
    assert outline(other) != outline(whole), "the prior changes nothing: this test shows nothing"


def test_what_paid_is_tried_first(tmp_path: Path) -> None:
    task = simulated_task(tmp_path, 5)
    untaught = [draft.kind for draft in starting_points(task, Random(0))][:6]
    known = {"draft.lora": Prior(mean=0.1, sd=0.02, runs=9), "draft.frozen": Prior(mean=-0.1, sd=0.02, runs=9)}
    taught = [draft.kind for draft in starting_points(task, Random(0), known)][:6]
    assert untaught[0] == "draft.frozen" and (taught[0], taught[-1]) == ("draft.lora", "draft.frozen")
    assert [one for one in taught if one not in known] == [one for one in untaught if one not in known]


def test_the_playbook_prefers_what_paid(tmp_path: Path) -> None:
    task = simulated_task(tmp_path, 5)
    tree = Simulation(task, _Drafts(), Playbook(), lambda recipe, seed: 0.6).run(1, seed=0)
    node = next(node for node in tree.all() if node.proposed.proposal.recipe.stage.backend == "classic")

    def chosen(priors: dict[str, Prior]) -> list[str]:
        choice = Choice(parent=node.id, move=Move.IMPROVE)
        asked = (
            Context(tree, Random(seed), len(tree), None, nominal_s, remembered=Remembered(priors=priors))
            for seed in range(30)
        )
        return [Playbook().propose(task, choice, context).kind for context in asked]

    paid = {"data.dedup": Prior(mean=0.15, sd=0.0125, runs=20)}
    assert chosen(paid).count("data.dedup") >= 28
    assert chosen({}).count("data.dedup") < 10
    told = Playbook().propose(
        task,
        Choice(parent=node.id, move=Move.IMPROVE),
        Context(tree, Random(0), len(tree), None, nominal_s, remembered=Remembered(priors=paid)),
    )
    assert told.expected_effect == pytest.approx(0.15, abs=0.01)


class _Drafts:
    """A policy that only drafts."""

    Params: type[Record] = GreedyParams

    def choose(self, tree: Tree, remaining: Any, rng: Random, params: Any) -> Choice:
        return Choice(parent=None, move=Move.DRAFT)


# --- effects --------------------------------------------------------------------------------------------------------


def test_effects_are_those_of_the_referee_where_there_are_any(tmp_path: Path, book: Book) -> None:
    folder = started(tmp_path, 16, search=SearchSpec(policy="greedy"))
    driven(folder)
    tree = Tree.from_events(events_of(folder))
    known, found = merits(tree), brought(tree)
    kinds = Counter(node.proposed.proposal.kind for node in tree.all())
    judged = [
        node
        for node in tree.all()
        if node.parent is not None and node.analysis and node.analysis.gain and node.analysis.rival == node.parent
    ]
    single = [node for node in judged if kinds[node.proposed.proposal.kind] == 1]
    assert single
    for node in single:
        effect = found[node.proposed.proposal.kind].effect
        assert effect is not None
        assert node.analysis is not None and node.analysis.gain is not None and node.analysis.difference is not None
        assert effect.value == pytest.approx(node.analysis.gain.value)
        assert effect.value != pytest.approx(node.analysis.difference.value)
    assert not {"reference.classic", "replicate", "referee.seed"} & set(found)
    anchor = next(node for node in tree.all() if node.proposed.proposal.kind == "reference.classic")
    draft = next(node for node in tree.all() if node.proposed.proposal.kind == "draft.frozen")
    expected = known[draft.id].value - known[anchor.id].value
    effect = found["draft.frozen"].effect
    assert effect is not None and effect.value == pytest.approx(expected)


def test_several_changes_at_once_teach_about_each(tmp_path: Path, book: Book) -> None:
    folder = started(tmp_path, 16)
    driven(folder)
    tree = Tree.from_events(events_of(folder))
    several = [node for node in tree.all() if node.proposed.proposal.kind == "several.changes"]
    assert several and all(len(node.proposed.choice.kinds) > 1 for node in several)
    found = brought(tree)
    assert "several.changes" not in found
    swapped = [node for node in several if node.parent and node.proposed.choice.kinds[0].startswith("draft.")]
    for node in several:
        for kind in node.proposed.choice.kinds if node not in swapped else ():
            assert found["ablate" if kind.startswith("ablate.") else kind].costs_s
    for node in swapped:
        assert found[node.proposed.choice.kinds[0].replace("draft.", "swap.")].costs_s
    (entry,) = book.read().entries
    assert len(entry.kinds) > 3 and all(one.count for one in entry.kinds)


def test_failures_are_counted(tmp_path: Path) -> None:
    task = simulated_task(tmp_path, 5)

    def objective(recipe: Recipe, seed: int) -> float | Failure:
        if recipe.stage == Stage(backend="classic", params={"score": "log_prob"}):
            return Failure(boundary="train", kind="nan", message="x")
        return 0.5

    found = brought(Simulation(task, _Drafts(), Playbook(), objective).run(6, seed=0))
    assert (found["draft.classic"].failures, found["draft.classic"].effect) == (1, None)
    assert len(found["draft.classic"].costs_s) == 1


# --- switching off, and the command -----------------------------------------------------------------------------------


def test_the_variable_switches_it_off(tmp_path: Path, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRAD_MEMORY", "off")
    driven(started(tmp_path))
    assert not book.folder.exists()


def test_the_variable_holds_for_a_run_that_began_without_it(
    tmp_path: Path, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    book.put(planted(simulated_task(tmp_path, 5), tune=0.1))
    folder = started(tmp_path)
    monkeypatch.setenv("POSTGRAD_MEMORY", "off")
    driven(folder)
    assert len(book.read().entries) == 1
    remembered = next(event.body.remembered for event in events_of(folder) if event.body.type == "data_prepared")
    assert remembered is not None and not remembered.priors


def test_the_task_switches_it_off(tmp_path: Path, book: Book) -> None:
    driven(started(tmp_path, memory=False))
    assert not book.folder.exists()


def test_the_task_key(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,b\n")
    lines = "objective: o\ndata: {train: train.csv}\nbase_models: []\n"
    for text, expected in (("", True), ("memory: off\n", False), ("memory: on\n", True)):
        (tmp_path / "task.yaml").write_text(lines + text)
        assert load_task(tmp_path / "task.yaml").memory is expected
    assert recall.new_name(load_task(tmp_path / "task.yaml")) is None, "the tests' own variable is not set"


def postgrad(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["postgrad", *words])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_the_command_shows_and_forgets(
    tmp_path: Path, book: Book, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = postgrad(capsys, monkeypatch, "memory")
    assert code == 0 and "Nothing is remembered" in out
    book.put(planted(simulated_task(tmp_path, 5), score__knn=0.2, draft__lora=-0.3))
    code, out, _ = postgrad(capsys, monkeypatch, "memory")
    assert code == 0 and "score.knn" in out and "+0.200" in out and "200" not in out.replace("0.200", "")
    book.path.write_text(book.path.read_text() + "half a li")
    document = json.loads(postgrad(capsys, monkeypatch, "memory", "--json")[1])
    assert (document["runs"], document["ignored"], document["switched_off"]) == (1, 1, False)
    assert [row["kind"] for row in document["kinds"]] == ["score.knn", "draft.lora"]
    assert document["kinds"][0]["table"]["mean"] == table()["score.knn"].mean < document["kinds"][0]["prior"]["mean"]
    code, _, err = postgrad(capsys, monkeypatch, "memory", "forget")
    assert code == 2 and "--yes" in err and "This removes" in err and book.path.exists()
    code, out, _ = postgrad(capsys, monkeypatch, "memory", "forget", "--yes")
    assert code == 0 and "Forgotten" in out and not book.path.exists()
    assert "1 finished runs taught on 2 kinds" in out and str(book.path) in out.replace("\n", "")
    code, out, _ = postgrad(capsys, monkeypatch, "memory", "forget", "--yes", "--json")
    assert code == 0 and json.loads(out)["forgotten"] is False
