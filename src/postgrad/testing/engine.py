"""The contract of an engine, as tests. Give it your engine and it says whether the executor can rely on it.

In a test file of your own package::

    class TestMyEngine(EngineContract):
        def make(self, program: Path) -> Engine:
            return MyEngine(command=(sys.executable, str(program)))

It needs pytest as the runner only. Jobs run on the same machine as the tests: an engine elsewhere is tested with a
node here. It does not test what a job does to files or network.
"""

from __future__ import annotations

import time
from pathlib import Path
from textwrap import dedent
from typing import Callable, Protocol

import psutil

from postgrad.engines.base import Engine, Exit, Handle
from postgrad.records import EngineSpec, Limits

PATIENCE_S = 120.0
SECRETS = {"OPENAI_API_KEY": "sk-contract-1", "AWS_SECRET_ACCESS_KEY": "contract-2", "HF_TOKEN": "hf_contract_3"}

# Each program is run with the job folder as its only argument.
HEADER = """
import os, signal, subprocess, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def write(name, text):
    (folder / (name + ".part")).write_text(text)
    (folder / (name + ".part")).rename(folder / name)
"""
WAITING = """
write("ready", str(os.getpid()))
while not (folder / "go").exists():
    time.sleep(0.02)
"""
# A child and a grandchild that do not listen to SIGTERM, in the job's session and in one of their own. They are known
# by the folder in their command lines: in a process space of its own a job does not know their numbers outside.
FAMILY = """
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
grandchild = deaf + "time.sleep(1000)"
child = deaf + (
    "import subprocess, sys, pathlib; f = pathlib.Path(sys.argv[1]); "
    f"p = subprocess.Popen([sys.executable, '-c', {grandchild!r}, str(f)]); "
    "f.with_suffix('.part').touch(); f.with_suffix('.part').rename(f); time.sleep(1000)"
)
for number in range(2):
    subprocess.Popen(
        [sys.executable, "-c", child, str(folder / f"family{number}")], start_new_session=bool(number)
    )
while not all((folder / f"family{number}").exists() for number in range(2)):
    time.sleep(0.02)
write("ready", str(os.getpid()))
"""


class MonkeyPatch(Protocol):
    """The part of pytest's fixture that is used here."""

    def setenv(self, name: str, value: str) -> None: ...


class EngineContract:
    """What every engine holds to."""

    def make(self, program: Path) -> Engine:
        """Return an engine, not open, whose jobs run this Python program with the job folder as last argument."""
        raise AssertionError("define make(self, program) in the test class")

    def spec(self) -> EngineSpec:
        """The settings that the engine is opened with: two slots."""
        return EngineSpec(workers=2, threads=1)

    def inside(self, folder: Path) -> Path:
        """Where a job of this folder runs: the folder itself, but for engines that give each attempt its own."""
        return folder

    def around(self, folder: Path) -> Path:
        """A folder that everything of this job lies in, wherever it runs."""
        return folder

    def held(self) -> tuple[int, int]:
        """What must not become more with each job: open files and children of this process."""
        own = psutil.Process()
        return own.num_fds(), len(own.children())

    # --- tools --------------------------------------------------------------------------------------------------------

    def opened(self, folder: Path, program: str) -> Engine:
        """An open engine with two slots for jobs that run `program`."""
        file = folder / "program.py"
        file.write_text(HEADER + dedent(program))
        engine = self.make(file)
        engine.open(self.spec())
        return engine

    def started(self, engine: Engine, folder: Path, name: str = "job", **limits: float) -> Handle:
        """A job in `folder/name`."""
        (folder / name).mkdir()
        wanted = {"wall_s": PATIENCE_S, "memory_mb": 2000, "threads": 1, **limits}
        return engine.start(folder / name, Limits.model_validate(wanted))

    def ended(self, handle: Handle) -> Exit:
        """The exit of a job that ends soon."""
        found = handle.wait(PATIENCE_S)
        assert found is not None, f"the job still runs after {PATIENCE_S} s"
        return found

    # --- tests --------------------------------------------------------------------------------------------------------

    def test_exit_code_and_usage(self, tmp_path: Path) -> None:
        engine = self.opened(tmp_path, "x = sum(range(10**6)); print('said'); sys.exit(7)")
        handle = self.started(engine, tmp_path)
        found = self.ended(handle)
        assert (found.code, found.cause) == (7, None)
        assert found.usage.wall_s > 0 and found.usage.cpu_s > 0 and found.usage.max_rss_mb > 1
        assert handle.wait(0) == found, "a second wait gives the same answer"
        handle.stop()
        assert handle.wait(0) == found, "stopping what has ended changes nothing"
        assert "said" in (tmp_path / "job" / "log.txt").read_text()
        engine.close()

    def test_wait_with_zero_polls(self, tmp_path: Path) -> None:
        engine = self.opened(tmp_path, WAITING)
        handle = self.started(engine, tmp_path)
        assert handle.wait(0) is None
        until((self.inside(tmp_path / "job") / "ready").exists)
        assert handle.wait(0) is None
        (self.inside(tmp_path / "job") / "go").touch()
        assert self.ended(handle).code == 0
        engine.close()

    def test_a_signal_from_outside_is_not_the_engines_doing(self, tmp_path: Path) -> None:
        engine = self.opened(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
        found = self.ended(self.started(engine, tmp_path))
        assert (found.code, found.cause) == (-9, None)
        engine.close()

    def test_jobs_run_side_by_side(self, tmp_path: Path) -> None:
        engine = self.opened(tmp_path, WAITING)
        assert engine.slots == 2 and engine.threads == 1 <= engine.threads_alone
        handles = [self.started(engine, tmp_path, name) for name in ("a", "b")]
        until(lambda: all((self.inside(tmp_path / name) / "ready").exists() for name in ("a", "b")))
        assert [handle.wait(0) for handle in handles] == [None, None]
        for name in ("a", "b"):
            (self.inside(tmp_path / name) / "go").touch()
        assert [self.ended(handle).code for handle in handles] == [0, 0]
        engine.close()

    def test_timeout_kills_the_whole_tree(self, tmp_path: Path) -> None:
        engine = self.opened(tmp_path, FAMILY + "time.sleep(1000)")
        handle = self.started(engine, tmp_path, wall_s=5.0)
        # Polled, as the loop does: the engine sees the family while it lives.
        until(lambda: handle.wait(0) is not None)
        assert self.ended(handle).cause == "timeout"
        assert not alive(tmp_path / "job", self.inside(tmp_path / "job"))
        engine.close()

    def test_an_end_takes_the_children_along(self, tmp_path: Path) -> None:
        engine = self.opened(tmp_path, FAMILY + WAITING)
        handle = self.started(engine, tmp_path)
        until(lambda: handle.wait(0.5) is not None or (self.inside(tmp_path / "job") / "ready").exists())
        handle.wait(1.0)
        (self.inside(tmp_path / "job") / "go").touch()
        found = self.ended(handle)
        assert (found.code, found.cause) == (0, None)
        assert not alive(tmp_path / "job", self.inside(tmp_path / "job"))
        engine.close()

    def test_memory_limit(self, tmp_path: Path) -> None:
        engine = self.opened(tmp_path, "held = b'x' * (400 << 20)\nwrite('held', '')\ntime.sleep(1000)")
        found = self.ended(self.started(engine, tmp_path, memory_mb=200))
        assert found.cause == "memory"
        assert found.usage.max_rss_mb > 200
        engine.close()

    def test_memory_of_children_counts(self, tmp_path: Path) -> None:
        program = """
            holding = "import time; held = b'x' * (150 << 20); time.sleep(1000)"
            both = [subprocess.Popen([sys.executable, "-c", holding]) for _ in range(2)]
            both[0].wait()
        """
        engine = self.opened(tmp_path, program)
        assert self.ended(self.started(engine, tmp_path, memory_mb=250)).cause == "memory"
        engine.close()

    def test_a_hung_job_is_ended_and_a_busy_or_talking_one_is_not(self, tmp_path: Path) -> None:
        program = """
            end = time.monotonic() + 6
            while folder.name == "busy" and time.monotonic() < end:
                sum(range(10**5))
            while folder.name == "talking" and time.monotonic() < end:
                print("still here", flush=True)
                time.sleep(0.1)
            if folder.name == "hung":
                time.sleep(1000)
        """
        engine = self.opened(tmp_path, program)
        handles = {name: self.started(engine, tmp_path, name, hung_s=3.0) for name in ("hung", "busy", "talking")}
        found: dict[str, Exit] = {}
        while len(found) < len(handles):
            found |= {name: ended for name, handle in handles.items() if (ended := handle.wait(0.05)) is not None}
        assert {name: ended.cause for name, ended in found.items()} == {"hung": "hung", "busy": None, "talking": None}
        engine.close()

    def test_stop_is_polite_first_and_may_be_repeated(self, tmp_path: Path) -> None:
        program = """
            def clean(number, frame):
                write("clean", "")
                sys.exit(3)
            signal.signal(signal.SIGTERM, clean)
            write("ready", "")
            time.sleep(1000)
        """
        engine = self.opened(tmp_path, program)
        handle = self.started(engine, tmp_path)
        until((self.inside(tmp_path / "job") / "ready").exists)
        handle.stop()
        handle.stop()
        assert (tmp_path / "job" / "clean").exists(), "a job that is stopped gets the chance to clean up"
        assert self.ended(handle).cause == "stopped"
        engine.close()

    def test_close_ends_what_runs(self, tmp_path: Path) -> None:
        engine = self.opened(tmp_path, FAMILY + "time.sleep(1000)")
        handle = self.started(engine, tmp_path)
        until((self.inside(tmp_path / "job") / "ready").exists)
        handle.wait(1.0)
        engine.close()
        engine.close()
        assert self.ended(handle).cause == "stopped"
        assert not alive(tmp_path / "job", self.inside(tmp_path / "job"))

    def test_a_failed_start_leaks_nothing(self, tmp_path: Path) -> None:
        engine = self.opened(tmp_path, "sys.exit(0)")
        before = self.held()
        failed = False
        try:
            engine.start(tmp_path / "missing", Limits(wall_s=5, memory_mb=500, threads=1))
        except OSError:
            failed = True
        assert failed, "a folder that is not there is an OSError"
        assert self.held() == before
        assert self.ended(self.started(engine, tmp_path)).code == 0, "the engine still works"
        engine.close()

    def test_many_jobs_leak_nothing(self, tmp_path: Path) -> None:
        engine = self.opened(tmp_path, "sys.exit(0)")
        self.ended(self.started(engine, tmp_path, "first"))
        before = self.held()
        for number in range(5):
            self.ended(self.started(engine, tmp_path, f"job{number}"))
        assert self.held() == before
        engine.close()

    def test_the_environment_holds_no_secret(self, tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
        for name, value in SECRETS.items():
            monkeypatch.setenv(name, value)
        engine = self.opened(tmp_path, "write('env', '\\n'.join(f'{k}={v}' for k, v in os.environ.items()))")
        assert self.ended(self.started(engine, tmp_path)).code == 0
        text = (tmp_path / "job" / "env").read_text()
        found = dict(line.partition("=")[::2] for line in text.splitlines())
        assert not any(value in text for value in SECRETS.values())
        assert found["OMP_NUM_THREADS"] == "1" and found["OMP_WAIT_POLICY"] == "PASSIVE"
        assert found["HF_HUB_OFFLINE"] == "1" and found["PYTHONHASHSEED"] == "0"
        assert Path(found["HOME"]).is_relative_to(self.around(tmp_path / "job")), (
            "the user's home folder holds keys as well"
        )
        engine.close()


def until(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Wait for something that happens soon; fail when it does not."""
    patience = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < patience, f"it did not happen within {patience_s} s"
        time.sleep(0.02)


def alive(folder: Path, inside: Path) -> list[int]:
    """Processes of the family that a job in this folder started and that still run. A killed one may take a moment.

    Args:
        inside: where the job ran.
    """
    found = {path.name for place in (folder, inside) for path in place.glob("family?")}
    assert len(found) == 2, "the job started its family"
    patience = time.monotonic() + 5.0
    while (left := _family(inside)) and time.monotonic() < patience:
        time.sleep(0.02)
    return left


def _family(folder: Path) -> list[int]:
    """Numbers of the processes whose command line ends with one of the family's files. Dead ones have none."""
    names = {str(folder / f"family{number}") for number in range(2)}
    return [p.pid for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [""])[-1] in names]
