"""Questions are asked beside the loop: jobs end and orders are obeyed meanwhile, and no answer is lost or unpaid."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from people_run import Run, new_run
from postgrad.bench.overhead import SimulatedEngine
from postgrad.budget import Ledger
from postgrad.errors import PostgradError
from postgrad.events import AskedInVain, JobFinished, SearchEnded
from postgrad.records import Budget, Choice, Proposal, ResearcherSpec, TaskSpec
from postgrad.research.base import Context
from postgrad.research.in_vain import asked_in_vain
from postgrad.runner import drive, opened
from postgrad.store.sqlite import SqliteStore

# Proposes the first open move, once the file `go` is there; leaves a mark for every time that it is run.
AGENT = """
import json, sys, time
from pathlib import Path
here = Path({folder!r})
told = json.load(sys.stdin)
with (here / "asked").open("a") as file:
    file.write(told["question"] + "\\n")
while not (here / "go").exists():
    time.sleep(0.01)
first = told["moves"][0]["move"]
(here / "named").write_text(first)
print(json.dumps({{"proposals": [{{"move": first, "hypothesis": "h", "expected_effect": 0.0, "refuted_by": "r"}}]}}))
"""


def waiting_run(folder: Path, experiments: int = 8) -> Run:
    """A run whose researcher answers when it is let go."""
    agent = folder / "agent.py"
    agent.write_text(AGENT.format(folder=str(folder)))
    spec = ResearcherSpec(kind="command", alone=True, command=(sys.executable, str(agent)), proposals=1, timeout_s=60.0)
    return new_run(folder, experiments=experiments, when="never", researcher=spec)


def asked(folder: Path) -> list[str]:
    path = folder / "asked"
    return path.read_text().splitlines() if path.exists() else []


def spent(run: Run) -> int:
    return Ledger.from_events(Budget(), run.events()).spent.asked


def test_jobs_end_and_orders_are_obeyed_while_a_question_is_open(tmp_path: Path) -> None:
    run = waiting_run(tmp_path).drive(slots=2)
    run.until(lambda run: asked(tmp_path))
    before = len(run.proposed())
    # Two workers: what was under way when the question was asked ends, and is analysed, without the answer.
    run.until(lambda run: not run.tree.pending())
    assert len(run.proposed()) == before, "nothing is proposed past an open question"
    assert run.say("pause")["state"] == "decided", "an order is read"
    (tmp_path / "go").touch()
    time.sleep(0.5)
    assert len(run.proposed()) == before, "the answer waits where the run is paused"
    run.say("continue")
    assert run.ended() == 0
    body = run.proposed()[before]
    assert body.proposal.proposer == "command" and body.proposal.asked is not None
    assert body.proposal.asked.slot == asked(tmp_path)[0]


def test_a_ban_that_comes_in_with_the_answer_holds_and_the_question_is_paid_once(tmp_path: Path) -> None:
    run = waiting_run(tmp_path, experiments=7).drive()
    run.until(lambda run: asked(tmp_path))
    before, (slot,) = len(run.proposed()), asked(tmp_path)
    (tmp_path / "go").touch()
    run.until(lambda run: (tmp_path / "named").exists())
    named = (tmp_path / "named").read_text()
    # Whether the ban is read before or after the answer is taken is chance; what was proposed before it stays.
    run.say("ban", named)
    assert run.ended() == 0
    banned = next(event.seq for event in run.events() if event.body.type == "decided")
    for event in run.events():
        if event.body.type == "proposed" and event.seq > banned:
            assert event.body.proposal.kind != named
    slots = [body.proposal.asked.slot for body in run.proposed() if body.proposal.asked]
    assert slots.count(slot) == 1 and len(slots) == len(set(slots)) and len(run.proposed()) > before


def test_a_ban_while_a_question_is_open_bars_its_answer(tmp_path: Path) -> None:
    run = waiting_run(tmp_path, experiments=6).drive()
    run.until(lambda run: asked(tmp_path))
    before = len(run.proposed())
    moves = json.loads((run.folder / "researcher" / "context.json").read_text())["moves"]
    first = moves[0]["move"]
    assert run.say("ban", first)["took_effect"]
    (tmp_path / "go").touch()
    assert run.ended() == 0
    body = run.proposed()[before]
    assert body.proposal.kind != first and body.proposal.asked is not None, "what the question cost is on the account"
    assert len(asked(tmp_path)) == len(set(asked(tmp_path))), "what was answered is not asked again"
    assert spent(run) == len(asked(tmp_path))


def test_a_question_that_is_open_when_the_search_is_stopped_is_paid(tmp_path: Path) -> None:
    run = waiting_run(tmp_path).drive()
    run.until(lambda run: asked(tmp_path))
    before = len(run.proposed())
    run.say("stop", "--reason", "enough")
    run.until(lambda run: any(event.body.type == "decided" for event in run.events()))
    assert not any(isinstance(event.body, SearchEnded) for event in run.events())
    (tmp_path / "go").touch()
    assert run.ended() == 0
    (vain,) = [event.body for event in run.events() if isinstance(event.body, AskedInVain)]
    assert vain.asked.slot == asked(tmp_path)[0] and vain.asked.proposer == "command" and vain.asked.failed
    assert len(run.proposed()) == before and spent(run) == 1
    assert any(isinstance(event.body, JobFinished) for event in run.events())


@pytest.mark.parametrize("die", ["proposed:before", "proposed:after"])
def test_an_answer_that_a_killed_controller_never_used_is_paid_once(tmp_path: Path, die: str) -> None:
    run = waiting_run(tmp_path).drive()
    run.until(lambda run: asked(tmp_path))
    run.kill()
    (tmp_path / "go").touch()
    # Asked again, answered, and killed around the event that holds the answer.
    assert run.drive(die).ended() == -9
    run.say("stop")
    assert run.drive().ended() == 0
    vain = [event.body.asked.slot for event in run.events() if isinstance(event.body, AskedInVain)]
    held = [body.proposal.asked.slot for body in run.proposed() if body.proposal.asked]
    assert sorted([*vain, *held]) == sorted(set(asked(tmp_path))) and spent(run) == len(vain) + len(held) == 1
    assert bool(vain) == (die == "proposed:before")
    assert asked_in_vain(run.folder, run.events) == (), "and not once more when the run is reopened"


class Broken:
    """Fails in a way that nobody foresaw."""

    def propose(self, task: TaskSpec, choice: Choice, context: Context) -> Proposal:
        raise PostgradError("the researcher broke")

    fallback = property(lambda self: self)

    def guide(self, task: TaskSpec, choice: Choice, context: Context, otherwise: object) -> Proposal:
        return self.propose(task, choice, context)


def test_what_a_researcher_raises_in_its_thread_ends_the_run_as_it_would_in_the_loop(tmp_path: Path) -> None:
    run = new_run(tmp_path, when="never")
    store, broke = SqliteStore.open(run.folder, write=True), pytest.raises(PostgradError, match="the researcher broke")
    with opened(store, engine=SimulatedEngine()) as session, broke:
        drive(session, researcher=Broken())
