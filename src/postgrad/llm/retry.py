"""Asking again after an outage, and not asking too often: a provider around another one."""

from __future__ import annotations

import time
from dataclasses import replace
from random import Random
from threading import Lock
from typing import Callable

from pydantic import Field

from postgrad.llm.base import Price, Provider, Reply, Request, Usage, together
from postgrad.llm.counting import estimate
from postgrad.llm.errors import BadReply, Outage, ProviderError
from postgrad.records.base import Record


class Retry(Record):
    """How often and how long.

    Attributes:
        attempts: at one request, the first included.
        bad_replies: how many of them may end in a BadReply; such a reply has been paid for.
        base_s, cap_s: the wait before attempt n + 1 is drawn from 0 to min(cap_s, base_s * 2 ** (n - 1)).
        retry_after_cap_s: what a server asks to wait is believed up to this.
        deadline_s: no attempt starts later than this after the first. The last one may take its own time-out longer.
        requests_per_minute, tokens_per_minute: of all requests together; None is no limit.
    """

    attempts: int = Field(default=5, ge=1)
    bad_replies: int = Field(default=2, ge=1)
    base_s: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    cap_s: float = Field(default=60.0, ge=0, allow_inf_nan=False)
    retry_after_cap_s: float = Field(default=120.0, ge=0, allow_inf_nan=False)
    deadline_s: float = Field(default=900.0, gt=0, allow_inf_nan=False)
    requests_per_minute: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    tokens_per_minute: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class Bucket:
    """A token bucket: holds a minute's worth and fills at that rate. Below zero, it makes later takers wait."""

    def __init__(self, per_minute: float, now: float) -> None:
        self._rate = per_minute / 60
        self._most = self._level = per_minute
        self._then = now
        self._lock = Lock()

    def take(self, amount: float, now: float) -> float:
        """Take so much, and return the seconds to wait until it is there. More than a minute's worth waits for a full
        bucket."""
        with self._lock:
            self._level = min(self._most, self._level + (now - self._then) * self._rate)
            self._then = now
            short = min(amount, self._most) - self._level
            self._level -= amount
            return max(0.0, short / self._rate)

    def give_back(self, amount: float) -> None:
        """Correct what was taken; a negative amount takes more."""
        with self._lock:
            self._level = min(self._most, self._level + amount)


class Retrying:
    """Asks another provider until it answers, with full jitter between attempts (Brooker 2015, "Exponential backoff and
    jitter", AWS Architecture Blog), within a rate.

    A reply's usage, and that of the error where there is no reply, is that of all attempts together.

    Args:
        clock: seconds, from any start.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        inner: Provider,
        rules: Retry | None = None,
        rng: Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._inner = inner
        self._rules = rules or Retry()
        self._rng = rng or Random()
        self._clock, self._sleep = clock, sleep
        requests, tokens = self._rules.requests_per_minute, self._rules.tokens_per_minute
        self._requests = Bucket(requests, clock()) if requests else None
        self._tokens = Bucket(tokens, clock()) if tokens else None

    def __repr__(self) -> str:
        return f"Retrying({self._inner!r})"

    @property
    def model(self) -> str:
        return self._inner.model

    @property
    def price(self) -> Price | None:
        return self._inner.price

    def complete(self, request: Request) -> Reply:
        rules, end = self._rules, self._clock() + self._rules.deadline_s
        spent: Usage | None = None
        bad = 0
        for attempt in range(1, rules.attempts + 1):
            reply, error = self._attempt(request)
            if reply is not None:
                return reply if spent is None else _with_usage(reply, spent)
            assert error is not None
            spent = together(spent, error.usage)
            bad += isinstance(error, BadReply)
            wait = self._wait(error, attempt)
            is_final = not isinstance(error, Outage | BadReply) or bad >= rules.bad_replies
            if is_final or attempt == rules.attempts or self._clock() + wait > end:
                error.usage = spent
                raise error
            self._sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _wait(self, error: ProviderError, attempt: int) -> float:
        """Seconds before the next attempt: full jitter, and not less than the server asks for."""
        # The exponent is bounded because a float is.
        drawn = self._rng.uniform(0.0, min(self._rules.cap_s, self._rules.base_s * 2.0 ** min(attempt - 1, 60)))
        asked = error.retry_after_s if isinstance(error, Outage) else None
        return drawn if asked is None else max(drawn, min(asked, self._rules.retry_after_cap_s))

    def _attempt(self, request: Request) -> tuple[Reply | None, ProviderError | None]:
        expected = estimate(request, "", None).input + request.max_tokens
        now = self._clock()
        wait = max(
            self._requests.take(1, now) if self._requests else 0.0,
            self._tokens.take(expected, now) if self._tokens else 0.0,
        )
        if wait > 0:
            self._sleep(wait)
        try:
            reply = self._inner.complete(request)
        except ProviderError as error:
            self._settle(expected, error.usage)
            return None, error
        self._settle(expected, reply.usage)
        return reply, None

    def _settle(self, expected: int, used: Usage | None) -> None:
        if self._tokens:
            self._tokens.give_back(expected - (used.input + used.output if used else 0))


def _with_usage(reply: Reply, spent: Usage) -> Reply:
    return replace(reply, usage=spent + reply.usage)
