"""A run that an outside agent drives through MCP, with the SDK's own client over standard input and output."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from people_run import Run, new_run
from postgrad.cli.agent_tools import Tools
from postgrad.errors import UserError
from postgrad.events import current
from postgrad.records import Budget, ResearcherSpec

pytest.importorskip("mcp")


async def _session(run: Run, *options: str) -> list[Any]:
    """Read, propose two experiments, approve the first and reject the second; then look at what came of it."""
    from mcp import Client, StdioServerParameters, stdio_client
    from mcp.types import TextContent

    arguments = ["-m", "postgrad", "mcp", str(run.folder), "--as", "robot", *options]
    server = StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))
    async with Client(stdio_client(server)) as client:

        async def call(tool: str, **words: Any) -> Any:
            (content,) = (await client.call_tool(tool, words)).content
            assert isinstance(content, TextContent)
            return json.loads(content.text)

        names = {tool.name for tool in (await client.list_tools()).tools}
        if options:
            return [names]
        told = await call("context", experiment="1")
        before = await call("status")
        waiting = before["waiting_for_approval"][0]
        decided = await call("reject", experiment=waiting, reason="mine is better")
        mine = {
            "recipe": {"stage": {"backend": "classic", "params": {"C": 3.0}}},
            "on": "e0001",
            "hypothesis": "why not",
        }
        proposed = await call("propose", idea=mine)
        again = await call("propose", idea={"kind": "nothing.known", "on": "e0001"})
        for _ in range(2400):
            names_now = (await call("status"))["waiting_for_approval"]
            if names_now:
                break
            await asyncio.sleep(0.05)
        ids = [(name, await call("result", experiment=name)) for name in names_now]
        approved = await call("approve", experiment=ids[0][0])
        for _ in range(2400):
            result = await call("result", experiment=ids[0][0])
            if result["state"] != "pending":
                break
            await asyncio.sleep(0.05)
        return [names, told, decided, proposed, again, approved, result, await call("lessons")]


def test_a_run_is_driven_through_mcp(tmp_path: Path) -> None:
    run = new_run(tmp_path, experiments=6).drive()
    run.waiting()
    names, told, decided, proposed, again, approved, result, lessons = asyncio.run(_session(run))
    assert names == {"context", "status", "result", "lessons", "propose", "approve", "reject"}
    assert told["tokens"] <= 8000 and "Rules" in told["text"]
    assert decided["took_effect"] and proposed["took_effect"] and approved["took_effect"]
    assert "has no change" in again["error"]
    assert result["state"] != "pending" and "select" not in json.dumps(result) and "lessons" in lessons
    assert asyncio.run(_session(run, "--no-approve"))[0] == names - {"approve", "reject"}
    run.say("stop")
    assert run.ended() == 0
    assert {body.order.by for body in run.decisions()} >= {"robot"}
    mine = next(node for node in run.tree.all() if node.proposed.order)
    assert mine.proposed.proposal.proposer == "agent" and mine.proposed.asks
    assert "sealed_done" in current(run.events())
    ended = json.dumps(Tools(run.folder).status()) + json.dumps(Tools(run.folder).result("0"))
    assert "sealed" not in ended
    with pytest.raises(UserError, match="has ended"):
        Tools(run.folder).propose({"kind": "method.partial", "on": "e0001"})


async def _alone(run: Run, count: int) -> list[str]:
    """Put in an idea whenever the run waits for one, from what `context` says is open; then end the search."""
    from mcp import Client, StdioServerParameters, stdio_client
    from mcp.types import TextContent

    server = StdioServerParameters(
        command=sys.executable, args=["-m", "postgrad", "mcp", str(run.folder)], env=dict(os.environ)
    )
    mine: list[str] = []
    async with Client(stdio_client(server)) as client:

        async def call(tool: str, **words: Any) -> Any:
            (content,) = (await client.call_tool(tool, words)).content
            assert isinstance(content, TextContent)
            return json.loads(content.text)

        for number in range(count):
            experiments = len(run.until(lambda run: _waits(run) and run.proposed()))
            told = await call("context", experiment="1")
            kind = OPEN.findall(told["text"])[number]
            done = await call("propose", idea={"kind": kind, "on": "e0001", "hypothesis": f"idea {number}"})
            assert done["took_effect"], done
            mine.append(kind)
            run.until(partial(_more, experiments))
    return mine


def _more(before: int, run: Run) -> bool:
    return len(run.proposed()) > before


def _waits(run: Run) -> bool:
    """True while the run waits for an idea and nothing else."""
    last = run.events()[-1].body
    return last.type == "waiting" and "outside" in last.why


OPEN = re.compile(r"^- ((?:classic|train|data)\.\w+): .* nominal seconds$", re.MULTILINE)


def test_an_agent_outside_makes_every_proposal_of_a_run(tmp_path: Path) -> None:
    outside = ResearcherSpec(kind="outside", wait_s=600.0)
    run = new_run(tmp_path, experiments=6, when="never", researcher=outside).drive()
    references = len([node for node in run.until(lambda run: _waits(run) and run.tree.all())])
    mine = asyncio.run(_alone(run, 6 - references))
    assert run.ended() == 0
    after = [body.proposal for body in run.proposed()[references:]]
    assert [proposal.proposer for proposal in after] == ["agent"] * len(mine)
    assert [proposal.kind for proposal in after] == mine
    assert "sealed_done" in current(run.events())
    assert len(run.proposed()) == 6


def test_where_nobody_outside_says_anything_the_playbook_proposes(tmp_path: Path) -> None:
    silent = ResearcherSpec(kind="outside", wait_s=0.2)
    run = new_run(tmp_path, experiments=5, when="never", researcher=silent).drive()
    assert run.ended() == 0
    kinds = [event.body.type for event in run.events()]
    assert kinds.count("waiting") == kinds.count("went_on") >= 1
    assert not any(body.proposal.proposer == "agent" for body in run.proposed())


def test_an_agent_is_told_what_people_closed_and_what_things_cost(tmp_path: Path) -> None:
    run = new_run(tmp_path, experiments=6, budget=Budget(wall_s=3600.0, experiments=6)).drive()
    run.waiting()
    tools = Tools(run.folder, "robot")
    kinds = OPEN.findall(tools.context("1")["text"])
    costs = [float(cost) for cost in re.findall(r", (\d+) nominal seconds$", tools.context("1")["text"], re.MULTILINE)]
    assert kinds and max(costs) > 0.0
    assert re.search(r"one experiment may cost up to [1-9]\d* nominal seconds", tools.context("1")["text"])
    run.say("ban", kinds[0], "--as", "Ada")
    assert kinds[0] not in OPEN.findall(tools.context("1")["text"]) and "closed" not in tools.context("1")
    with pytest.raises(UserError, match=rf"{kinds[0]} is banned: Ada decided that"):
        tools.propose({"kind": kinds[0], "on": "e0001"})
    run.say("ban", "e0001", "--as", "Ada")
    assert tools.context("1")["closed"] == "e0001 is banned: Ada decided that"
    with pytest.raises(UserError, match="e0001 is banned: Ada decided that"):
        tools.propose({"kind": kinds[1], "on": "e0001"})
    run.say("stop")
    assert run.ended() == 0
    assert not any(body.order.wish.verb == "inject" for body in run.decisions())


def test_what_waits_for_approval_does_not_keep_the_playbook_from_filling_in(tmp_path: Path) -> None:
    """Nobody is there to approve, nor to put an idea in: cheap proposals go on all the same."""
    silent = ResearcherSpec(kind="outside", wait_s=0.1)
    run = new_run(tmp_path, experiments=9, when="expensive", researcher=silent)
    run.drive()
    found = run.until(lambda run: len(run.proposed()) > 5, timeout=120.0)
    assert found
    run.say("stop")
    assert run.ended() == 0


def test_who_looks_is_told_that_an_idea_is_waited_for(tmp_path: Path) -> None:
    run = new_run(tmp_path, experiments=6, when="never", researcher=ResearcherSpec(kind="outside")).drive()
    run.until(_waits)
    assert Tools(run.folder).status()["waits_for"] == "an idea from outside"
    assert run.say()["waits_for"] == "an idea from outside"
    run.say("stop")
    assert run.ended() == 0
