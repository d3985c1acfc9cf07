"""A server on loopback that speaks chat completions and Anthropic's Messages, well or badly, as it is told."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Iterator

TEXT = '{"answer": "forty-two"}'
PIECES = ('{"answer": ', '"forty-', 'two"}')


@dataclass
class Behaviour:
    """How the server answers, and what it was asked.

    Attributes:
        kind: "well", or a way to fail that `Handler` knows.
        usage: in place of a plausible count, in the protocol's own words; a function makes it from the request.
        status, body, headers: of a plain answer, for "status".
        refuses: parts of a request that are answered with `status` for as long as they are there.
        reply: makes the text of a good answer from the request; None gives `TEXT`.
        turn: how the request of this number is answered, from 0; None answers all as this says.
        asked: (headers, body) of every request.
    """

    kind: str = "well"
    usage: Any = None
    status: int = 500
    body: str = '{"error": {"message": "it broke"}}'
    headers: dict[str, str] = field(default_factory=dict)
    refuses: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    reply: Callable[[dict[str, Any]], str] | None = None
    turn: Callable[[int], Behaviour] | None = None
    asked: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    """Answers POST in the protocol that the path names."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:  # noqa: N802
        behaviour = self.server.behaviour
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        behaviour.asked.append(({name.lower(): value for name, value in self.headers.items()}, body))
        if behaviour.turn is not None:
            behaviour = behaviour.turn(len(behaviour.asked) - 1)
        is_refused = any(part in body for part in behaviour.refuses)
        kind = "status" if is_refused else behaviour.kind
        with suppress(OSError):
            getattr(self, f"answer_{kind}")(behaviour, body)
        self.close_connection = True

    do_GET = do_POST  # noqa: N815

    # --- ways to answer -----------------------------------------------------------------------------------------------

    def answer_well(self, behaviour: Behaviour, body: dict[str, Any]) -> None:
        if body.get("stream"):
            self.stream(self.events(behaviour, body))
        else:
            self.answer_whole(behaviour, body)

    def answer_whole(self, behaviour: Behaviour, body: dict[str, Any]) -> None:
        self.whole(json.dumps(completion(behaviour.usage, message={"role": "assistant", "content": TEXT})))

    def answer_status(self, behaviour: Behaviour, body: dict[str, Any]) -> None:
        key = self.headers.get("authorization", "") + self.headers.get("x-api-key", "")
        headers = {name: value.replace("KEY", key) for name, value in behaviour.headers.items()}
        self.whole(behaviour.body.replace("KEY", key), behaviour.status, headers)

    def answer_silence(self, behaviour: Behaviour, body: dict[str, Any]) -> None:
        self.server.over.wait(self.server.patience_s)

    def answer_stall(self, behaviour: Behaviour, body: dict[str, Any]) -> None:
        self.start("text/event-stream")
        self.chunk(next(self.events(behaviour, body)))
        self.server.over.wait(self.server.patience_s)

    def answer_drip(self, behaviour: Behaviour, body: dict[str, Any]) -> None:
        self.start("text/event-stream")
        while not self.server.over.wait(0.05):
            self.chunk(": still here\n\n")

    def answer_drip_head(self, behaviour: Behaviour, body: dict[str, Any]) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
        while not self.server.over.wait(0.05):
            self.wfile.write(b"a")

    def answer_cut(self, behaviour: Behaviour, body: dict[str, Any]) -> None:
        self.start("text/event-stream")
        events = self.events(behaviour, body)
        for _ in range(3):
            self.chunk(next(events))

    def answer_end_early(self, behaviour: Behaviour, body: dict[str, Any]) -> None:
        events = list(self.events(behaviour, body))
        self.stream(iter(events[: len(events) // 2]))

    def answer_events(self, behaviour: Behaviour, body: dict[str, Any]) -> None:
        self.stream(iter(behaviour.events))

    def answer_flood(self, behaviour: Behaviour, body: dict[str, Any]) -> None:
        """10 MB in one event."""
        self.start("text/event-stream")
        self.chunk('event: content_block_delta\ndata: {"id": "')
        for _ in range(160):
            self.chunk("x" * 65_536)
            self.server.sent += 65_536

    def answer_many(self, behaviour: Behaviour, body: dict[str, Any]) -> None:
        """10 MB of text in events of 32 kB."""
        self.start("text/event-stream")
        is_anthropic = "anthropic-version" in self.headers
        events = list(self.events(behaviour, body))
        first = events[:2] if is_anthropic else events[:1]
        for event in first:
            self.chunk(event)
        for _ in range(320):
            text = "x" * 32_768
            piece = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
            delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
            self.chunk(named(delta) if is_anthropic else f"data: {json.dumps(piece)}\n\n")
            self.server.sent += 32_768

    # --- parts --------------------------------------------------------------------------------------------------------

    def events(self, behaviour: Behaviour, body: dict[str, Any]) -> Iterator[str]:
        if "anthropic-version" in self.headers:
            yield from message_events(behaviour, body)
        else:
            pieces = PIECES if behaviour.reply is None else (behaviour.reply(body),)
            told = behaviour.usage(body) if callable(behaviour.usage) else behaviour.usage
            usage = told or plausible(body, "".join(pieces))
            yield from chat_events(replace(behaviour, usage=usage), pieces)

    def whole(self, text: str, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def start(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def stream(self, events: Iterator[str]) -> None:
        self.start("text/event-stream")
        for event in events:
            self.chunk(event)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Runs in threads of its own until it is closed."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = Behaviour()
        self.over = threading.Event()
        self.sent = 0
        self.patience_s = 90.0  # before a silent answer is given up
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what the tests are about."""


def completion(usage: Any, **choice: Any) -> dict[str, Any]:
    """A whole chat completion, or a chunk of one."""
    made = {"id": "chat-1", "object": "chat.completion", "created": int(time.time()), "model": "served-1"}
    return {**made, "choices": [{"index": 0, "finish_reason": "stop", **choice}], "usage": usage or plausible({}, "")}


def plausible(body: dict[str, Any], text: str) -> dict[str, int]:
    """Counts that a request and its reply may have: 12 and 7 where they are short."""
    read = max(12, sum(len(each["content"]) for each in body.get("messages", ())) // 4)
    written = max(7, len(text) // 4)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def chat_events(behaviour: Behaviour, pieces: tuple[str, ...] = PIECES) -> Iterator[str]:
    """A streamed chat completion."""
    for piece in pieces:
        chunk = {**completion(None, delta={"content": piece}, finish_reason=None), "usage": None}
        yield f"data: {json.dumps(chunk)}\n\n"
    yield f"data: {json.dumps({**completion(None, delta={}), 'usage': None})}\n\n"
    yield f"data: {json.dumps({**completion(behaviour.usage), 'choices': []})}\n\n"
    yield "data: [DONE]\n\n"


def message_events(behaviour: Behaviour, body: dict[str, Any]) -> Iterator[str]:
    """A streamed message of Anthropic's."""
    is_tool = "tools" in body
    usage = behaviour.usage or {"input_tokens": 5, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 3}
    message: dict[str, Any] = {
        "id": "msg-1",
        "type": "message",
        "role": "assistant",
        "model": "served-2",
        "content": [],
        "usage": usage,
    }
    block = {"type": "tool_use", "id": "t1", "name": "reply", "input": {}} if is_tool else {"type": "text", "text": ""}
    yield named({"type": "message_start", "message": message})
    yield named({"type": "content_block_start", "index": 0, "content_block": block})
    yield named({"type": "ping"})
    for piece in PIECES:
        inner = (
            {"type": "input_json_delta", "partial_json": piece} if is_tool else {"type": "text_delta", "text": piece}
        )
        yield named({"type": "content_block_delta", "index": 0, "delta": inner})
    yield named({"type": "content_block_stop", "index": 0})
    reason = "tool_use" if is_tool else "end_turn"
    ended = {"output_tokens": usage.get("output_tokens", 7)}
    yield named({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": ended})
    yield named({"type": "message_stop"})


def named(event: dict[str, Any]) -> str:
    """An event with its name, as Anthropic sends it."""
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
