"""A hostile server of a language model drives whole runs over a real socket: nothing is lost, the ledger is right."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from hostile_server import GROUPS, Turns, dear, good, replies
from postgrad.bench.overhead import SimulatedEngine, simulated_task
from postgrad.budget import Ledger
from postgrad.events import BadCasesDescribed, Event
from postgrad.quoting import escaped
from postgrad.records import Asked, Budget, ModelSpec, Rates, ResearcherSpec
from postgrad.report import read_view, write_report
from postgrad.research.assemble import RECORD
from postgrad.research.describing import SYSTEM
from postgrad.runner import drive, opened, start_run
from postgrad.store.sqlite import SqliteStore
from postgrad.tree import Tree
from provider_server import Behaviour, Server
from test_end_to_end import interrupted, postgrad, write_task

PRICE = Rates(input=0.1, output=0.4, written_input=0.2)
MAX_TOKENS, CONTEXT = 500, 1500
# A token for each byte of brief, system and schema, three rounds of which the later ones quote a wrong reply: what no
# true question of these runs comes near to.
MOST_IN, MOST_OUT = 200_000, 9 * MAX_TOKENS


# Seconds for which a server is waited for that says nothing, or goes on for ever.
WAITED_S = {"times": 1.0, "limits": 1.0}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def started(folder: Path, server: Server, timeout_s: float = 20.0, **changes: Any) -> Path:
    """A started run of 10 experiments that asks two models of the server; returns its folder."""
    models = tuple(
        ModelSpec(name=name, provider="openai_compatible", model=name, base_url=f"{server.url}/v1", price=PRICE)
        for name in ("one", "two")
    )
    spec = ResearcherSpec(
        kind="language_model",
        models=models,
        alone=True,
        timeout_s=timeout_s,
        context_tokens=CONTEXT,
        max_tokens=MAX_TOKENS,
    )
    task = simulated_task(folder, 10).model_copy(update={"researcher": spec, **changes})
    with start_run(task, folder / "runs") as store:
        return store.folder


def driven(folder: Path) -> None:
    with opened(SqliteStore.open(folder, write=True), engine=SimulatedEngine()) as session:
        drive(session)


def checked(folder: Path) -> list[Asked]:
    """The questions of a run that has ended, which is looked at from all sides."""
    with SqliteStore.open(folder, write=False) as store:
        events, view = list(store.events()), read_view(store)
        write_report(view, folder)
    tree, ledger = Tree.from_events(events), Ledger.from_events(Budget(), events)
    kinds = [event.body.type for event in events]
    assert kinds.count("sealed_done") == 1 and kinds[-1] == "run_ended"
    assert len(tree) == 10 and not tree.pending()
    assert all(node.score is not None for node in tree.all()), "no training failed: the server cannot break one"
    assert all(node.parent is None or node.parent in tree.experiments for node in tree.all())
    asked = [node.proposed.proposal.asked for node in tree.all() if node.proposed.proposal.asked]
    assert all(bool(one.failed) != bool(one.sketches) for one in asked)
    words = [event.body for event in events if isinstance(event.body, BadCasesDescribed)]
    assert len(words) == 1 and bool(words[0].asked.failed) != bool(words[0].topics or words[0].causes)
    _accounted([*asked, words[0].asked], ledger, folder)
    _harmless(events, folder)
    return asked


def _accounted(asked: list[Asked], ledger: Ledger, folder: Path) -> None:
    """Every question has an end, and costs what its answers did; the ledger holds their sum."""
    spent = ledger.spent
    for one in asked:
        assert 0 <= one.tokens_in <= MOST_IN and 0 <= one.tokens_out <= MOST_OUT
        assert one.usd is not None and 0.0 <= one.usd <= (one.tokens_in * 0.2 + one.tokens_out * 0.4) / 1e6 + 1e-12
    assert spent.asked == len(asked)
    assert spent.tokens_in == sum(one.tokens_in for one in asked)
    assert spent.tokens_out == sum(one.tokens_out for one in asked)
    assert spent.usd == pytest.approx(sum(one.usd or 0.0 for one in asked))
    lines = [json.loads(line) for line in (folder / RECORD).read_text().splitlines()]
    used = [(line["reply"] if "reply" in line else line["error"])["usage"] or {} for line in lines]
    assert sum(usage.get("input", 0) for usage in used) == spent.tokens_in, "an answer is on no account"
    assert sum(usage.get("output", 0) for usage in used) == spent.tokens_out


def _harmless(events: list[Event], folder: Path) -> None:
    """What the server said is in no text of the run as it came."""
    for event in events:
        for text in _texts(event.body.model_dump(mode="json")):
            assert all(escaped(line) == line for line in text.split("\n")), (event.body.type, text)
    for name in (RECORD, "report.md", "report.html"):
        text = (folder / name).read_text()
        assert all(escaped(line) == line for line in text.split("\n")), name
        assert name == RECORD or not {"<script>alert(1)", "](javascript:"} & {
            text[i : i + 16] for i in range(len(text))
        }


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from (str(key), *_texts(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


@pytest.mark.parametrize("group", GROUPS)
def test_a_run_goes_on_whatever_the_server_does_in_turn(tmp_path: Path, server: Server, group: str) -> None:
    server.behaviour.turn = turns = Turns(GROUPS[group])
    began = time.monotonic()
    folder = started(tmp_path, server, WAITED_S.get(group, 20.0))
    driven(folder)
    asked = checked(folder)
    assert len(asked) >= 3 and set(turns.met) == set(GROUPS[group]), turns.met
    assert time.monotonic() - began < 400.0
    if group == "lies":
        assert all(one.estimated for one in asked) and all(one.tokens_in > 300 for one in asked)
    if group in ("times", "limits"):
        assert any(one.failed for one in asked)
    if group != "forms":
        assert any(one.sketches for one in asked), "what was right between was taken"


@pytest.mark.parametrize("way", ["dear", *GROUPS])
def test_dollars_are_never_more_than_were_granted(tmp_path: Path, server: Server, way: str) -> None:
    """Half a cent, at a server that claims as much as can be believed, or more, and at one that does what it likes."""
    ways = GROUPS.get(way) or {"dearer": replies(good, lambda body: dear(body, 1.9))}
    server.behaviour.turn = Turns({**ways, "dear": replies(good, dear)})
    folder = started(tmp_path, server, WAITED_S.get(way, 20.0), budget=Budget(experiments=10, usd=0.005))
    driven(folder)
    asked = checked(folder)
    spent = sum(one.usd or 0.0 for one in asked)
    assert asked and 0.0 < spent <= 0.005, spent
    assert way != "dear" or spent > 0.002, "money was spent"


def test_killed_in_the_middle_and_resumed_nothing_is_asked_twice(tmp_path: Path, server: Server) -> None:
    """Killed once with an answer that the run has not recorded yet, and once while the server is about to answer."""
    server.behaviour.turn = turns = Turns(
        {name: way for group in ("words", "moves") for name, way in GROUPS[group].items()}
    )
    folder = started(tmp_path, server)
    assert _controller(folder, 2).wait(120) == -signal.SIGKILL
    before = len(server.behaviour.asked)
    held, controller = Behaviour(kind="silence"), _controller(folder)

    def hold(number: int) -> Behaviour:
        if number < before + 1:
            return turns(number)
        os.kill(controller.pid, signal.SIGKILL)
        return held

    server.behaviour.turn = hold
    assert controller.wait(120) == -signal.SIGKILL
    server.behaviour.turn = turns
    assert _controller(folder).wait(120) == 0
    asked = checked(folder)
    assert len(asked) >= 3
    times: dict[str, list[int]] = defaultdict(list)
    for number, (_, body) in enumerate(server.behaviour.asked):
        if body["messages"][0]["content"] != SYSTEM:  # The last question, on bad cases, is asked after both kills.
            times[json.dumps(body, sort_keys=True)].append(number)
    again = [numbers for numbers in times.values() if len(numbers) > 1]
    assert again == [[before + 1, before + 2]], "only what was never answered is asked again"


def test_ctrl_c_twice_stops_a_run_that_waits_for_a_server(tmp_path: Path, server: Server) -> None:
    """The server says nothing for 300 seconds, and the run would wait for 200 of them. Afterwards it goes on."""
    server.behaviour.kind, server.patience_s = "silence", 300.0
    write_task(tmp_path, "6 experiments")
    model = f"{{provider: openai_compatible, model: m, base_url: '{server.url}/v1', price: {{input: 1, output: 1}}}}"
    with (tmp_path / "task.yaml").open("a") as file:
        file.write(
            f"researcher: {{models: [{model}], alone: true, timeout_s: 200, context_tokens: 1500, bad_cases: false}}\n"
        )
    run = subprocess.Popen(
        [sys.executable, "-m", "postgrad", "run", "task.yaml", "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _until(lambda: bool(server.behaviour.asked))
        interrupted(run)
        began = time.monotonic()
        run.send_signal(signal.SIGINT)
        out, _ = run.communicate(timeout=120)
    finally:
        run.kill()
    assert time.monotonic() - began < 90.0 and len(server.behaviour.asked) == 1
    assert run.returncode == 130 and "postgrad resume tiny-001" in json.loads(out)["error"]["message"]
    server.behaviour.kind, server.behaviour.reply = "well", good
    found = postgrad("resume", "tiny-001", cwd=tmp_path)
    assert found["experiments"] == 6 and found["failures"] == 0
    with SqliteStore.open(tmp_path / "runs" / "tiny-001", write=False) as store:
        spent = Ledger.from_events(Budget(), store.events()).spent
    assert 1 <= spent.asked == len(server.behaviour.asked) - 1 and spent.usd > 0


def _until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not done():
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(0.05)


def _controller(folder: Path, dies: int = 0) -> subprocess.Popen[bytes]:
    """A process of its own that drives the run."""
    program = Path(__file__).with_name("hostile_server.py")
    words = [sys.executable, str(program), str(folder), str(dies)]
    return subprocess.Popen(words, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
