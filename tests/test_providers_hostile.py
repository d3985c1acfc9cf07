"""Servers that stall, cut, flood, lie and redirect, over a real socket: one of three errors, soon, without the key."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import time
import traceback
from random import Random
from threading import Thread
from typing import Any, Iterator

import pytest

from postgrad.cli.driving import polite_interrupt
from postgrad.cli.live import LiveScreen
from postgrad.errors import Interrupted
from postgrad.llm.base import Patience, Price, Provider, Settings
from postgrad.llm.errors import BadReply, Outage, ProviderError, Refused
from postgrad.llm.faults import retry_after
from postgrad.llm.keys import Keys
from postgrad.llm.presets import connect
from postgrad.llm.retry import Retry, Retrying
from postgrad.llm.wire import bounded
from postgrad.loop import Control
from postgrad.testing.provider import SCHEMA, request
from provider_server import Behaviour, Server, chat_events, message_events

KEY = "sk-hostile-0123456789abcdefghij"
PRICE = Price(input=2.0, output=10.0)
KINDS = ("openai_compatible", "anthropic")
SHORT = Patience(connect_s=1.0, idle_s=0.3, whole_s=5.0)
LONG = Patience(connect_s=30.0, idle_s=30.0, whole_s=60.0)
WHOLE = Patience(connect_s=1.0, idle_s=5.0, whole_s=0.5)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def made(server: Server, kind: str, patience: Patience = LONG, **named: Any) -> Provider:
    """A provider of this kind that asks the server, with the key."""
    url = server.url if kind == "anthropic" else f"{server.url}/v1"
    fields = {"provider": kind, "model": "m", "base_url": url, "key_env": "TEST_KEY", "price": PRICE}
    return connect(Settings(**{**fields, "patience": patience, **named}), Keys({"TEST_KEY": KEY}))


def failure(provider: Provider, **named: Any) -> ProviderError:
    """What a request ends in."""
    with pytest.raises(ProviderError) as caught:
        provider.complete(request(**named))
    error = caught.value
    assert error.__context__ is None and error.__cause__ is None, "an exception of the SDK would quote the key"
    return error


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("way", "patience"),
    [("silence", SHORT), ("stall", SHORT), ("silence", WHOLE), ("stall", WHOLE), ("drip", WHOLE), ("drip_head", WHOLE)],
)
def test_a_server_that_takes_too_long_is_left(server: Server, kind: str, way: str, patience: Patience) -> None:
    made(server, kind).complete(request())  # imports the SDK, which takes seconds on a busy machine
    server.behaviour.kind = way
    began = time.monotonic()
    error = failure(made(server, kind, patience))
    assert isinstance(error, Outage) and error.kind == "timeout", repr(error)
    assert time.monotonic() - began < 45.0, "the server would have gone on for ninety"
    assert error.usage is not None and error.usage.input > 0 and error.usage.estimated, "what was sent may be billed"
    assert error.usage.output == 0 or way == "stall"


def test_a_request_that_never_left_has_cost_nothing() -> None:
    """A place that takes no more connections than are waiting there already."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        host, port = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex((host, port))
        settings = {"provider": "openai_compatible", "model": "m", "base_url": f"http://{host}:{port}/v1"}
        patience = Patience(connect_s=0.3, idle_s=5.0, whole_s=5.0)
        error = failure(connect(Settings.model_validate({**settings, "patience": patience}), Keys({})))
        for one in waiting:
            one.close()
    assert isinstance(error, Outage) and error.kind == "timeout" and error.usage is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["silence", "stall"])
def test_a_person_who_stops_is_heard_while_a_server_is_waited_for(server: Server, kind: str, way: str) -> None:
    """The SDKs take what is raised in the middle of a request for a failed connection."""
    provider = Retrying(made(server, kind), Retry(attempts=3, base_s=0.0, cap_s=0.0))
    provider.complete(request())
    server.behaviour.kind, control = way, Control(finish=True)
    asked = len(server.behaviour.asked)

    def stop() -> None:
        while len(server.behaviour.asked) == asked:
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    began = time.monotonic()
    with polite_interrupt(control, LiveScreen(quiet=True), "run-001"), pytest.raises(Interrupted, match="run-001"):
        Thread(target=stop, daemon=True).start()
        provider.complete(request())
    assert time.monotonic() - began < 45.0, "the server would have gone on for ninety"
    assert len(server.behaviour.asked) == asked + 1, "nobody asks again for somebody who wants to stop"


def test_nobody_at_the_address_is_an_outage() -> None:
    for kind in KINDS:
        fields = {"provider": kind, "model": "m", "base_url": "http://127.0.0.1:9", "key_env": "TEST_KEY"}
        error = failure(connect(Settings.model_validate(fields), Keys({"TEST_KEY": KEY})))
        assert isinstance(error, Outage) and error.kind == "connection" and error.usage is None
        assert "127.0.0.1:9" in str(error) and "base_url" in str(error)


# --- answers that say no ----------------------------------------------------------------------------------------------

STATUSES: tuple[tuple[int, str, type[ProviderError], str, str], ...] = (
    (401, "bad key KEY", Refused, "key", "TEST_KEY"),
    (402, "pay", Refused, "quota", "Add credit"),
    (403, "not here", Refused, "forbidden", "name another model"),
    (404, "no such model", Refused, "not_found", "base_url"),
    (400, "odd option", Refused, "request", "odd option"),
    (400, "maximum context length is 4096 tokens", Refused, "too_long", "Shorten it"),
    (413, "too big", Refused, "too_long", "Shorten it"),
    (408, "slow", Outage, "server", "slow"),
    (429, "slow down", Outage, "rate_limit", "slow down"),
    (429, "insufficient_quota", Refused, "quota", "Add credit"),
    (500, "it broke", Outage, "server", "it broke"),
    (503, "", Outage, "server", "503"),
    (529, "overloaded", Outage, "server", "overloaded"),
    (600, "what", Outage, "server", "600"),
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("status", "words", "expected", "name", "says"), STATUSES)
def test_each_status_is_worth_retrying_or_not(
    server: Server, kind: str, status: int, words: str, expected: type[ProviderError], name: str, says: str
) -> None:
    behaviour = server.behaviour
    behaviour.kind, behaviour.status = "status", status
    behaviour.body = json.dumps({"error": {"message": words}})
    behaviour.headers = {"retry-after": "7"}
    error = failure(made(server, kind))
    assert (type(error), error.kind, error.status, error.usage) == (expected, name, status, None)
    assert says in str(error) and len(behaviour.asked) == 1, "the SDK does not try again by itself"
    assert not isinstance(error, Outage) or error.retry_after_s == 7.0


def test_what_a_server_says_is_shown_short_and_plain(server: Server) -> None:
    server.behaviour.kind, server.behaviour.status = "status", 500
    server.behaviour.body = "\x1b[31m" + "words " * 20_000
    error = failure(made(server, "openai_compatible"))
    assert error.kind == "server" and len(str(error)) < 700 and "\x1b" not in str(error)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 99 Oct 99999 07:28:00 GMT"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_with_the_key(server: Server, kind: str, status: int) -> None:
    elsewhere = Server()
    server.behaviour.kind, server.behaviour.status = "status", status
    server.behaviour.headers = {"location": f"{elsewhere.url}/v1/chat/completions"}
    error = failure(made(server, kind))
    elsewhere.close()
    assert isinstance(error, Refused) and error.kind == "redirect" and not elsewhere.behaviour.asked
    assert elsewhere.url.removeprefix("http://") in str(error)


# --- replies that are none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["cut", "end_early"])
def test_a_stream_that_ends_in_the_middle_is_no_reply_and_has_cost_something(
    server: Server, kind: str, way: str
) -> None:
    server.behaviour.kind = way
    error = failure(made(server, kind))
    assert isinstance(error, BadReply) and error.kind in ("cut", "empty")
    assert error.usage is not None and error.usage.estimated and error.usage.input > 0
    assert error.usage.usd == PRICE.usd(error.usage)


def chunk(**fields: Any) -> str:
    """An event of a streamed chat completion."""
    return f"data: {json.dumps(fields)}\n\n"


DONE = "data: [DONE]\n\n"
WRONG: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "nothing": ((DONE,), {"empty"}),
    "no choices": ((chunk(choices=[]), DONE), {"empty"}),
    "choices left out": ((chunk(id="a"), DONE), {"shape"}),
    "choices are no list": ((chunk(choices={"0": 1}), DONE), {"shape"}),
    "a number for text": ((chunk(choices=[{"delta": {"content": 3}}]), DONE), {"shape"}),
    "a list for text": ((chunk(choices=[{"delta": {"content": ["a"]}}]), DONE), {"shape"}),
    "choices of numbers": ((chunk(choices=[1, 2]), DONE), {"shape"}),
    "a number": (("data: 3\n\n", DONE), {"shape"}),
    "a list": (("data: [1]\n\n", DONE), {"shape"}),
    "no JSON": (("data: {oops\n\n", DONE), {"not_json"}),
    "half a JSON": (('data: {"choices": [\n\n', DONE), {"not_json"}),
    "deep JSON": (("data: " + "[" * 100_000 + "\n\n", DONE), {"not_json"}),
    "a web page": (("<html><body>Hello</body></html>\n\n",), {"empty"}),
    "a refusal": ((chunk(choices=[{"delta": {"refusal": "I will not."}}]), DONE), {"filtered"}),
    "NaN": (('data: {"choices": NaN}\n\n', DONE), {"shape"}),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_reply_of_another_form_is_a_bad_reply(server: Server, name: str) -> None:
    server.behaviour.kind, (server.behaviour.events, kinds) = "events", WRONG[name]
    error = failure(made(server, "openai_compatible"))
    assert isinstance(error, BadReply) and error.kind in kinds, repr(error)


WRONG_MESSAGES: dict[str, tuple[str, ...]] = {
    "nothing": ("\n\n",),
    "no JSON": ("event: message_start\ndata: {oops\n\n",),
    "a number": ("event: message_start\ndata: 3\n\n",),
    "a list": ("event: content_block_delta\ndata: [1]\n\n",),
    "a text that is a number": (
        'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 0, '
        '"delta": {"type": "text_delta", "text": 3}}\n\n',
    ),
    "a stop without a start": ('event: message_stop\ndata: {"type": "message_stop"}\n\n',),
    "a message that is a list": ('event: message_start\ndata: {"type": "message_start", "message": [1]}\n\n',),
    "deep JSON": ("event: message_start\ndata: " + "[" * 100_000 + "\n\n",),
}


@pytest.mark.parametrize("name", WRONG_MESSAGES)
def test_a_message_of_another_form_is_a_bad_reply(server: Server, name: str) -> None:
    server.behaviour.kind, server.behaviour.events = "events", WRONG_MESSAGES[name]
    error = failure(made(server, "anthropic"))
    assert isinstance(error, BadReply) and error.kind in ("empty", "shape", "not_json", "cut"), repr(error)


def spoilt(value: Any, rng: Random) -> Any:
    """A JSON value with parts left out and replaced."""
    if rng.random() < 0.15:
        return rng.choice((None, True, 3, -1, 1.5, "x", [], {}, [1], {"a": 1}, 10**30, float("inf")))
    if isinstance(value, dict):
        return {key: spoilt(part, rng) for key, part in value.items() if rng.random() > 0.07}
    return [spoilt(part, rng) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize("kind", KINDS)
def test_a_spoilt_stream_is_a_reply_or_one_of_the_errors(server: Server, kind: str) -> None:
    rng, provider = Random(0), made(server, kind, Patience())
    server.behaviour.kind = "events"
    ends = set()
    for _ in range(80):
        events = message_events(Behaviour(), {}) if kind == "anthropic" else chat_events(Behaviour())
        said = [event.partition("data: ") for event in events]
        server.behaviour.events = tuple(
            f"{head}data: {json.dumps(spoilt(json.loads(data), rng)) if rng.random() < 0.2 else data.strip()}\n\n"
            for head, _, data in said
            if rng.random() > 0.05 and "[DONE]" not in data
        )
        try:
            reply = provider.complete(request())
        except ProviderError as error:
            ends.add(error.kind)
        else:
            assert reply.usage.input > 0 and reply.usage.usd == PRICE.usd(reply.usage)
    assert {"shape", "cut"} <= ends


def test_an_error_in_the_middle_of_a_stream_is_an_outage(server: Server) -> None:
    server.behaviour.kind = "events"
    server.behaviour.events = (chunk(error={"message": "overloaded", "code": 503}), DONE)
    error = failure(made(server, "openai_compatible"))
    assert isinstance(error, Outage) and "overloaded" in str(error)
    words = {"type": "error", "error": {"type": "overloaded_error", "message": "overloaded"}}
    server.behaviour.events = (f"event: error\ndata: {json.dumps(words)}\n\n",)
    error = failure(made(server, "anthropic"))
    assert isinstance(error, Outage) and "overloaded" in str(error)


@pytest.mark.parametrize(
    "body", ["", "oops", "[]", '{"choices": []}', '{"choices": [{"message": {"content": 3}}]}', "3"]
)
def test_a_wrong_reply_in_one_piece_is_a_bad_reply(server: Server, body: str) -> None:
    server.behaviour.kind, server.behaviour.status, server.behaviour.body = "status", 200, body
    for stream in (True, False):
        error = failure(made(server, "openai_compatible", stream=stream))
        assert isinstance(error, BadReply) and error.kind in ("shape", "not_json", "empty"), repr(error)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["flood", "many"])
def test_ten_megabytes_are_not_read(server: Server, kind: str, way: str) -> None:
    server.behaviour.kind = way
    error = failure(made(server, kind, Patience(reply_bytes=200_000)))
    assert isinstance(error, BadReply) and error.kind == "too_large"
    assert server.sent < 9_000_000, "the reader hung up"
    assert error.usage is not None and error.usage.output <= 200_000 / 3 + 1, "no more than that was kept"


def test_reading_stops_at_a_long_line_and_at_many_short_ones() -> None:
    for piece, most in ((b"x" * 1000, 21), (b"x" * 999 + b"\n", 161)):
        pieces = iter([piece] * 1000)
        with pytest.raises(BadReply, match="larger than 10,000 bytes"):
            list(bounded(pieces, 10_000))
        assert 1000 - len(list(pieces)) == most


def test_ten_megabytes_of_an_error_are_not_read(server: Server) -> None:
    server.behaviour.kind, server.behaviour.body = "status", "x" * 10_000_000
    error = failure(made(server, "openai_compatible"))
    assert isinstance(error, Outage) and error.kind == "server" and len(str(error)) < 1000


def test_a_compressed_reply_is_not_unpacked(server: Server) -> None:
    server.behaviour.kind, server.behaviour.status = "status", 200
    server.behaviour.headers = {"content-encoding": "gzip"}
    for kind in KINDS:
        assert failure(made(server, kind)).kind == "shape"


# --- the key ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [200, 302, 400, 401, 404, 429, 500])
def test_the_key_is_in_nothing_that_is_raised_or_logged(
    server: Server, kind: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    behaviour = server.behaviour
    behaviour.kind, behaviour.status = "status", status
    behaviour.body = json.dumps({"error": {"message": "wrong: KEY", "code": "KEY", "type": "KEY"}, "choices": "KEY"})
    behaviour.headers = {"x-request-id": "KEY", "location": "http://KEY.example/KEY", "retry-after": "KEY"}
    error = failure(made(server, kind), schema=SCHEMA)
    assert KEY in behaviour.asked[0][0].get("authorization", "") + behaviour.asked[0][0].get("x-api-key", "")
    raised = "".join(traceback.format_exception(error)) + repr(vars(error))
    logged = caplog.text + "".join(f"{record.getMessage()} {vars(record)!r}" for record in caplog.records)
    assert "httpcore2" in logged, "the libraries log at this level"
    assert KEY not in raised
    assert KEY not in logged
