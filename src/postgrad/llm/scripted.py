"""Replies that were written beforehand, for tests: from a list, or from a function of the request."""

from __future__ import annotations

import json
from typing import Callable, Sequence, Union

from postgrad.errors import UserError
from postgrad.llm.base import Price, Provider, Reply, Request, Settings
from postgrad.llm.counting import estimate
from postgrad.llm.errors import ProviderError, Refused
from postgrad.llm.keys import Keys

Line = Union[str, Reply, ProviderError]


class ScriptedConnector:
    """Reads the script from `path`: JSON lines, each a text."""

    def connect(self, settings: Settings, keys: Keys) -> Provider:
        path = settings.path
        if path is None or not path.is_file():
            raise UserError("The provider 'scripted' needs `path`, a file with one JSON string a line.")
        try:
            lines = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
        except ValueError:
            lines = [None]
        if not all(isinstance(line, str) for line in lines):
            raise UserError(f"{path.name} is no script: every line has to be one JSON string.")
        return Scripted(lines, model=settings.model or "scripted", price=settings.price)


class Scripted:
    """Gives the lines of a script in their order. A line that is an error is raised.

    Args:
        script: the lines, or what makes one from a request.

    Attributes:
        asked: the requests so far.
    """

    def __init__(
        self,
        script: Sequence[Line] | Callable[[Request], Line],
        model: str = "scripted",
        price: Price | None = None,
    ) -> None:
        self.asked: list[Request] = []
        self._script = script
        self._model, self._price = model, price

    def __repr__(self) -> str:
        return f"Scripted(model={self._model!r})"

    @property
    def model(self) -> str:
        return self._model

    @property
    def price(self) -> Price | None:
        return self._price

    def complete(self, request: Request) -> Reply:
        self.asked.append(request)
        line = self._line(request, len(self.asked))
        if isinstance(line, ProviderError):
            raise line
        if isinstance(line, Reply):
            return line
        usage = estimate(request, line, self._price)
        return Reply(text=line, usage=usage, model=self._model, finish="stop", latency_s=0.0)

    def _line(self, request: Request, number: int) -> Line:
        if callable(self._script):
            return self._script(request)
        if number > len(self._script):
            raise Refused("script", f"The script has {len(self._script)} lines, and was asked for one more.")
        return self._script[number - 1]
