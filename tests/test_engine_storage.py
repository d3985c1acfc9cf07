"""Jobs whose controller and nodes share no folder: all goes through a store that speaks S3, over real sockets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Iterator

import psutil
import pytest

from postgrad.engines.base import Engine, Exit, Handle
from postgrad.engines.remote import store as store_module
from postgrad.engines.remote.engine import RemoteEngine, RemoteHandle
from postgrad.engines.remote.lease import WORK
from postgrad.engines.remote.posted import Looks
from postgrad.engines.remote.store import Store as Reached
from postgrad.engines.storage import storage_problems
from postgrad.errors import UserError
from postgrad.records import EngineSpec
from postgrad.runner import drive, opened
from postgrad.store.sqlite import SqliteStore
from postgrad.testing.engine import EngineContract, until
from s3_server import KEY, SECRET, Store, nodes_apart, serving
from storage_run import STORAGE, begun
from test_engine_remote import LIMITS, STEPS, hasty, held_at, held_each_time
from test_loop import outline

__all__ = ["hasty"]

# Long enough that copies of its folder are kept on the way.
STEPS = STEPS.replace("< 20", "< 60")
# Its first start waits until it is told to go on: a copy is kept before it ends.
HALF = held_at(30, STEPS)


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    with serving() as store:
        yield store


@pytest.fixture(autouse=True)
def store(server: Store, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The server with an empty bucket, and this process's own way to it."""
    for name, value in (("ACCESS_KEY_ID", KEY), ("SECRET_ACCESS_KEY", SECRET), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    server.client.create_bucket(Bucket="runs")
    with suppress(FileNotFoundError):  # The first question loads what speaks S3, which takes long on a busy machine.
        Reached("s3://runs/x", 120.0).read("none")
    server.asked.clear()
    yield server
    server.overwrites, server.failing, server.slow_s = False, "", 0.0
    for key in server.keys("runs"):
        server.client.delete_object(Bucket="runs", Key=key)


def job_of(nodes: Path, name: str = "job") -> Path:
    """Where a node runs a job now; a folder that is not there where none does."""
    found = []
    for path in (nodes / "scratch").glob(f"*/{WORK}/{name}"):
        with suppress(FileNotFoundError):  # A node is just removing it.
            found.append((path.stat().st_ctime, path))
    return max(found)[1] if found else nodes / "none"


class Place:
    """A job of a controller, on a cluster of nodes that see nothing of the controller's."""

    def __init__(self, tmp_path: Path, store: Store, program: str = STEPS, **spec: float) -> None:
        self.nodes, self.folder = tmp_path / "nodes", tmp_path / "controller" / "run" / "scratch" / "job"
        self.folder.mkdir(parents=True)
        self.program = tmp_path / "program.py"
        self.program.write_text(program)
        self.store, self.cluster = store, nodes_apart(self.nodes, store)
        told = {"workers": 2, "threads": 1, "lease_s": 10.0, "storage": "s3://runs/mine", **spec}
        self.spec = EngineSpec.model_validate(told)
        self.engine = self.opened()

    def opened(self) -> RemoteEngine:
        engine = RemoteEngine(self.cluster, (sys.executable, str(self.program)))
        engine.open(self.spec)
        return engine

    def started(self) -> RemoteHandle:
        handle = self.engine.start(self.folder, LIMITS)
        assert isinstance(handle, RemoteHandle)
        return handle

    @property
    def job(self) -> Path:
        """Where it runs."""
        return job_of(self.nodes)

    def go(self) -> None:
        """Let it go on to its end."""
        (self.job / "go").touch()

    def steps(self, folder: Path | None = None) -> dict[str, int]:
        try:
            found: dict[str, int] = json.loads(((folder or self.job) / "state.json").read_text())
        except FileNotFoundError:
            return {"starts": 0, "steps": 0}
        return found

    def kept(self) -> list[str]:
        """Whole copies of the job's folder in the store."""
        return [key for key in self.store.keys("runs") if key.endswith("/tree.json")]

    def ended(self, handle: RemoteHandle, patience_s: float = 120) -> Exit:
        found = handle.wait(patience_s)
        assert found is not None, "it did not end"
        return found


def plain_files() -> int:
    """How many open files this process has, without what has no name."""
    time.sleep(0.1)
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return sum(not what.startswith(("socket:", "anon_inode:")) and not what.endswith(" (deleted)") for what in found)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted as Linux lists them")
class TestStorageEngine(EngineContract):
    """The contract, and what it says of a job's end holds for what came back."""

    @pytest.fixture(autouse=True)
    def _server(self, store: Store, tmp_path: Path) -> None:
        self.cluster = nodes_apart(tmp_path / "nodes", store)
        self.places: dict[Path, Path] = {}

    def make(self, program: Path) -> Engine:
        return RemoteEngine(self.cluster, (sys.executable, str(program)))

    def spec(self) -> EngineSpec:
        return EngineSpec(workers=2, threads=1, storage="s3://runs/contract", lease_s=6.0)

    def around(self, folder: Path) -> Path:
        return folder.parent / "nodes" / "scratch"

    def held(self) -> tuple[int, int]:
        """Connections stay open for the next question. The server in this process has their other ends, and temporary
        files for what it holds; what it does for a moment is waited for."""
        return min(plain_files() for _ in range(10)), len(psutil.Process().children())

    def started(self, engine: Engine, folder: Path, name: str = "job", **limits: float) -> Handle:
        handle = super().started(engine, folder, name, **limits)
        until(lambda: handle.wait(0) is not None or job_of(folder / "nodes", name).exists())
        self.places[folder / name] = job_of(folder / "nodes", name)
        return handle

    def inside(self, folder: Path) -> Path:
        return self.places[folder]


def test_a_job_leaves_its_results_with_the_controller_and_nothing_in_the_store(tmp_path: Path, store: Store) -> None:
    program = """
import os, sys
from pathlib import Path
folder = Path(sys.argv[1])
(folder / "found").write_text((folder / "rows.jsonl").read_text() + (folder / "deep" / "one").read_text())
(folder / "big").write_bytes(os.urandom(1 << 20))
(folder / "model" / "empty").mkdir(parents=True)
(folder / "model" / "run.sh").write_text("#!/bin/sh")
(folder / "model" / "run.sh").chmod(0o755)
(folder / "model" / "link").symlink_to("run.sh")
print("said")
"""
    place = Place(tmp_path, store, program)
    (place.folder / "rows.jsonl").write_text("rows ")
    (place.folder / "deep").mkdir()
    (place.folder / "deep" / "one").write_text("one")
    handle = place.started()
    assert place.ended(handle).code == 0
    assert (place.folder / "found").read_text() == "rows one" and "said" in (place.folder / "log.txt").read_text()
    assert (place.folder / "big").stat().st_size == 1 << 20
    assert (place.folder / "model" / "empty").is_dir() and (place.folder / "model" / "link").is_symlink()
    assert (place.folder / "model" / "run.sh").stat().st_mode & 0o777 == 0o755
    assert store.keys("runs") == [], "what is done is removed"
    until(lambda: not list(place.nodes.glob("scratch/*")))
    told = "".join(path.read_text() for path in (place.nodes / "cluster").glob("*.json"))
    assert str(place.folder) not in told and SECRET not in told and KEY not in told
    again = place.opened().start(place.folder, LIMITS)
    assert again.wait(0) == handle.wait(0) and len(place.cluster.submitted) == 1, "how it ended is known here"


def test_a_lost_node_is_replaced_and_the_job_goes_on_from_the_last_copy(tmp_path: Path, store: Store) -> None:
    place = Place(tmp_path, store, HALF, lease_s=6.0)
    handle = place.started()
    until(lambda: handle.wait(0.05) is not None or bool(place.kept()))
    done = place.steps()["steps"]
    place.cluster.lose(handle.name)
    found = place.ended(handle)
    assert (found.code, found.cause) == (0, None) and (place.folder / "result").read_text() == "whole"
    assert done > 0 and place.steps(place.folder) == {"starts": 2, "steps": 60}
    assert len(place.cluster.submitted) == 2 and found.usage.wall_s > 1.0, "both attempts are paid for"


def test_a_half_written_copy_is_not_used(tmp_path: Path, store: Store) -> None:
    place = Place(tmp_path, store, HALF, lease_s=6.0)
    handle = place.started()
    until(lambda: handle.wait(0.05) is not None or bool(place.kept()))
    place.cluster.freeze(handle.name)
    first = place.job
    (tree,) = place.kept()
    pieces = json.loads(store.read("runs", tree))["pieces"]
    gone = next(piece["key"] for piece in pieces if piece["name"] == "state.json")
    store.client.delete_object(Bucket="runs", Key=f"mine/{gone}")
    place.cluster.lose(handle.name)
    until(lambda: handle.wait(0.05) is not None or len(place.cluster.submitted) == 2)
    log = place.cluster.log(handle.name)
    until(lambda: handle.wait(0.05) is not None or (place.job != first and (place.job / "state.json").exists()))
    place.go()
    found = place.ended(handle)
    assert found.code == 0 and place.steps(place.folder) == {"starts": 1, "steps": 60}, "it began anew"
    assert "not whole" in log.read_text()


def test_a_frozen_node_is_given_up_and_writes_nothing_when_it_is_back(tmp_path: Path, store: Store) -> None:
    place = Place(tmp_path, store, HALF, lease_s=6.0)
    handle = place.started()
    until(lambda: handle.wait(0.05) is not None or bool(place.kept()))
    # What is shown is put beside, and was begun before that.
    until(lambda: handle.wait(0.05) is not None or any("/1/shown/" in key for key in store.keys("runs")))
    first = handle.name
    place.cluster.freeze(first)
    until(lambda: handle.wait(0.1) is not None or len(place.cluster.submitted) == 2)
    before = [key for key in store.keys("runs") if "/1/" in key]
    place.cluster.freeze(first, signal.SIGCONT)
    until(lambda: not place.cluster.alive(first))
    after = [key for key in store.keys("runs") if "/1/" in key]
    assert set(after) <= set(before) and not any(key.endswith("/1/exit.json") for key in after)
    found = place.ended(handle)
    assert (found.code, found.cause) == (0, None) and place.steps(place.folder)["steps"] == 60


def test_a_controller_that_was_killed_finds_its_job(tmp_path: Path, store: Store) -> None:
    place = Place(tmp_path, store, HALF)
    first = place.started()
    until(lambda: place.steps()["steps"] >= 3)
    place.engine = place.opened()
    second = place.started()
    assert second.name == first.name and len(place.cluster.submitted) == 1
    place.go()
    assert place.ended(second).code == 0 and place.steps(place.folder) == {"starts": 1, "steps": 60}


@pytest.mark.parametrize("overwrites", [False, True])
def test_a_job_that_is_delivered_twice_runs_once(tmp_path: Path, store: Store, overwrites: bool) -> None:
    store.overwrites = overwrites
    place = Place(tmp_path, store, lease_s=20.0)
    place.engine.grace_s = 60.0  # The cluster says what became of the second one.
    place.cluster.reachable = False
    handle = place.started()
    request = place.engine.request(handle._attempt, LIMITS)
    place.cluster.reachable = True
    for _ in range(2):
        place.cluster.deliver(request)
    until(lambda: "delivered twice" in place.cluster.log(handle.name).read_text())
    assert place.ended(handle).code == 0 and place.steps(place.folder) == {"starts": 1, "steps": 60}


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_store_that_is_away_for_a_moment_ends_nothing(tmp_path: Path, store: Store, at_the_end: bool) -> None:
    reached = 58 if at_the_end else 3
    place = Place(tmp_path, store, held_at(reached, STEPS), lease_s=30.0)
    assert place.engine._office is not None
    place.engine._office.store.patience_s = 1.0  # Or the store is away for long before the look at it is over.
    handle = place.started()
    until(lambda: place.steps()["steps"] == reached)
    store.away()
    if at_the_end:
        place.go()
        until((place.job / "result").exists)
    assert handle.wait(2.5) is None
    store.back()
    place.engine._office.store.patience_s = 10.0
    if not at_the_end:
        place.go()
    assert place.ended(handle).code == 0
    assert len(place.cluster.submitted) == 1 and place.steps(place.folder) == {"starts": 1, "steps": 60}


def test_preemption_keeps_what_was_done_and_goes_on(tmp_path: Path, store: Store) -> None:
    place = Place(tmp_path, store, held_each_time(20, STEPS), retries=0)
    handle = place.started()
    names: list[str] = []
    while len(names) < 2:
        until(lambda: handle.wait(0.05) is not None or place.steps()["starts"] == len(place.cluster.submitted))
        names.append(handle.name)
        place.cluster.cancel(handle.name)
        until(lambda: handle.wait(0.05) is not None or handle.name != names[-1])
    found = place.ended(handle)
    assert (found.code, found.cause) == (0, None), "preemptions are no losses"
    assert place.steps(place.folder) == {"starts": 3, "steps": 60}


def test_a_stopped_job_is_here_and_goes_on_when_it_is_started_again(tmp_path: Path, store: Store) -> None:
    place = Place(tmp_path, store, HALF)
    handle = place.started()
    until(lambda: place.steps()["steps"] >= 3)
    handle.stop()
    assert place.ended(handle).cause == "stopped" and not place.cluster.alive(handle.name)
    assert 3 <= place.steps(place.folder)["steps"] < 60 and store.keys("runs") == []
    assert place.ended(place.started()).code == 0 and place.steps(place.folder) == {"starts": 2, "steps": 60}


def test_a_job_that_is_forgotten_is_ended_by_its_node_and_leaves_nothing(tmp_path: Path, store: Store) -> None:
    place = Place(tmp_path, store, STEPS.replace("< 60", "< 600"), lease_s=20.0)
    handle = place.started()
    until(lambda: place.steps()["steps"] >= 3)
    place.opened().forget(place.folder.parent)  # By a controller that does not go on with it.
    until(lambda: not place.cluster.alive(handle.name))
    # A sign of life, or what is shown, that was on its way when the rest was removed may lie there.
    left = [key for key in store.keys("runs") if not key.endswith("/beat.json") and "/shown/" not in key]
    assert left == [] and not list(place.nodes.glob("scratch/*"))
    assert place.steps(place.folder) == {"starts": 0, "steps": 0}


def test_a_node_that_cannot_reach_the_store_says_so(tmp_path: Path, store: Store) -> None:
    place = Place(tmp_path, store, retries=0)
    (place.nodes / "home" / ".aws" / "credentials").unlink()
    found = place.ended(place.started(), 120)
    assert found.cause == "lost" and "This node cannot read s3://runs/mine" in (place.folder / "log.txt").read_text()


def test_a_store_that_is_away_when_a_node_fetches_its_job_is_waited_for(tmp_path: Path, store: Store) -> None:
    place = Place(tmp_path, store, lease_s=30.0)
    place.cluster.reachable = False
    (place.folder / "rows").write_text("rows")
    handle = place.started()
    request = place.engine.request(handle._attempt, LIMITS)
    store.failing = "/inputs/"
    place.cluster.deliver(request)
    until(lambda: any(key.endswith("/1/lease.json") for key in store.keys("runs")))
    time.sleep(2.0)
    store.failing = ""
    place.cluster.reachable = True
    assert place.ended(handle).code == 0 and len(place.cluster.submitted) == 1
    assert place.steps(place.folder) == {"starts": 1, "steps": 60}


def test_an_environment_that_a_node_lacks_is_named(tmp_path: Path, store: Store) -> None:
    place = Place(tmp_path, store, retries=0)
    missing = str(tmp_path / "controller" / "environment")
    (place.folder / "job.json").write_text(json.dumps({"units": [], "environments": [missing]}))
    found = place.ended(place.started())
    said = (place.folder / "log.txt").read_text()
    assert found.cause == "lost" and f"the environment {missing} of a backend is not on this node" in said


def test_a_base_model_is_put_once_and_is_known_by_its_name(tmp_path: Path, store: Store) -> None:
    program = """
import json, sys
from pathlib import Path
folder = Path(sys.argv[1])
base = Path(json.loads((folder / "job.json").read_text())["base_model"])
size, settings = (base / "weights").stat().st_size, (base / "inner" / "config").read_text()
(folder / "seen").write_text(f"{base} {base.name} {size} {settings}")
"""
    place = Place(tmp_path, store, program)
    model = tmp_path / "controller" / "a-model"
    (model / "inner").mkdir(parents=True)
    (model / "weights").write_bytes(bytes(1 << 20))
    (model / "inner" / "config").write_text("settings")
    text = json.dumps({"units": [], "base_model": str(model)})
    for _ in range(2):
        shutil.rmtree(place.folder)
        place.folder.mkdir()
        (place.folder / "job.json").write_text(text)
        assert place.ended(place.started()).code == 0
        where, *facts = (place.folder / "seen").read_text().split()
        assert facts == ["a-model", str(1 << 20), "settings"] and where.startswith(str(place.nodes / "home"))
        assert (place.folder / "job.json").read_text() == text, "as it was handed out"
    puts = [path for method, path in store.asked if method == "PUT" and "/models/" in path]
    assert len(puts) == len(set(puts)) == 3, "weights, the small files, and the list of them"
    assert all("/models/" in key for key in store.keys("runs"))


def test_a_store_that_cannot_be_used_is_told_before_anything_starts(tmp_path: Path, store: Store) -> None:
    with pytest.raises(UserError, match="engine.storage: s3://nothing/here cannot be used"):
        engine = RemoteEngine(nodes_apart(tmp_path / "other", store))
        engine.open(EngineSpec(storage="s3://nothing/here", lease_s=3.0))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"storage": "s3://key:secret@bucket/x"}, "user name or a password"),
        ({"storage": "/shared/folder"}, "a URL was expected"),
        ({"storage": "s3://"}, "a URL was expected"),
        ({"storage": "file:///shared"}, "--runs-dir"),
        ({"storage": "memory://x"}, "no other process"),
        ({"storage": "s4://bucket"}, "unknown kind of store 's4'"),
        ({"storage": "s3://bucket/*"}, "plain URL"),
        ({"storage": "s3://bucket/x", "nodes": 2}, "share a folder"),
        ({"storage": "s3://bucket/x", "kind": "local"}, "need none"),
    ],
)
def test_what_is_wrong_with_a_storage_is_told(told: dict[str, object], said: str) -> None:
    found = list(storage_problems(EngineSpec.model_validate({"kind": "ray", **told})))
    assert len(found) == 1 and said in found[0], found


def test_a_storage_that_is_right_is_none() -> None:
    assert list(storage_problems(EngineSpec(kind="ray", storage="s3://bucket/prefix"))) == []
    assert list(storage_problems(EngineSpec())) == []


def test_signs_of_life_of_all_jobs_are_asked_at_once_and_not_again_for_a_moment(store: Store) -> None:
    reached = Counting("s3://runs/x", 60.0)
    looks = Looks(reached, fresh_s=60.0)
    for number in range(3):
        reached.write(f"jobs/{number}/beat.json", b"%d" % number)
    read = [looks.read(f"jobs/{number}/beat.json") for number in (0, 1, 2)]
    store.asked.clear()
    assert read == [b"0", b"1", b"2"] == [looks.read(f"jobs/{number}/beat.json") for number in (0, 1, 2)]
    assert store.asked == [], "a moment ago"
    reached.write("jobs/1/beat.json", b"9")
    looks._at -= 61.0  # A minute later.
    store.asked.clear()
    assert looks.read("jobs/0/beat.json") == b"0" and looks.read("jobs/1/beat.json") == b"9"
    assert sorted(path[-11:] for _, path in store.asked) == ["0/beat.json", "1/beat.json", "2/beat.json"]
    with pytest.raises(FileNotFoundError):
        looks.read("jobs/3/beat.json")
    looks.forget("jobs/")
    store.away()
    reached.patience_s, reached.asked = 1.0, 0
    for _ in range(2):
        with pytest.raises(OSError):
            looks.read("jobs/0/beat.json")
    assert reached.asked == 1, "the second one is told what the first one was"
    store.back()


class Counting(Reached):
    """Knows how often it was asked."""

    asked = 0

    def _ask(self, method: str, *words: Any, _size: int = 0, **named: Any) -> Any:
        self.asked += 1
        return super()._ask(method, *words, _size=_size, **named)


def test_a_store_is_asked_within_a_time(store: Store) -> None:
    reached = Reached("s3://runs/x", 60.0)
    reached.write("one", b"1")
    assert reached.take("two", b"a") and reached.take("two", b"a") and not reached.take("two", b"b")
    assert [key for key in reached.names("") if not key.startswith("jobs/")] == ["one", "two"]
    reached.patience_s, store.slow_s = 1.0, 60.0
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        reached.read("one")
    assert time.monotonic() - began < 30.0, "the store would have taken a minute"
    store.slow_s = 0.0
    store.away()
    with pytest.raises(OSError):
        reached.read("one")
    store.back()
    reached.patience_s = 60.0
    with pytest.raises(FileNotFoundError):
        patiently(reached, "none")


def test_a_store_that_was_away_and_is_slow_now_is_heard(store: Store) -> None:
    reached = Reached("s3://runs/x", 60.0)
    reached.write("one", b"1")
    reached.patience_s, store.slow_s = 0.5, 60.0
    with pytest.raises(TimeoutError):
        reached.read("one")
    reached.patience_s, store.slow_s = 60.0, 1.5 * store_module.AWAY_S
    assert patiently(reached, "one") == b"1"


def patiently(reached: Reached, key: str) -> bytes:
    """Ask until the store answers, as whoever needs it does."""
    for _ in range(8):
        with suppress(TimeoutError):
            return reached.read(key)
    raise AssertionError("it does not answer")


# --- a whole run ------------------------------------------------------------------------------------------------------

EXPERIMENTS = 2


def driven(folder: Path, run: Path, url: str, kill_after: int = 0, lose_after: int = 0) -> int:
    """Drive a run in a process of its own, whose nodes share nothing with it; its exit code."""
    words = [str(folder), str(run), url, str(kill_after), str(lose_after)]
    program = Path(__file__).with_name("storage_run.py")
    done = subprocess.run([sys.executable, str(program), *words], capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, -signal.SIGKILL), done.stdout + done.stderr
    return done.returncode


def outline_of(run: Path) -> str:
    with SqliteStore.open(run, write=False) as store:
        return outline(store)


@pytest.mark.slow
def test_a_run_without_a_shared_folder_ends_as_it_does_on_this_machine(tmp_path: Path, store: Store) -> None:
    told = {"workers": 2, "threads": 1, "memory_mb": 1500, "lease_s": 5.0}
    here = begun(tmp_path / "here", EXPERIMENTS, EngineSpec.model_validate(told))
    with opened(SqliteStore.open(here, write=True)) as session:
        drive(session)
    apart = tmp_path / "apart"
    spec = EngineSpec.model_validate({**told, "kind": "ray", "storage": STORAGE, "sandbox": "none"})
    run = begun(apart, EXPERIMENTS, spec)
    nodes_apart(apart / "nodes", store)
    assert driven(apart, run, store.url, kill_after=12) == -signal.SIGKILL
    assert driven(apart, run, store.url, lose_after=20) == 0
    assert outline_of(run) == outline_of(here)
    assert store.keys("runs") == [], "nothing is left behind"
