"""A provider's answers kept in a file, one JSON object a line, and given again.

A line has `key`, which names request and model by their content, `model`, `request`, and `reply` or `error`. The same
request asked again is a further line, and the replay gives the lines of a request in their order.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any

from pydantic import TypeAdapter, ValidationError

from postgrad.errors import UserError
from postgrad.llm.base import Price, Provider, Reply, Request, Settings, Usage, together
from postgrad.llm.errors import BadReply, Outage, ProviderError, Refused
from postgrad.llm.keys import Keys

_REPLY, _USAGE = TypeAdapter(Reply), TypeAdapter(Usage)
_ERRORS: dict[str, type[ProviderError]] = {kind.__name__: kind for kind in (Outage, Refused, BadReply)}
Answer = Reply | ProviderError
# Of a recording's end, what is looked through for answers that were not used: more than a question has.
LAST, LAST_BYTES = 16, 8_000_000


class RecordedConnector:
    """Replays the file at `path`."""

    def connect(self, settings: Settings, keys: Keys) -> Provider:
        if settings.path is None or not settings.path.is_file():
            raise UserError("The provider 'recorded' needs `path`, a file that a recording has written.")
        return Replay(settings.path, settings.model, settings.price)


class Recording:
    """Asks another provider, and writes each request with its answer to a file before it is given on.

    Args:
        path: appended to; a line that a crash left unfinished is cut off.
    """

    def __init__(self, inner: Provider, path: Path) -> None:
        self._inner, self._path = inner, path
        self._lock = Lock()
        _cut_unfinished(path)
        self._last = _last_answers(path)

    def __repr__(self) -> str:
        return f"Recording({self._inner!r}, {self._path.name!r})"

    @property
    def model(self) -> str:
        return self._inner.model

    @property
    def price(self) -> Price | None:
        return self._inner.price

    def at(self, slot: str) -> Slot:
        """The same for the requests of one question. What was answered under its name before this recording was opened
        is given again, whatever the request: somebody who was stopped does not pay twice."""
        return Slot(self, slot, self._last.pop(slot, []))

    def complete(self, request: Request, slot: str = "") -> Reply:
        try:
            reply = self._inner.complete(request)
        except ProviderError as error:
            self._write(request, slot, {"error": _packed(error)})
            raise
        self._write(request, slot, {"reply": asdict(reply)})
        return reply

    def _write(self, request: Request, slot: str, answer: dict[str, Any]) -> None:
        line = {"key": request.key(self.model), "model": self.model, "request": asdict(request), **answer}
        line |= {"slot": slot} if slot else {}
        text = json.dumps(line) + "\n"  # Not as the characters themselves: some lead a terminal astray.
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


class Slot:
    """The requests of one question of a recording.

    Attributes:
        rounds: replies so far.
        seconds: that they took, as they say themselves.
    """

    def __init__(self, recording: Recording, name: str, known: list[Answer]) -> None:
        self._recording, self._name, self._known = recording, name, known
        self.rounds, self.seconds = 0, 0.0

    def __repr__(self) -> str:
        return f"Slot({self._recording!r}, {self._name!r})"

    @property
    def model(self) -> str:
        return self._recording.model

    @property
    def price(self) -> Price | None:
        return self._recording.price

    @property
    def spent(self) -> Usage | None:
        """What the answers that are known already have cost."""
        spent: Usage | None = None
        for answer in self._known:
            spent = together(spent, answer.usage)
        return spent

    def complete(self, request: Request) -> Reply:
        answer = self._known.pop(0) if self._known else self._recording.complete(request, self._name)
        if isinstance(answer, ProviderError):
            raise answer
        self.rounds += 1
        self.seconds += answer.latency_s
        return answer


class Replay:
    """Gives recorded answers again, errors too, each once, in the order in which the same request was answered.

    Args:
        model: the recorded one; "" takes that of the first line.

    Raises:
        UserError: the file is no recording.
    """

    def __init__(self, path: Path, model: str = "", price: Price | None = None) -> None:
        self._name, self._price = path.name, price
        self._answers: dict[str, list[Answer]] = defaultdict(list)
        self._given: dict[str, int] = defaultdict(int)
        self._lock = Lock()
        self._model = model
        for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
            if line.endswith(b"\n"):
                self._learn(line, number)

    def __repr__(self) -> str:
        return f"Replay({self._name!r}, model={self._model!r})"

    @property
    def model(self) -> str:
        return self._model

    @property
    def price(self) -> Price | None:
        return self._price

    def complete(self, request: Request) -> Reply:
        key = request.key(self._model)
        with self._lock:
            answers, place = self._answers.get(key, []), self._given[key]
            if place < len(answers):
                self._given[key] += 1
        if place >= len(answers):
            times = f"{len(answers)} times, and is asked for once more" if answers else "never"
            raise Refused(
                "script",
                f"{self._name} has this request (key {key}, model '{self._model}') {times}. Something before it "
                "differs from what was recorded; record again.",
            )
        answer = answers[place]
        if isinstance(answer, ProviderError):
            raise answer
        return answer

    def _learn(self, line: bytes, number: int) -> None:
        try:
            fields = json.loads(line)
            answer = _answer(fields)
            key, model = str(fields["key"]), str(fields["model"])
        except (ValueError, KeyError, TypeError, ValidationError) as wrong:
            raise UserError(
                f"Line {number} of {self._name} is no recorded request: {type(wrong).__name__}. Record again."
            ) from wrong
        self._model = self._model or model
        self._answers[key].append(answer)


def _answer(fields: dict[str, Any]) -> Answer:
    return _REPLY.validate_python(fields["reply"]) if "reply" in fields else _unpacked(fields["error"])


def _last_answers(path: Path) -> dict[str, list[Answer]]:
    """Slot -> the answers of the last lines of a recording: what a controller that was killed may not have used yet."""
    found: dict[str, list[Answer]] = defaultdict(list)
    if not path.exists():
        return found
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LAST_BYTES))
        lines = file.read().splitlines()[-LAST:]
    for line in lines:
        try:
            fields = json.loads(line)
            if "slot" in fields:
                found[str(fields["slot"])].append(_answer(fields))
        except (ValueError, KeyError, TypeError, ValidationError):
            continue  # The first one may be half a line, and what cannot be read is asked again.
    return found


def costs(path: Path) -> dict[str, tuple[Usage | None, int]]:
    """Slot -> what its answers have cost together, and how many replies they were; in the order of the file."""
    found: dict[str, tuple[Usage | None, int]] = {}
    with path.open("rb") as file:
        for line in file:
            try:
                fields = json.loads(line)
                slot, answer = str(fields["slot"]), _answer(fields)
            except (ValueError, KeyError, TypeError, ValidationError):
                continue  # A line that a crash left unfinished, or one that is no run's.
            usage, replies = found.get(slot, (None, 0))
            found[slot] = together(usage, answer.usage), replies + isinstance(answer, Reply)
    return found


def _packed(error: ProviderError) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "kind": error.kind,
        "message": str(error),
        "status": error.status,
        "usage": asdict(error.usage) if error.usage else None,
        "retry_after_s": error.retry_after_s if isinstance(error, Outage) else None,
    }


def _unpacked(fields: dict[str, Any]) -> ProviderError:
    usage = _USAGE.validate_python(fields["usage"]) if fields["usage"] else None
    error = _ERRORS[fields["type"]](fields["kind"], fields["message"], fields["status"], usage)
    if isinstance(error, Outage):
        error.retry_after_s = fields["retry_after_s"]
    return error


def _cut_unfinished(path: Path) -> None:
    """Leave only whole lines in the file."""
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)
