"""Providers of text: the contract of each, and what the two network adapters send and read over a real socket."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any, Iterator

import pytest

from postgrad.errors import UserError
from postgrad.llm import PROVIDERS
from postgrad.llm.base import Message, Patience, Price, Provider, Reply, Request, Settings, Usage
from postgrad.llm.counting import Counts, believed, dearest, estimate, most_input
from postgrad.llm.errors import Outage, Refused
from postgrad.llm.keys import Keys
from postgrad.llm.ladder import in_prompt, is_strict
from postgrad.llm.presets import PRESETS, connect, filled
from postgrad.llm.prices import TABLE, price_of
from postgrad.llm.recorded import Recording, Replay
from postgrad.llm.retry import Retry, Retrying
from postgrad.llm.scripted import Line, Scripted
from postgrad.testing.provider import SCHEMA, ProviderContract, request
from provider_server import TEXT, Server

KEY = "sk-test-0123456789abcdefghij"
PRICE = Price(input=2.0, output=10.0, cached_input=0.2, written_input=2.5)
KINDS = ("openai_compatible", "anthropic")


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def made(server: Server, kind: str = "openai_compatible", **named: Any) -> Provider:
    """A provider of this kind that asks the server, with the key."""
    url = server.url if kind == "anthropic" else f"{server.url}/v1"
    fields = {"provider": kind, "model": "m", "base_url": url, "key_env": "TEST_KEY", "price": PRICE, **named}
    return connect(Settings.model_validate(fields), Keys({"TEST_KEY": KEY}))


class _Networked(ProviderContract):
    kind = "openai_compatible"
    stream = True
    secrets = (KEY,)

    @pytest.fixture(autouse=True)
    def serve(self, server: Server) -> None:
        self.server = server

    def make(self) -> Provider:
        return made(self.server, self.kind, stream=self.stream)

    def failing(self) -> Provider:
        url = "http://127.0.0.1:9"
        return made(self.server, self.kind, stream=self.stream, base_url=url)


class TestOpenAICompatible(_Networked):
    pass


class TestOpenAICompatibleInOnePiece(_Networked):
    stream = False


class TestAnthropic(_Networked):
    kind = "anthropic"


class TestRetrying(_Networked):
    def make(self) -> Provider:
        return Retrying(super().make())

    def failing(self) -> Provider:
        return Retrying(super().failing(), Retry(attempts=2, base_s=0.0))


class TestScripted(ProviderContract):
    def make(self) -> Provider:
        return Scripted(lambda asked: f"echo {len(asked.messages)}", price=PRICE)

    def failing(self) -> Provider:
        return Scripted(())


class TestRecording(ProviderContract):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "replies.jsonl"

    def make(self) -> Provider:
        return Recording(Scripted(lambda asked: "said", price=PRICE), self.path)

    def failing(self) -> Provider:
        self.path.touch()
        return Replay(self.path, "m")


# --- what is sent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_carries_the_key_and_no_header_that_tells_about_this_machine(server: Server, kind: str) -> None:
    made(server, kind).complete(request())
    headers, _ = server.behaviour.asked[0]
    assert KEY in headers.get("authorization", "") + headers.get("x-api-key", "")
    assert not [name for name in headers if name.startswith("x-stainless") or name == "cookie"]


def test_a_local_server_without_a_key_gets_none(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    settings = Settings(provider="vllm", model="m", base_url=f"{server.url}/v1")
    reply = connect(settings, Keys()).complete(request())
    headers, _ = server.behaviour.asked[0]
    assert reply.text == TEXT and reply.usage.usd == 0.0
    assert "authorization" not in headers and "openai-organization" not in headers


def test_a_request_says_what_was_asked_and_nothing_else(server: Server) -> None:
    messages = (Message("system", "Be brief."), Message("user", "Hello"))
    made(server).complete(Request(messages, max_tokens=9, temperature=0.5, seed=3))
    _, body = server.behaviour.asked[0]
    assert body.pop("messages") == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    options = {"model": "m", "max_tokens": 9, "temperature": 0.5, "seed": 3, "stream": True}
    assert body == {**options, "stream_options": {"include_usage": True}}


def test_anthropic_is_asked_to_keep_the_system_message(server: Server) -> None:
    reply = made(server, "anthropic").complete(
        Request((Message("system", "Be brief."), Message("user", "Hello")), max_tokens=9, seed=3)
    )
    _, body = server.behaviour.asked[0]
    assert body["system"] == [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    assert body["messages"] == [{"role": "user", "content": "Hello"}] and "seed" not in body
    expected = Usage(input=12, cached_input=4, written_input=3, output=7)
    assert reply.usage == Usage(**{**vars(expected), "usd": PRICE.usd(expected)})
    assert reply.usage.usd == pytest.approx((5 * 2.0 + 4 * 0.2 + 3 * 2.5 + 7 * 10.0) / 1e6)


def test_a_server_that_cannot_stream_is_understood(server: Server) -> None:
    server.behaviour.kind = "whole"
    reply = made(server).complete(request())
    assert (reply.text, reply.finish, reply.model, reply.id) == (TEXT, "stop", "served-1", "chat-1")


# --- schemas ----------------------------------------------------------------------------------------------------------


def test_a_schema_goes_to_the_server_strictly_where_it_can(server: Server) -> None:
    made(server).complete(request(schema=SCHEMA))
    form = server.behaviour.asked[0][1]["response_format"]["json_schema"]
    assert form == {"name": "reply", "schema": SCHEMA, "strict": True}
    assert not is_strict({**SCHEMA, "required": []}) and not is_strict({"type": "array", "items": {"type": "object"}})
    assert is_strict({"type": "object", "properties": {}, "additionalProperties": False})


@pytest.mark.parametrize(
    ("status", "words"), [(400, "no"), (422, "no"), (500, "response_format: Input should be text")]
)
def test_a_server_without_schemas_gets_it_in_the_prompt_from_then_on(server: Server, status: int, words: str) -> None:
    server.behaviour.refuses, server.behaviour.status = ("response_format",), status
    server.behaviour.body = json.dumps({"error": {"message": words}})
    provider = made(server)
    assert [provider.complete(request(schema=SCHEMA)).text for _ in range(2)] == [TEXT, TEXT]
    bodies = [body for _, body in server.behaviour.asked]
    assert ["response_format" in body for body in bodies] == [True, False, False]
    assert json.dumps(SCHEMA) in bodies[1]["messages"][-1]["content"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_that_is_not_the_schemas_fault_is_not_remembered(server: Server, kind: str) -> None:
    provider = made(server, kind)
    server.behaviour.kind, server.behaviour.status = "status", 400
    with pytest.raises(Refused):
        provider.complete(request(schema=SCHEMA))
    server.behaviour.kind = "well"
    provider.complete(request(schema=SCHEMA))
    assert {"response_format", "tools"} & set(server.behaviour.asked[-1][1])
    tries = len(server.behaviour.asked)
    server.behaviour.kind = "status"
    with pytest.raises(Refused):
        provider.complete(request(schema=SCHEMA))
    assert len(server.behaviour.asked) == tries + 1, "a server that has taken a schema is not asked without one"


def test_anthropic_is_held_to_a_schema_by_a_tool_else_by_a_format_else_by_words(server: Server) -> None:
    refused: list[tuple[str, ...]] = [(), ("tools",), ("tools", "output_config")]
    found = []
    for parts in refused:
        server.behaviour.refuses, server.behaviour.status = parts, 400
        assert made(server, "anthropic").complete(request(schema=SCHEMA)).text == TEXT
        found.append(set(server.behaviour.asked[-1][1]) & {"tools", "output_config"})
    assert found == [{"tools"}, {"output_config"}, set()]


# --- usage and prices -------------------------------------------------------------------------------------------------

ABSURD: tuple[Any, ...] = (
    {"prompt_tokens": -1, "completion_tokens": 7},
    {"prompt_tokens": 10**9, "completion_tokens": 10**9},
    {"prompt_tokens": 12.0, "completion_tokens": "7"},
    {"prompt_tokens": True, "completion_tokens": None},
    {"prompt_tokens": 0, "completion_tokens": 0},
    {"prompt_tokens": 12, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 13}},
    {"other": 1},
    ["no", "object"],
    "many",
)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("usage", ABSURD, ids=str)
def test_absurd_usage_is_not_believed(server: Server, usage: Any, stream: bool) -> None:
    server.behaviour.usage = usage
    reply = made(server, stream=stream).complete(request())
    assert reply.text == TEXT and reply.usage.estimated
    assert 0 < reply.usage.input < 100 and 0 < reply.usage.output < 100
    assert reply.usage.usd == PRICE.usd(reply.usage)


@pytest.mark.parametrize("count", [-5, 10**9, "many", 5.5])
def test_absurd_usage_of_anthropic_is_not_believed(server: Server, count: object) -> None:
    for usage in ({"input_tokens": count}, {"input_tokens": 5, "cache_read_input_tokens": count}):
        server.behaviour.usage = usage
        reply = made(server, "anthropic").complete(request())
        assert reply.usage.estimated and 0 < reply.usage.input < 100


def test_what_is_believed_costs_no_more_than_was_set_aside() -> None:
    """Whatever is claimed, in either way of asking for a schema, and at prices of which any may be the dearest."""
    rng = Random(0)
    whole = request("Say something. " * 40, max_tokens=300, schema=SCHEMA)
    most = most_input(whole)
    used = set()
    for _ in range(2000):
        price = Price(input=rng.random(), output=rng.random(), cached_input=rng.random(), written_input=rng.random())
        told = Counts(*(rng.choice((None, -1, 0, rng.randrange(400), rng.randrange(2 * most))) for _ in range(4)))
        for asked in (whole, in_prompt(whole)):
            usage = believed(told, asked, "x" * rng.randrange(10_000), price)
            assert usage.usd is not None and 0.0 <= usage.usd <= dearest(whole, price)
            used.add(usage.estimated)
    assert used == {True, False}


@pytest.mark.parametrize(("read", "written"), [(3, 40), (60_000, 40), (500, 0), (500, 3), (500, 301)])
def test_counts_that_contradict_the_texts_are_not_believed(read: int, written: int) -> None:
    asked, text = request("Say something. " * 100, max_tokens=300), "word " * 60
    assert not believed(Counts(input=500, output=40), asked, text, PRICE).estimated
    assert believed(Counts(input=read, output=written), asked, text, PRICE).estimated


def test_hidden_reasoning_counts_up_to_what_was_asked_for() -> None:
    asked = request(max_tokens=500)
    fits, over = (believed(Counts(input=10, output=said), asked, "short", PRICE) for said in (500, 501))
    assert (fits.output, fits.estimated) == (500, False)
    assert over.estimated and over.output == estimate(asked, "short", PRICE).output


def test_a_model_without_a_price_has_no_cost_until_the_settings_name_one(server: Server) -> None:
    assert made(server, price=None).complete(request()).usage.usd is None
    assert Usage(usd=None) + Usage(usd=1.0) == Usage(usd=None), "a sum with an unknown part is unknown"
    assert price_of("anthropic", "claude-haiku-4-5-20251001") == price_of("anthropic", "claude-haiku-4-5")
    assert price_of("openrouter", "claude-haiku-4-5") is None, "another service has other prices"
    assert len(TABLE) >= 12 and all(listed.seen.startswith("2026-") for listed in TABLE.values())


# --- settings ---------------------------------------------------------------------------------------------------------


def test_the_presets_name_an_address_and_a_key() -> None:
    google = filled(Settings(provider="google", model="gemini-3.5-flash"))
    assert google.base_url == PRESETS["google"].base_url and google.key_env == "GEMINI_API_KEY"
    elsewhere = filled(Settings(provider="openai", model="m", base_url="http://127.0.0.1:1/v1"))
    assert elsewhere.key_env is None, "the key of a service goes to its own address only"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"provider": "gogle", "model": "m"}, "Did you mean 'google'"),
        ({"provider": "openai", "model": "m"}, "OPENAI_API_KEY is not set"),
        ({"provider": "anthropic", "model": "m"}, "ANTHROPIC_API_KEY is not set"),
        ({"provider": "anthropic", "model": "m", "base_url": "http://127.0.0.1:1"}, "needs `key_env`"),
        ({"provider": "openai_compatible", "model": "m"}, "needs `base_url`"),
        ({"provider": "openai_compatible", "base_url": "http://127.0.0.1:1"}, "needs a model"),
        ({"provider": "openai_compatible", "model": "m", "base_url": "ftp://x"}, "no address"),
        ({"provider": "openai_compatible", "model": "m", "base_url": "http://[x"}, "no address"),
        ({"provider": "openai_compatible", "model": "m", "base_url": "http://u:p@h/v1"}, "password"),
        ({"provider": "openai_compatible", "model": "m", "base_url": "http://h", "key_env": "SPACED"}, "SPACED holds"),
        ({"provider": "recorded", "path": "nowhere.jsonl"}, "needs `path`"),
        ({"provider": "scripted"}, "needs `path`"),
    ],
)
def test_settings_that_are_not_complete_say_what_is_missing(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        connect(Settings.model_validate(fields), Keys({"SPACED": "two words"}))


def test_every_provider_of_the_table_can_be_made() -> None:
    assert PROVIDERS.names() == ("anthropic", "in_process", "openai_compatible", "recorded", "scripted")
    assert all(hasattr(PROVIDERS.get(name), "connect") for name in PROVIDERS.names())
    assert Patience().idle_s < Patience().whole_s


# --- scripts and recordings -------------------------------------------------------------------------------------------


def test_a_recording_is_replayed_reply_by_reply_with_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    outage = Outage("rate_limit", "Too many.", 429, Usage(input=3, usd=None), 2.5)
    script: list[Line] = ["one", outage, "two", Reply("three", Usage(input=1, output=1), "m", "length", 0.5, "r3")]
    recording = Recording(Scripted(script, model="m"), path)
    asked = [request("a"), request("b"), request("a"), request("a", schema=SCHEMA)]
    said: list[object] = []
    for each in asked:
        try:
            said.append(recording.complete(each))
        except Outage as raised:
            said.append((str(raised), raised.kind, raised.status, raised.usage, raised.retry_after_s))
    with path.open("a") as file:
        file.write('{"key": "torn')
    replay = connect(Settings(provider="recorded", path=path), Keys({}))
    assert replay.model == "m"
    assert [replay.complete(asked[place]) for place in (0, 2, 3)] == [said[0], said[2], said[3]]
    with pytest.raises(Outage) as caught:
        replay.complete(asked[1])
    error = caught.value
    assert (str(error), error.kind, error.status, error.usage, error.retry_after_s) == said[1]
    with pytest.raises(Refused, match="2 times, and is asked for once more"):
        replay.complete(asked[0])
    with pytest.raises(Refused, match="never"):
        replay.complete(request("a", max_tokens=65))
    Recording(Scripted(["four"], model="m"), path).complete(request("c"))
    assert Replay(path).complete(request("c")).text == "four", "what a crash left unfinished is cut off"


@pytest.mark.parametrize("line", ["no JSON", "[]", '{"key": "k", "model": "m", "reply": {"text": 1}}', '{"key": 1}'])
def test_a_file_that_is_no_recording_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UserError, match=r"Line 1 of replies\.jsonl"):
        Replay(path)


def test_a_script_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "script.jsonl"
    path.write_text('"one"\n"two"\n')
    provider = connect(Settings(provider="scripted", path=path), Keys({}))
    assert [provider.complete(request()).text for _ in range(2)] == ["one", "two"]
    path.write_text("{}\n")
    with pytest.raises(UserError, match="no script"):
        connect(Settings(provider="scripted", path=path), Keys({}))
