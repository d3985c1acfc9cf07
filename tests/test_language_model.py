"""The language model as researcher, over a real socket: good replies, bad ones, no reply, money, kills and replays."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Callable, Iterator

import pytest

from postgrad.bench.overhead import SimulatedEngine, simulated_task
from postgrad.budget import Ledger, Remaining
from postgrad.errors import UserError
from postgrad.events import Event, Proposed
from postgrad.llm.base import Price
from postgrad.llm.scripted import Line, Scripted
from postgrad.records import (
    Asked,
    Budget,
    Choice,
    ModelSpec,
    Move,
    Proposal,
    Rates,
    ResearcherSpec,
    TaskSpec,
)
from postgrad.research.asking import Asking
from postgrad.research.assemble import RECORD, ready, researcher_of
from postgrad.research.base import Context
from postgrad.research.ideas import Ask
from postgrad.research.language_model import LanguageModel, patient
from postgrad.research.menu import moves
from postgrad.research.proposers import PLAYBOOK, drawn, records
from postgrad.research.proposing import Reply, checked
from postgrad.research.tally import tally
from postgrad.runner import drive, opened, start_run
from postgrad.spec import load_task
from postgrad.store.sqlite import SqliteStore
from postgrad.testing.researcher import PLAIN, ResearcherContract
from postgrad.testing.simulation import nominal_s
from postgrad.testing.trees import Node, tree_of
from postgrad.tree import Tree
from provider_server import Server

KEY = "sk-researcher-0123456789abcdefghij"
PRICE = Rates(input=1.0, output=4.0)
WORDS = {"hypothesis": "It may help.", "expected_effect": 0.01, "refuted_by": "the score does not move"}
OPEN = re.compile(r"^- ([\w.]+(?:@[^:\s]+)?): .* nominal seconds$", re.MULTILINE)


def told_moves(prompt: str) -> list[str]:
    """The moves that a prompt says are open."""
    return OPEN.findall(prompt)


def good(prompt: str, count: int = 3) -> str:
    """What a model would reply that takes the first open moves."""
    found = [{"move": name, **WORDS} for name in told_moves(prompt)[:count]]
    return json.dumps({"proposals": found or [{"settings": [{"name": "epochs", "value": 4}], **WORDS}]})


def replying(body: dict[str, Any]) -> str:
    """The same for a server."""
    return good(body["messages"][1]["content"])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("RESEARCHER_KEY", KEY)
    made = Server()
    made.behaviour.reply = replying
    yield made
    made.close()


def spec_of(server: Server, **changes: Any) -> ResearcherSpec:
    """A researcher that asks the server and nobody else, as long as that answers."""
    model = ModelSpec(
        provider="openai_compatible",
        model="small-1",
        base_url=f"{server.url}/v1",
        key_env="RESEARCHER_KEY",
        price=PRICE,
    )
    return ResearcherSpec(
        kind="language_model", models=(model,), **{"alone": True, "timeout_s": 5.0, "bad_cases": False, **changes}
    )


def started(folder: Path, spec: ResearcherSpec, experiments: int = 9, **changes: Any) -> Path:
    """A started run with simulated trainings; returns its folder."""
    task = simulated_task(folder, experiments).model_copy(update={"researcher": spec, **changes})
    with start_run(task, folder / "runs") as store:
        return store.folder


def driven(folder: Path, listen: Callable[[Event], None] = lambda event: None) -> tuple[Tree, Ledger]:
    with opened(SqliteStore.open(folder, write=True), listen, SimulatedEngine()) as session:
        drive(session)
        return session.tree, session.ledger


def asked_of(tree: Tree) -> list[Asked]:
    return [node.proposed.proposal.asked for node in tree.all() if node.proposed.proposal.asked]


def by_model(tree: Tree) -> list[Proposal]:
    return [p for node in tree.all() if (p := node.proposed.proposal).proposer == "openai_compatible/small-1"]


# --- whole runs -------------------------------------------------------------------------------------------------------


def test_a_run_is_driven_by_a_model_and_the_ledger_has_what_it_cost(tmp_path: Path, server: Server) -> None:
    folder = started(tmp_path, spec_of(server))
    tree, ledger = driven(folder)
    made, asked = by_model(tree), asked_of(tree)
    assert len(made) >= 4 and len(server.behaviour.asked) == len(asked) < len(made) + 1
    assert all(one.failed is None and one.sketches for one in asked)
    assert ledger.spent.asked == len(asked)
    assert ledger.spent.tokens_in == sum(one.tokens_in for one in asked) > 500 * len(asked)
    assert ledger.spent.usd == pytest.approx(sum(one.usd or 0.0 for one in asked)) and ledger.spent.usd > 0
    bare = [p for p in made if p.asked is None]
    assert bare, "a kept sketch was tried without asking"
    assert all(p.carried_out is not None and p.hypothesis == "It may help." for p in made)


def test_the_key_is_in_no_file_of_the_run(tmp_path: Path, server: Server) -> None:
    server.behaviour.kind, server.behaviour.status = "status", 401
    server.behaviour.body = '{"error": {"message": "KEY is wrong"}}'
    folder = started(tmp_path, spec_of(server), 5)
    tree, _ = driven(folder)
    assert asked_of(tree)[0].failed and "Refused/key" in str(asked_of(tree)[0].failed)
    for file in folder.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


@pytest.mark.parametrize("way", ["status", "silence", "cut", "many", "flood", "drip"])
def test_whatever_a_server_does_the_playbook_fills_in_and_the_run_ends(
    tmp_path: Path, server: Server, way: str
) -> None:
    server.behaviour.kind = way
    folder = started(tmp_path, spec_of(server, timeout_s=0.4), 6)
    tree, ledger = driven(folder)
    asked = asked_of(tree)
    assert len(tree) == 6 and not by_model(tree)
    assert asked and all(one.failed and not one.sketches for one in asked)
    assert ledger.spent.asked == len(asked) and all(len(one.failed or "") <= 300 for one in asked)
    assert ledger.spent.usd <= 0.5


def test_too_many_requests_are_waited_for(tmp_path: Path, server: Server) -> None:
    server.behaviour.kind, server.behaviour.status = "status", 429
    server.behaviour.headers = {"retry-after": "0"}

    def heal(event: Event) -> None:
        if len(server.behaviour.asked) >= 3:
            server.behaviour.kind = "well"

    tree, _ = driven(started(tmp_path, spec_of(server), 9), heal)
    assert by_model(tree), "it was asked again after it had healed"


def test_wrong_usage_is_not_believed(tmp_path: Path, server: Server) -> None:
    server.behaviour.usage = {"prompt_tokens": 10**9, "completion_tokens": -5}
    tree, ledger = driven(started(tmp_path, spec_of(server), 5))
    assert all(one.estimated for one in asked_of(tree))
    assert 0 < ledger.spent.usd < 0.2


def test_dollars_are_looked_at_before_each_call(tmp_path: Path, server: Server) -> None:
    """A call may cost $0.04 at most; $0.07 is enough for two or three of those that cost less."""
    budget = Budget(experiments=9, usd=0.07)
    server.behaviour.usage = {"prompt_tokens": 15_000, "completion_tokens": 2_000}
    tree, ledger = driven(started(tmp_path, spec_of(server, proposals=1), budget=budget))
    assert 1 <= ledger.spent.asked <= 3 and ledger.spent.usd <= 0.07
    assert len(tree) == 9, "the playbook goes on without money"


def test_a_killed_run_asks_nothing_twice(tmp_path: Path, server: Server) -> None:
    """Killed after an answer was recorded and before the event that holds it."""
    whole = started(tmp_path / "whole", spec_of(server), 8)
    expected, _ = driven(whole)
    questions = len(server.behaviour.asked)
    for number in (1, 2):
        server.behaviour.asked.clear()
        folder = started(tmp_path / f"killed-{number}", spec_of(server), 8)
        assert os.WTERMSIG(_killed(folder, number)) == signal.SIGKILL
        before = len(server.behaviour.asked)
        assert len((folder / RECORD).read_text().splitlines()) == before == number
        tree, _ = driven(folder)
        assert len(server.behaviour.asked) == questions, "a question was asked twice"
        assert [_plain(node.proposed) for node in tree.all()] == [_plain(node.proposed) for node in expected.all()]


def _killed(folder: Path, number: int) -> int:
    """Drive the run in a child that kills itself when it is about to store the event of the `number`-th question."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            store = SqliteStore.open(folder, write=True)
            append, seen = store.append, []

            def counted(body: Any) -> Event:
                if isinstance(body, Proposed) and body.proposal.asked is not None:
                    seen.append(body)
                    if len(seen) == number:
                        os.kill(os.getpid(), signal.SIGKILL)
                return append(body)

            setattr(store, "append", counted)  # noqa: B010 - the store of this child alone
            with opened(store, lambda event: None, SimulatedEngine()) as session:
                drive(session)
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def _plain(proposed: Proposed) -> dict[str, Any]:
    """A proposal without what depends on the clock."""
    found = proposed.model_dump(mode="json")
    if found["proposal"]["asked"]:
        found["proposal"]["asked"] |= {"seconds": 0.0}
    return found


def test_a_run_is_replayed_from_its_recording(tmp_path: Path, server: Server) -> None:
    first = started(tmp_path / "first", spec_of(server), 8)
    expected, _ = driven(first)
    asked = len(server.behaviour.asked)
    model = ModelSpec(
        name="openai_compatible/small-1", provider="recorded", model="small-1", path=str(first / RECORD), price=PRICE
    )
    spec = spec_of(server).model_copy(update={"models": (model,)})
    again, _ = driven(started(tmp_path / "again", spec, 8))
    assert len(server.behaviour.asked) == asked, "nothing was sent"
    recipes = [node.proposed.proposal.recipe.hash for node in again.all()]
    assert recipes == [node.proposed.proposal.recipe.hash for node in expected.all()]
    assert [one.usd for one in asked_of(again)] == [one.usd for one in asked_of(expected)]


# --- one question -----------------------------------------------------------------------------------------------------


def researcher(script: Any, folder: Path, task: TaskSpec = PLAIN, **changes: Any) -> tuple[Asking, Scripted]:
    """A researcher whose model reads from a script."""
    spec = ResearcherSpec(
        kind="language_model", models=(ModelSpec(provider="scripted", model="s"),), **{"alone": True, **changes}
    )
    provider = Scripted(script, model="s", price=Price(input=1.0, output=4.0))
    return Asking([LanguageModel(spec.models[0], spec, provider, folder / RECORD, patient(5.0))], spec), provider


TREE = tree_of([Node("e0000"), Node("e0001", "e0000", 0.6, kind="data.typos"), Node("e0002", "e0001", 0.55)])
ON = Choice(parent="e0001", move=Move.IMPROVE, reason="it leads")


def context(tree: Tree = TREE, **known: Any) -> Context:
    return Context(tree, Random(3), len(tree), None, nominal_s, **known)


def reply(**said: Any) -> str:
    return json.dumps({"proposals": [{**WORDS, **said}]})


def test_a_wrong_reply_goes_back_with_all_problems_and_is_repaired(tmp_path: Path) -> None:
    wrong = {
        "proposals": [
            {**WORDS, "move": "rm -rf", "evidence": ["e9999"]},
            {**WORDS, "settings": [{"name": "C", "value": 1e6}, {"name": "path", "value": "x"}]},
            {**WORDS, "add_steps": [{"op": "typos", "params": [{"name": "share", "value": 99}]}]},
            {**WORDS, "base_model": "hf:evil/model", "remove_steps": ["dedup"]},
            {**WORDS},
        ]
    }
    made, script = researcher([json.dumps(wrong), reply(move="data.dedup", evidence=["e0001"])], tmp_path)
    proposal = made.propose(PLAIN, ON, context())
    assert proposal.proposer == "scripted/s" and proposal.kind == "data.dedup" and proposal.evidence == ("e0001",)
    assert proposal.asked is not None and proposal.asked.rounds == 2 and proposal.asked.failed is None
    back = script.asked[1].messages[-1].text
    for number, what in enumerate(("rm -rf", "0.1 to 100", "add_steps: typos", "hf:evil/model", "changes nothing"), 1):
        assert f"proposal {number}: " in back and what in back
    assert "e9999" in back and '"path"' in back and "no step" in back


def test_what_is_right_of_a_second_reply_is_taken(tmp_path: Path) -> None:
    both = json.dumps({"proposals": [{**WORDS, "move": "nothing"}, {**WORDS, "move": "data.dedup"}]})
    made, script = researcher([both, both], tmp_path)
    proposal = made.propose(PLAIN, ON, context())
    assert proposal.kind == "data.dedup" and len(script.asked) == 2
    assert proposal.asked is not None and any("nothing" in note for note in proposal.asked.notes)


@pytest.mark.parametrize(
    "script",
    [
        ["no JSON at all"] * 3,
        [reply(move="none of these")] * 3,
        ['{"proposals": []}'] * 3,
        [json.dumps({"proposals": [WORDS] * 9})] * 3,
        ["x" * 300_000] * 3,
        [],
    ],
)
def test_where_nothing_can_be_used_the_playbook_proposes_and_says_so(tmp_path: Path, script: list[Line]) -> None:
    made, _ = researcher(script, tmp_path)
    proposal = made.propose(PLAIN, ON, context())
    assert proposal.proposer == "playbook" and proposal.asked is not None and proposal.asked.failed
    assert proposal.asked.proposer == "scripted/s" and not proposal.asked.sketches


def test_kept_sketches_are_tried_before_anybody_is_asked_again(tmp_path: Path) -> None:
    found = [{**WORDS, "move": name} for name in ("data.dedup", "data.balance")]
    made, script = researcher([json.dumps({"proposals": found})], tmp_path)
    first = made.propose(PLAIN, ON, context())
    tree = _with(TREE, first)
    assert made.propose(PLAIN, ON, context(tree)).kind == "data.balance"
    assert len(script.asked) == 1


def _with(tree: Tree, proposal: Proposal) -> Tree:
    """The tree with one more pending experiment."""
    name = f"e{len(tree):04d}"
    choice = proposal.carried_out or ON
    body = Proposed(experiment=name, choice=choice, proposal=proposal, incumbent=None, nominal_s=1.0)
    return tree.with_event(Event(seq=1, at=0.0, clock=0.0, body=body))


def test_a_repeat_is_answered_from_the_store(tmp_path: Path) -> None:
    """However it is written: e0001 has C = 2, and other defaults written out are the same recipe."""
    again = reply(settings=[{"name": "C", "value": 3.0}])
    made, script = researcher([again, reply(move="data.dedup")], tmp_path)
    assert made.propose(PLAIN, ON, context()).kind == "data.dedup"
    assert "it was tried as e0002: it scored 0.5500" in script.asked[1].messages[-1].text


def test_numbers_may_be_left_to_the_tuner(tmp_path: Path) -> None:
    said = reply(move="data.dedup", tune=[{"name": "C", "low": 5.0, "high": 6.0}])
    proposal = researcher([said], tmp_path)[0].propose(PLAIN, ON, context())
    assert 5.0 <= float(str(proposal.recipe.stage.params["C"])) <= 6.0
    assert proposal.kind == "several.changes" and proposal.carried_out is not None
    assert proposal.carried_out.kinds == ("data.dedup", "tune")


def test_what_belongs_to_others_is_not_asked(tmp_path: Path) -> None:
    made, script = researcher([], tmp_path)
    for move in (Move.REPLICATE, Move.TUNE):
        assert made.propose(PLAIN, Choice(parent="e0001", move=move), context()).asked is None
    assert not script.asked


def test_texts_of_a_model_are_bounded_and_printable(tmp_path: Path) -> None:
    nasty = "\x1b[2J</objective>\u202e" + "x" * 50_000
    said = json.dumps({"proposals": [{"move": "data.dedup", **WORDS, "hypothesis": nasty, "refuted_by": nasty}]})
    proposal = researcher([said], tmp_path)[0].propose(PLAIN, ON, context())
    assert len(proposal.hypothesis) < 700 and proposal.hypothesis.isprintable() and proposal.refuted_by.isprintable()


def test_a_starting_point_can_be_proposed(tmp_path: Path) -> None:
    said = reply(move="draft.classic_svm", settings=[{"name": "C", "value": 2.0}])
    proposal = researcher([said], tmp_path)[0].propose(PLAIN, Choice(parent=None, move=Move.DRAFT), context())
    assert proposal.kind == "draft.composed" and proposal.recipe.stage.params["head"] == "svm"
    assert proposal.carried_out is not None and proposal.carried_out.parent is None


def test_a_step_for_negatives_is_not_open_where_nothing_is_rejected() -> None:
    parsed = Reply.model_validate({"proposals": [{**WORDS, "add_steps": [{"op": "background"}]}]})
    ask = Ask(PLAIN, ON, context())
    assert "no data step" in checked(parsed, ask, moves(ask, {})).problems[0]


class TestLanguageModelContract(ResearcherContract):
    """A model that always takes the first open move is a researcher as any other."""

    @pytest.fixture(autouse=True)
    def _made(self, tmp_path: Path) -> None:
        self.researcher = researcher(lambda request: good(request.messages[1].text, 1), tmp_path)[0]


def test_the_schema_names_what_is_open_and_nothing_else(tmp_path: Path) -> None:
    made, script = researcher([reply(move="data.dedup"), reply(move="draft.classic_svm")], tmp_path, proposals=2)
    made.propose(PLAIN, ON, context())
    schema = script.asked[0].schema or {}
    fields = schema["$defs"]["Suggestion"]["properties"]
    open_moves = [item.name for item in moves(Ask(PLAIN, ON, context()), tally(TREE).kinds)]
    assert fields["move"]["enum"] == [*open_moves, None] and schema["properties"]["proposals"]["maxItems"] == 2
    assert fields["evidence"]["items"]["enum"] and set(fields["evidence"]["items"]["enum"]) <= set(TREE.experiments)
    assert fields["base_model"]["enum"] == [None] and "remove_steps" not in fields
    made.propose(PLAIN, Choice(parent=None, move=Move.DRAFT), context())
    assert "move" in (script.asked[1].schema or {})["$defs"]["Suggestion"]["required"]


def test_a_small_form_has_moves_and_reasons_only(tmp_path: Path) -> None:
    made, script = researcher([reply(move="data.dedup")], tmp_path, form="moves")
    made.propose(PLAIN, ON, context())
    suggestion = (script.asked[0].schema or {})["$defs"]["Suggestion"]
    assert list(suggestion["properties"]) == ["move", "hypothesis", "expected_effect", "refuted_by"]
    assert None not in suggestion["properties"]["move"]["enum"]


# --- who proposes -----------------------------------------------------------------------------------------------------


def _grown(gain: float, failed: bool = False) -> Tree:
    """Twelve experiments of the playbook that brought nothing, and as many of a model."""
    nodes = [Node("e0000", score=0.5)]
    nodes += [Node(f"e{n:04d}", "e0000", 0.5, kind="data.typos", gap=0.0 if n % 2 else gain) for n in range(1, 25)]
    tree = tree_of(nodes)
    made = []
    for node in tree.all()[1:]:
        theirs = node.index % 2 == 0
        asked = Asked(proposer="m", failed="Outage/timeout: no") if theirs and failed else None
        proposer = "m" if theirs and not failed else "playbook"
        proposal = node.proposed.proposal.model_copy(update={"proposer": proposer, "asked": asked})
        made.append(replace(node, proposed=node.proposed.model_copy(update={"proposal": proposal})))
    return tree.with_experiments(made, tree.champion)


def _share(tree: Tree) -> float:
    """How often the model is drawn."""
    found, rng = records(tree, ("m",)), Random(0)
    return sum(drawn(found, ("m", PLAYBOOK), rng) == "m" for _ in range(400)) / 400


def test_who_brings_more_is_asked_more() -> None:
    assert _share(_grown(0.05)) > 0.8
    assert _share(_grown(-0.05)) < 0.2
    assert 0.3 < _share(_grown(0.0)) < 0.7


def test_who_does_not_answer_loses_its_share_and_rests() -> None:
    tree = _grown(0.0, failed=True)
    assert _share(tree) < 0.25
    assert records(tree, ("m",))["m"].rests
    assert not records(tree_of([Node("e0000")]), ("m",))["m"].rests


def test_the_playbook_is_drawn_from_the_first(tmp_path: Path) -> None:
    made, script = researcher(lambda request: good(request.messages[1].text), tmp_path, alone=False)
    found = {made.propose(PLAIN, ON, replace(context(), rng=Random(seed))).proposer for seed in range(12)}
    assert found == {"playbook", "scripted/s"}


# --- money and keys ---------------------------------------------------------------------------------------------------


def test_a_model_without_a_price_is_refused_where_dollars_are_counted(tmp_path: Path, server: Server) -> None:
    spec = spec_of(server)
    unpriced = spec.model_copy(update={"models": (spec.models[0].model_copy(update={"price": None}),)})
    task = simulated_task(tmp_path, 5).model_copy(update={"researcher": unpriced})
    ready(task)
    with pytest.raises(UserError, match=r"What openai_compatible/small-1 costs is not known.*price: \{input"):
        ready(task.model_copy(update={"budget": Budget(experiments=5, usd=1.0)}))


def test_a_missing_key_is_said_before_the_run(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RESEARCHER_KEY")
    with pytest.raises(UserError, match="RESEARCHER_KEY is not set"):
        researcher_of(simulated_task(tmp_path, 5).model_copy(update={"researcher": spec_of(server)}), tmp_path)


def test_who_cannot_be_paid_is_not_asked(tmp_path: Path) -> None:
    made, script = researcher([], tmp_path)
    assert made.propose(PLAIN, ON, context(remaining=Remaining(usd=0.001))).asked is None
    assert not script.asked


# --- the task file ----------------------------------------------------------------------------------------------------


def task_file(folder: Path, researcher: str, budget: str = "5 experiments") -> Path:
    (folder / "train.csv").write_text("text,label\na,x\nb,y\n")
    (folder / "agent.py").write_text("")
    path = folder / "task.yaml"
    path.write_text(f"objective: o\ndata: {{train: train.csv}}\nbudget: {budget}\nresearcher: {researcher}\n")
    return path


def test_a_task_file_names_models(tmp_path: Path) -> None:
    written = "{models: [{provider: ollama, model: q, price: {input: 0, output: 0}}], proposals: 2}"
    spec = load_task(task_file(tmp_path, written)).researcher
    assert isinstance(spec, ResearcherSpec) and spec.kind == "language_model" and not spec.alone
    assert spec.models[0].called == "ollama/q" and spec.proposals == 2


def test_a_word_that_is_too_long_to_be_a_file_is_a_word(tmp_path: Path) -> None:
    words = f"print({'1 + ' * 200}1)"
    spec = load_task(task_file(tmp_path, json.dumps({"command": ["python", "-c", words]})), {}).researcher
    assert isinstance(spec, ResearcherSpec) and spec.command[2] == words


def test_a_task_file_names_a_program_beside_it(tmp_path: Path) -> None:
    spec = load_task(task_file(tmp_path, "{command: [python, agent.py], timeout_s: 9}")).researcher
    assert isinstance(spec, ResearcherSpec) and spec.alone
    assert spec.command == ("python", str(tmp_path / "agent.py"))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("playbok", "Did you mean 'playbook'"),
        ("language_model", "needs to know more"),
        ("{models: []}", "models is empty"),
        ("{models: [{provider: olama, model: q}]}", "Did you mean 'ollama'"),
        ("{models: [{provider: ollama, modle: q}]}", "Unknown key 'researcher.models.0.modle'. Did you mean 'model'"),
        ("{models: [{provider: ollama}, {provider: ollama}]}", "names more than one proposer"),
        ("{command: python agent.py}", "a list of words was expected"),
        ("{command: [a], models: [{provider: ollama}]}", "found models and command"),
        ("{command: [a], kind: language_model}", "Leave the kind out"),
        ("{kind: outside, wait_s: -1}", "researcher.wait_s is -1"),
        ("{command: [a], wait_s: 5}", "researcher.wait_s is of kind outside"),
        ("{kind: outside, examples: 3}", "researcher.examples is not of kind outside"),
        ("{command: [a], proposals: 9}", "researcher.proposals is 9, and 1 to 5 was expected"),
        ("{command: [a], proposals: many}", "researcher.proposals: input should be a valid integer"),
        ("{models: [{provider: ollama, model: q, price: {input: -1, output: 0}}]}", "price: 0 or more dollars"),
        ("3", "a name or keys were expected"),
    ],
)
def test_what_is_wrong_with_a_researcher_is_said(tmp_path: Path, written: str, said: str) -> None:
    with pytest.raises(UserError) as wrong:
        load_task(task_file(tmp_path, written))
    assert said in str(wrong.value)


def test_dollars_alone_do_not_end_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dollars alone do not end a run"):
        load_task(task_file(tmp_path, "{models: [{provider: ollama, model: q}]}", "$5"))
    with pytest.raises(UserError, match="has no price, so money cannot be a limit"):
        load_task(task_file(tmp_path, "playbook", "$5"))
