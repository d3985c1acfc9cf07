"""One question to a cluster's service over HTTP, with the standard library: bounded in time and in size.

No redirection is followed, because the next host would get the token as well. Of what comes back nothing is believed.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any, Mapping
from urllib.parse import urlsplit

from postgrad.engines.remote.cluster import Unreachable

MOST_BYTES, ERROR_BYTES, PIECE = 64 << 20, 1 << 16, 1 << 16
NEAR = ("127.0.0.1", "localhost", "::1")


class Answered(Exception):
    """It answered, and not with what was asked for: its status, its reason, and the beginning of the text."""

    def __init__(self, status: int, reason: str, text: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status, self.reason, self.text = status, reason, text


class Service:
    """A service at an address; each question has a connection of its own."""

    def __init__(self, address: str, headers: Mapping[str, str]) -> None:
        self._address = address
        self._headers = {"Accept": "application/json", "User-Agent": "postgrad", **headers}
        direct = [urllib.request.ProxyHandler({})] if urlsplit(address).hostname in NEAR else []
        self._opener = urllib.request.build_opener(_Staying(), *direct)

    def ask(self, method: str, path: str, body: object, within_s: float) -> Any:
        """The answer, from JSON.

        Args:
            body: sent as JSON; None for none.

        Raises:
            Answered: with another status than 2xx.
            Unreachable: it did not answer in time, or with something that is no JSON.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers if data is None else self._headers | {"Content-Type": "application/json"}
        request = urllib.request.Request(self._address + path, data=data, headers=headers, method=method)
        until = time.monotonic() + within_s
        try:
            try:
                with self._opener.open(request, timeout=within_s) as response:
                    return json.loads(_text(response, until, MOST_BYTES))
            except urllib.error.HTTPError as problem:
                with problem:
                    text = _text(problem, until, ERROR_BYTES).decode(errors="replace")
                raise Answered(problem.code, str(problem.reason), text) from None
        except (OSError, HTTPException) as problem:
            said = getattr(problem, "reason", None) or str(problem) or type(problem).__name__
            raise Unreachable(f"{self._address} does not answer: {said}") from None
        except (ValueError, RecursionError):
            raise Unreachable(f"{self._address} answered with something that is no JSON") from None


class _Staying(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def _text(response: Any, until: float, most: int) -> bytes:
    """What it sends, all of it.

    Raises:
        TimeoutError: it takes too long.
        HTTPException: it is too long, or breaks off.
    """
    found = bytearray()
    while piece := response.read1(PIECE):
        found += piece
        if len(found) > most:
            raise HTTPException(f"more than {most:,} bytes")
        if time.monotonic() > until:
            raise TimeoutError("it sends too slowly")
    if response.length:  # An early end looks like the end.
        raise HTTPException("the answer broke off")
    return bytes(found)
