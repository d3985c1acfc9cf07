"""A program as researcher: the example drives a real run, and programs that hang, flood, fail or pry do no harm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from postgrad.bench.overhead import SimulatedEngine, simulated_task
from postgrad.errors import UserError
from postgrad.records import Choice, Move, Proposal, ResearcherSpec, TaskSpec
from postgrad.research.assemble import ready, researcher_of
from postgrad.research.base import Context
from postgrad.runner import drive, opened, start_run
from postgrad.store.sqlite import SqliteStore
from postgrad.testing.engine import until
from postgrad.testing.researcher import PLAIN
from postgrad.testing.simulation import nominal_s
from postgrad.testing.trees import Node, tree_of
from test_end_to_end import postgrad, write_task

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "researcher_command.py"
TREE = tree_of([Node("e0000"), Node("e0001", "e0000", 0.6, kind="data.typos")])
ON = Choice(parent="e0001", move=Move.IMPROVE)
GOOD = {"move": "data.dedup", "hypothesis": "h", "expected_effect": 0.0, "refuted_by": "r"}
HEAD = "import json, os, subprocess, sys, time\nfrom pathlib import Path\n"


def proposed(folder: Path, program: str, **changes: Any) -> Proposal:
    """What a program leads to."""
    (folder / "agent.py").write_text(HEAD + program)
    spec = ResearcherSpec(
        kind="command",
        alone=True,
        command=(sys.executable, str(folder / "agent.py")),
        **{"timeout_s": 60.0, **changes},
    )
    task = PLAIN.model_copy(update={"researcher": spec})
    return researcher_of(task, folder).propose(task, ON, Context(TREE, Random(0), 2, None, nominal_s))


def test_the_example_drives_a_real_run(tmp_path: Path) -> None:
    write_task(tmp_path, "7 experiments")
    with (tmp_path / "task.yaml").open("a") as file:
        file.write(f"researcher: {{command: [{sys.executable}, {EXAMPLE}], timeout_s: 20}}\n")
    checked = postgrad("check", "task.yaml", cwd=tmp_path)
    assert checked["ok"]
    found = postgrad("run", "task.yaml", cwd=tmp_path)
    assert found["experiments"] == 7
    with SqliteStore.open(tmp_path / "runs" / "tiny-001", write=False) as store:
        bodies = [event.body for event in store.events() if event.body.type == "proposed"]
    theirs = [body.proposal for body in bodies if body.proposal.proposer == "command"]
    assert len(theirs) >= 2 and any(one.asked for one in theirs)
    assert not any(one.asked and one.asked.failed for one in theirs)
    assert "questions to proposers" in (tmp_path / "runs" / "tiny-001" / "report.md").read_text()
    assert postgrad("show", "tiny-001", theirs[0].asked and bodies[-1].experiment or "e0003", cwd=tmp_path)


def test_a_killed_run_takes_the_recorded_answer(tmp_path: Path) -> None:
    """The program counts how often it is run."""
    program = tmp_path / "agent.py"
    count = tmp_path / "count"
    program.write_text(f"open({str(count)!r}, 'a').write('x')\n" + EXAMPLE.read_text())
    spec = ResearcherSpec(kind="command", alone=True, command=(sys.executable, str(program)), proposals=1)
    task = simulated_task(tmp_path, 6).model_copy(update={"researcher": spec})
    made = researcher_of(task, tmp_path)
    context = Context(TREE, Random(0), 2, None, nominal_s)
    first = made.propose(task, ON, context)
    again = researcher_of(task, tmp_path).propose(task, ON, context)
    assert first.recipe == again.recipe and count.read_text() == "x"


def test_a_program_gets_the_context_and_the_schema(tmp_path: Path) -> None:
    program = f"text = sys.stdin.read(); Path({str(tmp_path / 'seen')!r}).write_text(text)\n"
    made = proposed(tmp_path, program + f"print(json.dumps({{'proposals': [{GOOD}]}}))")
    assert made.proposer == "command" and made.kind == "data.dedup"
    seen = json.loads((tmp_path / "seen").read_text())
    assert seen["parent"]["id"] == "e0001" and seen["proposals"] == 3 and "proposals" in seen["schema"]["properties"]
    assert "data.dedup" in {move["move"] for move in seen["moves"]} and "## Rules" in seen["text"]
    assert any(section["title"] == "Rules" for section in seen["brief"]["sections"])


def test_what_is_wrong_goes_back_once(tmp_path: Path) -> None:
    program = f"""
asked = json.load(sys.stdin)
good = {GOOD}
print(json.dumps({{"proposals": [good if "e9999" in asked.get("problems", "") else dict(good, evidence=["e9999"])]}}))
"""
    made = proposed(tmp_path, program)
    assert made.proposer == "command" and made.asked is not None and made.asked.rounds == 2


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("time.sleep(600)", "Outage/timeout"),
        ("sys.stdout.write('x' * 10_000_000)", "BadReply/too_large"),
        ("sys.exit('no licence')", "BadReply/shape: The program ended with code 1. It said: no licence"),
        ("pass", "BadReply/empty"),
        ("print('no JSON')", "No usable reply in 2 tries"),
        ("print(json.dumps({'proposals': [{'move': 'sudo'}]}))", "No usable reply in 2 tries"),
        ("sys.stdout.buffer.write(b'\\xff\\x00' * 100)", "No usable reply in 2 tries"),
        ("sys.stderr.write('\\x1b[2J' + 'y' * 10**7); sys.exit(3)", "code 3"),
    ],
)
def test_a_program_that_fails_is_filled_in_for(tmp_path: Path, program: str, said: str) -> None:
    began = time.monotonic()
    made = proposed(tmp_path, program, **({"timeout_s": 1.0} if "timeout" in said else {}))
    assert made.proposer == "playbook" and made.asked is not None and made.asked.failed
    assert said in made.asked.failed and made.asked.failed.isprintable()
    assert time.monotonic() - began < 120


def test_no_key_is_in_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-0123456789")
    monkeypatch.setenv("AGENT_MODE", "slow")
    seen = tmp_path / "seen"
    program = f"Path({str(seen)!r}).write_text(json.dumps([dict(os.environ), os.getcwd()]))"
    proposed(tmp_path, program, env=("AGENT_MODE",))
    environment, folder = json.loads(seen.read_text())
    assert "OPENAI_API_KEY" not in environment and environment["AGENT_MODE"] == "slow" and "PATH" in environment
    assert Path(folder) == tmp_path / "researcher"


def test_what_it_leaves_running_is_ended(tmp_path: Path) -> None:
    """A child that holds the output open neither delays the run nor outlives the question."""
    pid = tmp_path / "pid"
    program = f"""
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path({str(pid)!r}).write_text(str(child.pid))
print(json.dumps({{"proposals": [{GOOD}]}}))
"""
    began = time.monotonic()
    assert proposed(tmp_path, program).proposer == "command"
    assert time.monotonic() - began < 50

    def ended() -> bool:
        state = subprocess.run(["ps", "-o", "stat=", "-p", pid.read_text()], capture_output=True, text=True).stdout
        return not state.strip() or state.startswith("Z")

    until(ended)


def test_a_program_that_is_not_there_is_said_before_the_run(tmp_path: Path) -> None:
    spec = ResearcherSpec(kind="command", command=("no-such-agent",))
    with pytest.raises(UserError, match="'no-such-agent' of researcher.command is not there"):
        ready(PLAIN.model_copy(update={"researcher": spec}))


def test_a_run_goes_on_with_a_program_that_never_works(tmp_path: Path) -> None:
    spec = ResearcherSpec(kind="command", alone=True, command=(sys.executable, "-c", "raise SystemExit(1)"))
    task: TaskSpec = simulated_task(tmp_path, 7).model_copy(update={"researcher": spec})
    with start_run(task, tmp_path / "runs") as store:
        folder = store.folder
    with opened(SqliteStore.open(folder, write=True), engine=SimulatedEngine()) as session:
        drive(session)
        assert len(session.tree) == 7 and session.sealed is not None
        asked = [n.proposed.proposal.asked for n in session.tree.all() if n.proposed.proposal.asked]
    assert 1 <= len(asked) <= 3, "it rests after two failures"
    assert os.path.isdir(folder / "researcher")
