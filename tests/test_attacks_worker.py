"""Hostile worker programs, each run for real in the sandbox: refused or flagged, and the controller lives on."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from pathlib import Path
from typing import Iterator

import psutil
import pytest

from hostile import ATTACKS, HEADER, Attack
from postgrad.analyze.verdict import CAUSES
from postgrad.engines.local import LocalEngine
from postgrad.errors import UserError
from postgrad.evaluate import evaluator
from postgrad.execute.executor import Executor
from postgrad.records import EngineSpec, JobResult, JobSpec, Limits, Recipe, Row, Stage, Unit
from postgrad.store.artifacts import Artifacts
from postgrad.testing.backend import LABELS, OUT_OF_SCOPE, example_rows
from postgrad.testing.engine import until

SECRET = "sk-of-the-user"
ASKED = tuple(Row(f"real-{row.id}", f"{row.text} please", f"secret-{row.label}") for row in example_rows(3))
SCORER = Path(evaluator.__file__)
PATIENCE_S = 60.0


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A port of this machine that nobody may call."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening
        with pytest.raises(BlockingIOError):
            listening.accept()


def make_spec(attack: Attack) -> JobSpec:
    limits = {"wall_s": PATIENCE_S, "memory_mb": 2000, "threads": 1, **attack.limits}
    return JobSpec(
        job="e0001-search-u0-0",
        experiment="e0001",
        recipe=Recipe(stage=Stage(backend="classic")),
        labels=LABELS,
        out_of_scope=OUT_OF_SCOPE,
        base_model=None,
        units=(Unit(name="u0", train="u0.t", predict="u0.p", seed=3),),
        limits=Limits.model_validate(limits),
        save_model=attack.save_model,
    )


def facts(run: Path, server: socket.socket) -> dict[str, object]:
    home_file = next((str(path) for path in sorted(Path.home().iterdir()) if path.is_file()), str(run / "none"))
    return {
        "store": str(run / "events.sqlite"),
        "scorer": str(SCORER),
        "home": str(Path.home()),
        "home_file": home_file,
        "port": server.getsockname()[1],
        "controller": os.getpid(),
        "secret": SECRET,
        "ids": [row.id for row in ASKED],
        "marker": str(run / "payload-ran"),
    }


def attacked(attack: Attack, run: Path, server: socket.socket, rung: str) -> JobResult:
    """The result of the hostile program, run the way the loop runs a job."""
    (run / "events.sqlite").write_text("labels: secret-greeting")
    program = run / "program.py"
    program.write_text(f"FACTS = {facts(run, server)!r}\n{HEADER}{attack.program}")
    engine, referee = LocalEngine(command=(sys.executable, "-P", str(program))), LocalEngine()
    for each in (engine, referee):
        try:
            each.open(EngineSpec.model_validate({"workers": 1, "threads": 1, "sandbox": rung}))
        except UserError as problem:
            pytest.skip(str(problem))
    executor = Executor(engine, Artifacts(run / "artifacts"), run / "scratch", referee)
    spec = make_spec(attack)
    job = executor.start(spec, {"u0": (example_rows(), ASKED)})
    result = None
    while result is None:
        assert job.progress()
        result = job.poll(0.1)
    engine.close()
    referee.close()
    assert not (run / "scratch" / spec.job).exists(), "whatever it left is removed"
    return result


def running(folder: Path) -> list[list[str]]:
    """Command lines of processes that still have to do with a folder."""
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if any(str(folder) in word for word in line)]


@pytest.mark.parametrize("rung", ["auto", pytest.param("sandlock", marks=pytest.mark.slow)])
@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_attack(
    attack: Attack, rung: str, tmp_path: Path, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    run = tmp_path / "run"
    run.mkdir()
    before = hashlib.sha256(SCORER.read_bytes()).digest()
    result = attacked(attack, run, server, rung)
    found = f"{result.failure.boundary}/{result.failure.kind}" if result.failure else ""
    assert found in (attack.expected or ("",)) or (rung in attack.unseen and found == ""), result.failure
    assert hashlib.sha256(SCORER.read_bytes()).digest() == before, "the scorer is what it was"
    assert (run / "events.sqlite").read_text() == "labels: secret-greeting"
    assert not (run / "payload-ran").exists(), "nothing was unpickled"
    until(lambda: running(run) == [])
    shown = result.model_dump_json()
    assert "secret-" not in shown and SECRET not in shown and "\\u001b" not in shown and "\x9b" not in shown
    if result.failure is None:
        assert [unit.name for unit in result.units] == ["u0"]
    else:
        assert attack.says in result.failure.message
        assert result.failure.boundary != "isolation" or (result.units, result.model) == ((), None)
        assert result.failure.kind in CAUSES or result.failure.kind == "forbidden"


def test_there_are_enough_of_them() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 25
