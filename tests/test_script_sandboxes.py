"""What the sandbox of a script, and that of its referee, refuse on this machine, under each rung that works here. The
probe is a program of its own with the audit hook off: what is refused, the sandbox refuses."""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Iterator

import pytest

from free_ports import free_ports
from postgrad.engines.local import environment
from postgrad.engines.places import machine_places
from postgrad.engines.sandbox import tried
from postgrad.errors import PostgradError
from postgrad.records import TaskSpec
from postgrad.runner import opened
from postgrad.scripts import session as session_module
from postgrad.scripts.session import ScriptSession
from postgrad.store.sqlite import SqliteStore
from postgrad.tree import Tree
from test_scripts import ATTACKS, PREPARE, TRAIN, driven, events_of, run_of, task_of

SECRET = "sk-of-the-user"
# Arguments: the place that the job starts in, then what the test knows. Prints the names of what worked.
PROBE = """
import os, socket, sys
work, source, private, port, abstract, controller = sys.argv[1:7]
run = os.path.abspath(os.path.join(work, *[".."] * 4))
job = os.path.abspath(os.path.join(work, "..", ".."))
def connected(family, address):
    with socket.socket(family) as made:
        made.settimeout(0.3)
        made.connect(address)
def sent():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.sendto(b"x", ("127.0.0.1", int(port)))
        made.settimeout(0.3)
        made.recv(1)
def mine():
    if SECRET not in os.environ.values():
        raise OSError
def read(*parts):
    return lambda: open(os.path.join(*parts), "rb").read()
def written(*parts):
    return lambda: open(os.path.join(*parts), "wb").write(b"x")
def linked():
    os.symlink(os.path.join(run, "events.sqlite"), os.path.join(work, "link"))
    try:
        open(os.path.join(work, "link"), "rb").read(1)
    finally:
        os.unlink(os.path.join(work, "link"))
def listed():
    if "events.sqlite" not in os.listdir(run):
        raise OSError
WAYS = {
    "reads what is sealed": read(run, "hidden", "sealed", "sealed.txt"),
    "reads what the search hides": read(run, "hidden", "search", "val.txt"),
    "reads the source": read(source, "val.txt"),
    "reads the log": read(run, "events.sqlite"),
    "reads the log by a link": linked,
    "reads the commits": read(run, "repo", "HEAD"),
    "lists the run": listed,
    "reads what another job has": read(run, "scratch", "another", "run", "work", "train.py"),
    "reads the files that were edited": read(job, "run", "work", "train.py"),
    "reads a file of the person": read(private),
    "reads by the controller's root": read(f"/proc/{controller}/root", private.lstrip("/")),
    "reads the controller's environment": read(f"/proc/{controller}/environ"),
    "has the person's key": mine,
    "writes into the source": written(source, "planted.py"),
    "writes into the run": written(run, "planted"),
    "connects to this machine": lambda: connected(socket.AF_INET, ("127.0.0.1", int(port))),
    "sends to this machine": sent,
    "connects to a socket file": lambda: connected(socket.AF_UNIX, os.path.join(os.path.dirname(private), "socket")),
    "connects to an abstract socket": lambda: connected(socket.AF_UNIX, "\\0" + abstract),
    "signals the controller": lambda: os.kill(int(controller), 0),
    "has its own files": read(work, "prepare.py"),
    "writes its own files": written(work, "own.txt"),
}
for name, way in WAYS.items():
    try:
        way()
        print(name)
    except OSError:
        pass
"""
ASK = """
import json, os, subprocess, sys
from pathlib import Path
done = subprocess.run([sys.executable, "-I", "-S", "-c", {probe!r}, os.getcwd(), *{facts!r}], capture_output=True)
found = done.stdout.decode().splitlines() if not done.returncode else [done.stderr.decode()[-500:]]
"""
# With namespaces it is the private /tmp of the job that takes this; what matters is that no such file is there.
MAY_SEEM = {"writes into the run", "writes into the source"}
# What the clean environment of every job keeps from it without a sandbox.
KEPT = {"has the person's key"}
OWN = {"has its own files", "writes its own files"}
SCRIPT = "Path('out').mkdir()\nPath('out/found.json').write_text(json.dumps(found))\n"
REFEREE = """
items = {f"script: {name}": 1.0 for name in json.loads(Path("out/found.json").read_text())}
items |= {f"referee: {name}": 1.0 for name in found}
Path("score.json").write_text(json.dumps({"value": 1.0, "items": items}))
"""


def sandboxed(task: TaskSpec, rung: str) -> TaskSpec:
    """The task under one rung of the ladder; skips where that does not work."""
    bare = environment(Path(os.devnull), 1)
    problems = [
        ": " if rung == "none" else "",
        *(f"{found.source}: {found.problem}" for found in tried(rung, machine_places(bare), bare)),
    ]
    if not any(problem.endswith(": ") for problem in problems):
        pytest.skip(f"{rung} does not work here: {'; '.join(problems)}")
    return task.model_copy(update={"engine": task.engine.model_copy(update={"sandbox": rung})})


@pytest.fixture
def sockets(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A port of this machine, for streams and datagrams; the name of an abstract socket; and a socket file."""
    with (
        socket.create_server(("127.0.0.1", free_ports(1)[0])) as stream,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX) as file,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        port, name = stream.getsockname()[1], f"postgrad-{os.getpid()}"
        datagrams.bind(("127.0.0.1", port))
        Thread(target=echo, args=(datagrams,), daemon=True).start()
        file.bind(str(tmp_path / "socket"))
        abstract.bind(f"\0{name}")
        for listening in (file, abstract):
            listening.listen()
        yield str(port), name


def echo(datagrams: socket.socket) -> None:
    """Answer what comes in, so that a job that reached this machine knows it."""
    with suppress(OSError):
        while True:
            _, who = datagrams.recvfrom(16)
            datagrams.sendto(b"x", who)


@pytest.mark.parametrize("rung", ["bubblewrap", "sandlock", "none"])
def test_what_a_script_and_its_referee_can_reach(
    rung: str, tmp_path: Path, sockets: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    (tmp_path / "private.txt").write_text("mine")
    facts = [str(tmp_path / "src"), str(tmp_path / "private.txt"), *sockets, str(os.getpid())]
    ask = ASK.format(probe=PROBE.replace("SECRET", repr(SECRET)), facts=facts)
    task = task_of(tmp_path, ask + SCRIPT, budget="1 experiments", more={"referee.py": ask + REFEREE})
    folder = run_of(tmp_path, sandboxed(task, rung))
    another = folder / "scratch" / "another" / "run" / "work" / "train.py"
    another.parent.mkdir(parents=True)
    another.write_text(TRAIN)
    driven(folder)
    reached = items_of(folder)
    if rung == "none":
        expected = set(re.findall(r'^    "(.+)": ', PROBE, re.MULTILINE)) - KEPT
        assert {name for who, name in reached if who == "script"} >= expected, "the probe finds what is open"
        return
    reached = {(who, name) for who, name in reached if name not in MAY_SEEM}
    assert {name for who, name in reached if who == "script"} == OWN | {"reads the files that were edited"}
    assert {name for who, name in reached if who == "referee"} == OWN
    assert not (tmp_path / "src" / "planted.py").exists() and not (folder / "planted").exists()


def items_of(folder: Path) -> set[tuple[str, str]]:
    with opened(SqliteStore.open(folder, write=True)) as session:
        assert isinstance(session, ScriptSession)
        results = [body.result for body in session.finished.values()]
        assert results and all(result.failure is None for result in results), results
        names = [session.texts(unit.outputs).ids for result in results for unit in result.units]
    found = {tuple(name.split(": ", 1)) for each in names for name in each}
    return {(who, name) for who, name in found}


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_under_sandlock_the_same_is_a_failure_with_its_name(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without namespaces: what changes a protected file is found afterwards."""
    program, boundary, kind = ATTACKS[name]
    monkeypatch.setattr(session_module, "DISK_MB", 30)
    task = task_of(
        tmp_path,
        program.format(source=str(tmp_path / "src")),
        budget="1 experiments",
        kill="3s" if "outlives" in name else "30s",
        more={"out/model.json": '{"loss": 0.1}'} if "stale" in name else {},
    )
    folder = run_of(tmp_path, sandboxed(task, "sandlock"))
    with pytest.raises(PostgradError, match="no champion"):
        driven(folder)
    failure = Tree.from_events(events_of(folder))["e0000"].failure
    assert failure is not None
    if name == "removes prepare.py":
        boundary, kind = "isolation", "changed_protected"
    assert (failure.boundary, failure.kind) == (boundary, kind), failure
    assert (tmp_path / "src" / "prepare.py").read_text() == PREPARE
