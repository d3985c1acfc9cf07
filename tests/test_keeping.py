"""What of a run's folder stays and what goes, under a quota and by command; and what is lost comes back or says so."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any, Callable

import pytest
from typer.testing import CliRunner

from postgrad import keeping
from postgrad.bench.overhead import SimulatedEngine, simulated_task
from postgrad.budget import parse_budget
from postgrad.cli.main import app
from postgrad.errors import PostgradError
from postgrad.events import (
    Certified,
    Collected,
    Evaluated,
    Event,
    FinalModel,
    JobFinished,
    JobStarted,
    Rebuilt,
    Removed,
    SealedDone,
)
from postgrad.execute.executor import Executor
from postgrad.keeping import Known, Part, count_models, free, named_in, survey, told_size
from postgrad.records import Budget, Guard, JobResult
from postgrad.runner import champion_model, drive, opened, resume_event, start_run
from postgrad.seal import owed_job
from postgrad.session import Session
from postgrad.store.sqlite import SqliteStore

MB = 1_000_000


def fresh(folder: Path, experiments: int = 5, disk_gb: float | None = None) -> Path:
    task = simulated_task(folder, experiments)
    budget = task.budget.model_copy(update={"disk_gb": disk_gb})
    with start_run(task.model_copy(update={"budget": budget}), folder / "runs") as store:
        return store.folder


def driven(folder: Path, watch: Callable[[Event], None] = lambda event: None) -> str:
    """Drive the run to its end; its champion."""
    with opened(SqliteStore.open(folder, write=True), watch, SimulatedEngine()) as session:
        drive(session)
        assert session.certified is not None
        return session.certified.champion


def events_of(folder: Path) -> tuple[Event, ...]:
    with SqliteStore.open(folder, write=False) as store:
        return store.events()


def bodies_of(folder: Path, kind: type[Any]) -> list[Any]:
    return [event.body for event in events_of(folder) if isinstance(event.body, kind)]


def planted(folder: Path, job: str, megabytes: int = 20) -> Path:
    """The folder of a job, with a checkpoint."""
    place = folder / "scratch" / job / "checkpoint"
    place.mkdir(parents=True, exist_ok=True)
    (place / "state.pt").write_bytes(b"x" * megabytes * MB)
    return place.parent


def whole_model(folder: Path) -> tuple[str, Path]:
    """The artefact of the champion's final model, and where its list lies."""
    certified = bodies_of(folder, Certified)[-1]
    digest = champion_model(bodies_of(folder, JobFinished), certified.champion)
    with SqliteStore.open(folder, write=False) as store:
        return digest, store.artifacts.path(digest)


def postgrad(*words: str) -> tuple[int, Any]:
    done = CliRunner().invoke(app, list(words))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, json.loads(done.stdout) if "--json" in words else done.stdout


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "LOOK_S", 0.0)


# --- the quota --------------------------------------------------------------------------------------------------------


def test_a_size_is_read_and_written_as_people_do() -> None:
    assert parse_budget("20m, 20 GB") == Budget(wall_s=1200, disk_gb=20)
    assert parse_budget("500MB").disk_gb == 0.5 and parse_budget("1.5 tb").disk_gb == 1500
    assert (told_size(21 * 10**9), told_size(12 * MB), told_size(900)) == ("21.0 GB", "12.0 MB", "0.9 kB")


@pytest.mark.usefixtures("often")
def test_over_the_quota_what_nothing_needs_goes_and_the_run_is_the_same(tmp_path: Path) -> None:
    champion = driven(fresh(tmp_path / "free"))
    folder = fresh(tmp_path / "held", disk_gb=0.01)

    def watch(event: Event) -> None:
        if event.body.type == "analysed" and event.body.experiment == "e0002":
            planted(folder, "e0000-search-fold0-7")

    assert driven(folder, watch) == champion
    collected = bodies_of(folder, Collected)
    assert [(each.kind, each.name, each.experiment) for body in collected for each in body.removed] == [
        ("job", "e0000-search-fold0-7", "e0000")
    ]
    assert collected[0].removed[0].bytes >= 20 * MB and collected[0].held > 20 * MB
    assert not (folder / "scratch").exists()


@pytest.mark.usefixtures("often")
def test_where_what_is_needed_does_not_fit_the_run_stops_and_goes_on_with_more(tmp_path: Path) -> None:
    champion = driven(fresh(tmp_path / "free"))
    folder = fresh(tmp_path / "held", disk_gb=0.01)
    place = folder / "scratch" / "e0003-search-fold0-7"

    def watch(event: Event) -> None:
        if event.body.type == "proposed" and event.body.experiment == "e0003":
            planted(folder, place.name)

    with pytest.raises(PostgradError) as stopped:
        driven(folder, watch)
    said = str(stopped.value)
    assert "0.01 GB" in said and place.name in said and "20.0 MB" in said and "Nothing is lost" in said
    assert f"postgrad resume {folder.name} --budget '0.1 GB'" in said
    assert place.exists(), "what is still needed is not taken away"
    with pytest.raises(PostgradError, match="needs all of it"):
        driven(folder)
    with SqliteStore.open(folder, write=True) as store:
        resume_event(store, parse_budget("0.1 GB"), "")
    assert driven(folder) == champion
    assert not bodies_of(folder, Collected)


def test_without_a_quota_nothing_is_looked_at(tmp_path: Path) -> None:
    folder = fresh(tmp_path)

    def watch(event: Event) -> None:
        planted(folder, "e0000-search-fold0-7", 1)

    driven(folder, watch)
    assert not bodies_of(folder, Collected)


# --- what stays -------------------------------------------------------------------------------------------------------


def test_what_the_log_names_is_found_and_nothing_else_goes(tmp_path: Path) -> None:
    """A whole run is freed of everything that may go, and afterwards every artefact that it names is still read."""
    folder = fresh(tmp_path)
    champion = driven(folder)
    with SqliteStore.open(folder, write=True) as store:
        stray = store.artifacts.put_bytes(b"put, and never recorded")
        (store.artifacts.folder / "unfinished" / "half").write_bytes(b"half")
        planted(folder, "e0004-select-fold0-1004", 1)
        events = store.events()
        known = Known.of_events(events)
        named = named_in(store, known.models)
        before = {name for name in store.artifacts.sizes() if name != stray}
        assert named >= before and stray not in named
        parts = survey(folder, store.artifacts, known, named=named)
        assert [part.kind for part in parts if not part.stays] == ["job", "left"]
        assert {part.name: part.stays for part in parts if part.kind == "model"} == {
            name: "the champion" for name in known.models
        }
        removed = free(store, store.append, parts, "a test")
        assert {each.kind for each in removed} == {"job", "left"}
        assert set(store.artifacts.sizes()) == before
        assert not list((store.artifacts.folder / "unfinished").iterdir())
        assert free(store, store.append, survey(folder, store.artifacts, known, named=named), "again") == ()
        model = champion_model([e.body for e in events if isinstance(e.body, JobFinished)], champion)
        assert store.artifacts.verify(model)
    assert driven(folder) == champion, "the run is still whole: its model is published again"


def final(folder: Path, experiment: str, seed: int = 0) -> JobFinished:
    """A final model of an experiment in the store of a run, as an event."""
    model = folder / f"made-{experiment}"
    model.mkdir()
    (model / "weights.safetensors").write_bytes(f"{experiment}/{seed}".encode() * 1000)
    (model / "same.json").write_text("{}" * 1000)
    with SqliteStore.open(folder, write=False) as store:
        digest = store.artifacts.put_folder(model)
    shutil.rmtree(model)
    result = JobResult(job=f"{experiment}-sealed", model=digest)
    return JobFinished(job=result.job, experiment=experiment, purpose="sealed", result=result)


def test_of_final_models_the_champions_stays_and_those_that_were_refused_go(tmp_path: Path) -> None:
    folder = fresh(tmp_path)
    champion = driven(folder)
    kept, _ = whole_model(folder)
    one, two = [name for name in ("e0001", "e0002", "e0003") if name != champion][:2]
    refused, older = final(folder, one), final(folder, two)
    with SqliteStore.open(folder, write=True) as store:
        for body in (refused, FinalModel(experiment=one, refused="too slow"), older):
            store.append(body)
        known = Known.of_events(store.events())
        assert list(known.models) == [kept, refused.result.model, older.result.model]
        parts = survey(folder, store.artifacts, known)
        assert [part.experiment for part in parts if not part.stays] == [one, two]
        assert [part.bytes > 4000 for part in parts if not part.stays] == [True, True]
        (removed,) = free(store, store.append, parts, "a test", enough=1)
        assert removed.experiment == one, "the oldest goes first, and no more than is asked for"
        assert not store.artifacts.verify(str(refused.result.model)), "its bytes are gone"
        assert store.artifacts.verify(kept) and store.artifacts.verify(str(older.result.model)), "shared files stay"
        assert str(refused.result.model) not in Known.of_events(store.events()).models


def test_a_log_is_read_event_by_event(tmp_path: Path) -> None:
    """What is held of a log does not grow with what its events say."""
    folder, tail, count = fresh(tmp_path), "x" * 10_000, 4_000
    with SqliteStore.open(folder, write=True) as store:
        for number in range(count):
            result = JobResult(job=f"e0000-{number}", log_tail=tail)
            store.append(JobFinished(job=result.job, experiment="e0000", purpose="search", result=result))
        stray = Part(kind="job", name="e0000-search-a-0", experiment="e0000", bytes=5)
        tracemalloc.start()
        parts = survey(folder, store.artifacts, Known.of_events(store.in_order()))
        free(store, store.append, (*parts, stray), "a test")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < count * len(tail) / 2


def test_a_model_that_is_made_again_is_there_again() -> None:
    made = JobFinished(job="a", experiment="e1", purpose="sealed", result=JobResult(job="a", model="f" * 64))
    gone = Collected(why="", removed=(Removed(kind="model", name="f" * 64, bytes=1),), held=1)
    models: dict[str, str] = {}
    for body, left in ((made, {"f" * 64: "e1"}), (gone, {}), (made, {"f" * 64: "e1"})):
        count_models(models, body)
        assert models == left


# --- by command -------------------------------------------------------------------------------------------------------


def test_the_command_shows_what_may_go_and_frees_it(tmp_path: Path) -> None:
    folder = fresh(tmp_path, disk_gb=1)
    driven(folder)
    planted(folder, "e0001-search-fold0-1", 2)
    code, shown = postgrad("disk", str(folder), "--json")
    assert code == 0 and shown["granted_gb"] == 1 and shown["freed"] == []
    assert {part["kind"] for part in shown["parts"]} >= {"job", "model", "published", "evidence", "log"}
    on_disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert 0.9 * on_disk < shown["bytes"] < 1.5 * on_disk, "folders count a little themselves"
    code, text = postgrad("disk", str(folder))
    assert code == 0 and "may go" in text and "the champion" in text and "--free" in text
    code, freed = postgrad("disk", str(folder), "--free", "--json")
    assert code == 0 and [each["name"] for each in freed["freed"]] == ["e0001-search-fold0-1"]
    assert not (folder / "scratch" / "e0001-search-fold0-1").exists()
    assert postgrad("disk", str(folder), "--free", "--json")[1]["freed"] == []
    assert [event.body.type for event in events_of(folder)][-1] == "collected"


# --- lost and damaged -------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))


HARM: dict[str, Callable[[Path], None]] = {"deleted": Path.unlink, "cut": cut, "flipped": flipped}


@pytest.mark.parametrize("how", HARM)
@pytest.mark.parametrize("what", ["list", "weights"])
def test_a_lost_model_comes_back_from_its_published_copy(how: str, what: str, tmp_path: Path) -> None:
    folder = fresh(tmp_path)
    driven(folder)
    digest, place = whole_model(folder)
    with SqliteStore.open(folder, write=False) as store:
        inner = store.artifacts.path((store.artifacts.files(digest) or {})["answers.json"])
    HARM[how](place if what == "list" else inner)
    driven(folder)
    with SqliteStore.open(folder, write=False) as store:
        assert store.artifacts.verify(digest)
    (found,) = bodies_of(folder, Rebuilt)
    assert found.artefacts == (digest,) and not found.job, "nothing was trained"


@pytest.mark.parametrize("how", HARM)
def test_a_model_that_is_lost_everywhere_is_trained_again(how: str, tmp_path: Path) -> None:
    folder = fresh(tmp_path)
    driven(folder)
    digest, place = whole_model(folder)
    HARM[how](place)
    shutil.rmtree(folder / "model")
    driven(folder)
    with SqliteStore.open(folder, write=False) as store:
        assert store.artifacts.verify(digest), "the same recipe, rows and seed: the same bytes"
    assert (folder / "model" / "postgrad.json").exists()
    (found,) = bodies_of(folder, Rebuilt)
    assert found.artefacts == (digest,) and "-sealed-" in found.job
    assert len(bodies_of(folder, SealedDone)) == 1, "and nothing sealed was read for it"


def test_a_model_that_may_go_and_is_gone_is_not_made_again(tmp_path: Path) -> None:
    folder = fresh(tmp_path)
    champion = driven(folder)
    body = final(folder, next(name for name in ("e0001", "e0002") if name != champion))
    with SqliteStore.open(folder, write=True) as store:
        store.append(body)
        assert free(store, store.append, survey(folder, store.artifacts, Known.of_events(store.events())), "a test")
    driven(folder)
    assert not bodies_of(folder, Rebuilt)


def test_weights_that_are_gone_before_the_sealed_read_are_trained_again(tmp_path: Path) -> None:
    folder = fresh(tmp_path)
    champion = driven(folder)
    _, place = whole_model(folder)
    with SqliteStore.open(folder, write=True) as store:
        session = Session(store, Executor(SimulatedEngine(), store.artifacts, folder / "scratch"), lambda event: None)
        assert owed_job(session, champion, save_model=True).copy == ""
        place.unlink()
        assert owed_job(session, champion, save_model=True).copy == "kept"
        assert owed_job(session, champion, save_model=False).copy == "", "answers are on record"


class Stopped(Exception):
    """Ends a controller in the middle of a run."""


def stopping(kind: str, times: int = 1) -> Callable[[Event], None]:
    """A watch that ends the run at the event of this kind that comes so manyth."""
    seen: list[Event] = []

    def watch(event: Event) -> None:
        if event.body.type == kind:
            seen.append(event)
            if len(seen) == times:
                raise Stopped

    return watch


def test_a_baseline_that_was_measured_is_not_trained_again_for_the_next_champion(tmp_path: Path) -> None:
    task = simulated_task(tmp_path, 5).model_copy(update={"guards": (Guard(measure="model_mb", max=100.0),)})
    with start_run(task, tmp_path / "runs") as store:
        folder = store.folder
    with pytest.raises(Stopped):
        driven(folder, stopping("final_model"))
    first = bodies_of(folder, Certified)[-1]
    assert [body.experiment for body in bodies_of(folder, FinalModel)] == [first.baseline] != [first.champion]
    with SqliteStore.open(folder, write=True) as store:
        store.append(FinalModel(experiment=first.champion, refused="too slow, say"))
    with pytest.raises(Stopped):
        driven(folder, stopping("certified"))
    with SqliteStore.open(folder, write=True) as store:
        parts = survey(folder, store.artifacts, Known.of_events(store.events()))
        removed = free(store, store.append, parts, "a test")
    assert first.baseline in [part.experiment for part in removed if part.kind == "model"]
    driven(folder)
    begun = [body.job for body in bodies_of(folder, JobStarted) if body.experiment == first.baseline]
    assert len([name for name in begun if "-sealed-" in name]) == 1


def test_a_part_that_stays_is_never_removed(tmp_path: Path) -> None:
    folder = fresh(tmp_path)
    with SqliteStore.open(folder, write=True) as store:
        needed = Part(kind="job", name="e0000-search-a-0", experiment="e0000", bytes=5, stays="it is running")
        assert free(store, store.append, [needed], "a test") == ()
        assert [event.body.type for event in store.events()] == ["run_started"]


# --- answers and items ------------------------------------------------------------------------------------------------


def of_run(folder: Path, kind: str) -> list[str]:
    """Artefacts of a run: the answers of its jobs, or the items of its evaluations."""
    if kind == "answers":
        return [unit.outputs for body in bodies_of(folder, JobFinished) for unit in body.result.units]
    return list({body.evaluation.experiment: body.evaluation.items for body in bodies_of(folder, Evaluated)}.values())


@pytest.mark.parametrize("how", HARM)
@pytest.mark.parametrize("kinds", [("answers",), ("items",), ("answers", "items")], ids="+".join)
def test_lost_answers_and_items_are_made_again(kinds: tuple[str, ...], how: str, tmp_path: Path) -> None:
    """In the middle of a search: the run goes on and ends as if nothing had been lost."""
    champion = driven(fresh(tmp_path / "whole"))
    folder = fresh(tmp_path / "harmed")

    class Enough(Exception):
        pass

    def watch(event: Event) -> None:
        if event.body.type == "analysed" and event.body.experiment == "e0003":
            raise Enough

    with pytest.raises(Enough):
        driven(folder, watch)
    names = {name for kind in kinds for name in of_run(folder, kind)}
    with SqliteStore.open(folder, write=False) as store:
        for name in names:
            HARM[how](store.artifacts.path(name))
        assert not any(store.artifacts.verify(name) for name in names)
    assert driven(folder) == champion
    with SqliteStore.open(folder, write=False) as store:
        assert all(store.artifacts.verify(name) for name in names)
    made = {name for body in bodies_of(folder, Rebuilt) for name in body.artefacts}
    assert made == names and not any(body.lost for body in bodies_of(folder, Rebuilt))
