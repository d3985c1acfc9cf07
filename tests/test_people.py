"""People in a run: real processes on a real store, orders from another terminal, kills between order and event."""

from __future__ import annotations

import json
import sys
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from people_run import Run, new_run
from postgrad.budget import Ledger
from postgrad.cli.main import main
from postgrad.events import SearchEnded, Waiting, WentOn, current
from postgrad.people.mailbox import MAILBOX, new_order, post
from postgrad.records import ApproveSpec, Budget, Pause, ResearcherSpec
from postgrad.tree import State


def test_every_proposal_waits_until_it_is_approved_or_rejected_and_references_do_not(tmp_path: Path) -> None:
    run = new_run(tmp_path, experiments=5).drive()
    (first,) = run.waiting()
    assert all(not body.asks for body in run.proposed() if body.experiment < first) and first > "e0000"
    listed = run.say()
    (asked,) = listed["waiting"]
    assert asked["experiment"] == first and asked["forecast_s"] > 0 and asked["proposal"]["change"]
    assert run.say("approve", first)["took_effect"]
    (second,) = run.waiting()
    assert second != first and run.tree[first].score is not None
    said = run.say("reject", second, "--reason", "we know that already", "--as", "Ada")
    assert said["took_effect"] and said["by"] == "Ada"
    (third,) = run.waiting()
    node = run.tree[second]
    assert node.verdict == "rejected" and node.state is State.UNSCORED and node.failure is None and not node.started
    assert node.analysis is not None and "Ada rejected it" in node.analysis.cause
    run.say("stop", "--reason", "enough")
    assert run.ended() == 0
    ended = next(event.body for event in run.events() if isinstance(event.body, SearchEnded))
    assert "stopped by" in ended.reason and "enough" in ended.reason
    assert second not in ended.finalists and third not in ended.finalists
    assert run.tree[third].verdict == "unscored"
    assert "sealed_done" in current(run.events())


def test_a_rejected_proposal_costs_nothing(tmp_path: Path) -> None:
    run = new_run(tmp_path, experiments=4).drive()
    (first,) = run.waiting()
    run.say("reject", first, "--reason", "no", "--only-this")
    (second,) = run.waiting()
    run.say("approve", second)
    assert run.ended() == 0
    tried = [node for node in run.tree.all() if node.started]
    assert len(tried) == 4 and len(run.tree) == 5


@pytest.mark.parametrize("die", ["decided:before", "decided:after", "job_started:before", "went_on:after"])
def test_killed_between_order_and_event_the_resumed_run_applies_it_once(tmp_path: Path, die: str) -> None:
    run = new_run(tmp_path, experiments=6).drive()
    (first,) = run.waiting()
    run.kill()
    assert run.say("approve", first)["state"] == "waiting"
    assert run.drive(die).ended() == -9
    run.drive()
    run.until(lambda r: r.tree[first].score is not None)
    run.waiting()
    run.say("stop")
    assert run.ended() == 0
    assert [body.order.wish.verb for body in run.decisions()] == ["approve", "stop"]
    assert len(run.tree[first].results) == 1


def test_an_order_in_the_mailbox_twice_is_one_order(tmp_path: Path) -> None:
    run = new_run(tmp_path, experiments=4)
    pause = new_order(Pause(), "Ada")
    for _ in range(3):
        post(run.folder, pause)
    run.drive()
    run.until(lambda r: r.events()[-1].body.type == "waiting")
    assert len(run.decisions()) == 1
    run.say("continue")
    (first,) = run.waiting()
    post(run.folder, pause)
    run.say("stop")
    assert run.ended() == 0
    assert [body.order.wish.verb for body in run.decisions()] == ["pause", "continue", "stop"]
    assert first in run.tree.experiments


def test_time_in_which_the_run_only_waits_is_not_charged(tmp_path: Path) -> None:
    run = new_run(tmp_path, budget=Budget(wall_s=300.0)).drive()
    run.waiting()
    before = run.events()
    time.sleep(3.0)
    run.say("stop")
    assert run.ended() == 0
    events = run.events()
    ledger = Ledger.from_events(Budget(), events)
    assert ledger.waited > 2.5
    assert ledger.spent.wall_s == pytest.approx(events[-1].clock - ledger.waited)
    assert [e.body.type for e in events if isinstance(e.body, Waiting | WentOn)] == ["waiting", "went_on"]
    clocks = [event.clock for event in events]
    assert clocks == sorted(clocks) and before == events[: len(before)]


def test_pause_and_continue(tmp_path: Path) -> None:
    run = new_run(tmp_path, experiments=6, when="never")
    post(run.folder, new_order(Pause(), "Ada"))
    run.drive()
    run.until(lambda r: r.events()[-1].body.type == "waiting")
    assert len(run.tree) == 0
    inbox = run.say()
    assert inbox["paused"]["by"] == "Ada"
    assert run.say("pause", code=2)["error"]["kind"] == "error"
    run.say("continue")
    assert run.ended() == 0
    assert len(run.tree) == 6


def test_expensive_proposals_wait_and_cheap_ones_go_on(tmp_path: Path) -> None:
    run = new_run(tmp_path, experiments=12, approve=ApproveSpec(when="expensive", above=30.0)).drive()
    asked = run.waiting()
    tree = run.tree
    later = [node for node in tree.all() if node.index > tree[asked[0]].index and node.score is not None]
    dear = [body for body in run.proposed() if body.asks]
    assert len(tree) == 12 and later, "nothing went on beside what waits"
    assert all((body.forecast_s or 0) > 30 and "need no approval" in body.asks for body in dear)
    assert all(body.nominal_s < 30 for body in run.proposed() if not body.asks)
    assert all(body.shown is not None for body in run.proposed() if body.experiment > asked[0])
    run.say("approve", asked[0])
    assert run.ended() == 0
    assert run.tree[asked[0]].results and run.tree.champion is not None


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("approve", "e0999"), "no experiment"),
        (("approve", "e0000"), "does not wait"),
        (("reject", "e0000"), "needs a reason"),
        (("appprove", "e0000"), "Did you mean 'approve'"),
        (("approve",), "needs an experiment"),
        (("continue",), "not paused"),
        (("budget", "soon"), "Cannot read 'soon'"),
        (("inject", "method.nonsense", "--on", "0"), "has no change"),
        (("edit", "e0000"), "none was given"),
    ],
)
def test_orders_that_cannot_take_effect_are_refused_at_the_terminal(
    stopped: Run, words: tuple[str, ...], what: str
) -> None:
    message = stopped.say(*words, code=2)["error"]["message"]
    assert what in message, message
    assert not (stopped.folder / MAILBOX).exists()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose first proposal waits, and that nobody drives."""
    run = new_run(tmp_path_factory.mktemp("stopped"), experiments=4).drive()
    run.waiting()
    run.kill()
    return run


def test_a_finished_run_takes_no_order(tmp_path: Path) -> None:
    run = new_run(tmp_path, experiments=4, when="never").drive()
    assert run.ended() == 0
    assert "has ended" in run.say("pause", code=2)["error"]["message"]


def told(folder: Path, *words: str) -> str:
    """`postgrad WORDS...` on the runs in a folder."""
    out = StringIO()
    with redirect_stdout(out), pytest.raises(SystemExit) as ended:
        sys.argv, before = ["postgrad", *words, "--runs-dir", str(folder)], sys.argv
        try:
            main()
        finally:
            sys.argv = before
    assert not ended.value.code
    return " ".join(out.getvalue().split())


def test_list_and_show_say_what_a_run_waits_for_and_how_it_goes_on(tmp_path: Path) -> None:
    outside = ResearcherSpec(kind="outside", wait_s=600.0)
    run = new_run(tmp_path, experiments=6, when="never", researcher=outside).drive()
    run.until(lambda run: run.events()[-1].body.type == "waiting")
    name, folder = run.folder.name, run.folder.parent

    def both(words: str, go_on: str) -> None:
        for command in (("list",), ("show", name)):
            assert f"{words}: postgrad inbox {name} {go_on}" in told(folder, *command)
            found = json.loads(told(folder, *command, "--json"))
            assert (found[0] if isinstance(found, list) else found)["go_on"] == f"postgrad inbox {name} {go_on}"

    both("waits for an idea from outside", "inject FILE")
    run.say("pause", "--as", "Ada")
    run.until(lambda run: run.events()[-1].body.type == "waiting")
    both("paused by Ada", "continue")
    run.say("stop")
    assert run.ended() == 0
    assert "postgrad inbox" not in told(folder, "list") + told(folder, "show", name)
    assert json.loads(told(folder, "list", "--json"))[0]["go_on"] is None


def test_list_names_the_command_that_approves(tmp_path: Path) -> None:
    run = new_run(tmp_path, experiments=5).drive()
    (first,) = run.waiting()
    assert f"{first} waiting for you: postgrad inbox {run.folder.name} approve {first}" in told(
        run.folder.parent, "list"
    )
    run.kill()
