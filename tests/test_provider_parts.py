"""Around a provider: retries and rates with a clock of their own, objects out of texts, and keys kept out of sight."""

from __future__ import annotations

import json
import logging
from random import Random
from typing import Any

import pytest
from pydantic import BaseModel, Field

from postgrad.llm.base import Price, Provider, Reply, Usage
from postgrad.llm.errors import BadReply, Outage, ProviderError, Refused
from postgrad.llm.keys import SHOWN, Keys, Redactor
from postgrad.llm.retry import Bucket, Retry, Retrying
from postgrad.llm.scripted import Line, Scripted
from postgrad.llm.structured import LONGEST, PROBLEMS, ask, found_json, parsed
from postgrad.testing.provider import request

PRICE = Price(input=1.0, output=1.0)


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def retrying(script: list[Line], clock: Clock, **rules: Any) -> tuple[Retrying, Scripted]:
    inner = Scripted(script, price=PRICE)
    return Retrying(inner, Retry.model_validate(rules), Random(0), clock, clock.sleep), inner


def outage(after: float | None = None) -> Outage:
    return Outage("server", "It cannot answer now.", 500, retry_after_s=after)


# --- retries ----------------------------------------------------------------------------------------------------------


def test_waits_are_drawn_from_ranges_that_double_up_to_a_cap() -> None:
    ranges = [1.0, 2.0, 4.0, 8.0, 8.0]
    drawn: list[list[float]] = []
    for seed in range(200):
        clock = Clock()
        rules = Retry(attempts=6, base_s=1.0, cap_s=8.0)
        inner = Scripted([*[outage() for _ in ranges], "said"])
        assert Retrying(inner, rules, Random(seed), clock, clock.sleep).complete(request()).text == "said"
        drawn.append(clock.slept)
    for slept, most in zip(zip(*drawn, strict=True), ranges, strict=True):
        assert 0 <= min(slept) < 0.1 * most and 0.9 * most < max(slept) <= most, "full jitter: from zero to the range"


def test_the_server_is_given_the_time_it_asks_for_up_to_a_cap() -> None:
    clock = Clock()
    provider, _ = retrying([outage(7.0), outage(500.0), "said"], clock, base_s=1.0, retry_after_cap_s=30.0)
    provider.complete(request())
    assert clock.slept == [7.0, 30.0]


def test_attempts_and_deadline_end_it() -> None:
    clock = Clock()
    provider, inner = retrying([outage() for _ in range(9)], clock, attempts=3)
    with pytest.raises(Outage):
        provider.complete(request())
    assert len(inner.asked) == 3
    provider, inner = retrying([outage(40.0) for _ in range(9)], clock, attempts=9, deadline_s=100.0)
    began = clock.now
    with pytest.raises(Outage):
        provider.complete(request())
    assert len(inner.asked) == 3 and clock.now - began <= 100.0, "no sleep that ends after the deadline"


def test_what_is_refused_is_not_asked_again_and_a_bad_reply_once() -> None:
    clock = Clock()
    provider, inner = retrying([Refused("key", "No."), "said"], clock)
    with pytest.raises(Refused):
        provider.complete(request())
    assert len(inner.asked) == 1 and not clock.slept
    bad = [BadReply("cut", "It ended.", usage=Usage(input=10, output=1, usd=0.5)) for _ in range(3)]
    provider, inner = retrying([*bad], clock)
    with pytest.raises(BadReply) as caught:
        provider.complete(request())
    assert len(inner.asked) == 2
    assert caught.value.usage == Usage(input=20, output=2, usd=1.0), "what failed has been paid for"


def test_a_reply_costs_what_its_failed_attempts_cost_too() -> None:
    cut = BadReply("cut", "It ended.", usage=Usage(input=10, output=1, usd=0.5, estimated=True))
    provider, _ = retrying(
        [cut, outage(), Reply("said", Usage(input=5, output=2, usd=0.25), "m", "stop", 0.1)], Clock()
    )
    assert provider.complete(request()).usage == Usage(input=15, output=3, usd=0.75, estimated=True)


def test_a_rate_of_requests_is_kept() -> None:
    clock = Clock()
    provider, _ = retrying(["said"] * 30, clock, requests_per_minute=10)
    for _ in range(30):
        provider.complete(request())
    assert clock.now - 100.0 == pytest.approx(120.0), "ten at once, then one every six seconds"


def test_a_rate_of_tokens_counts_what_was_used_in_the_end() -> None:
    clock = Clock()
    used = Usage(input=50, output=50, usd=0.0)
    script: list[Line] = [Reply("said", used, "m", "stop", 0.1) for _ in range(25)]
    provider, _ = retrying(script, clock, tokens_per_minute=1000)
    for _ in range(25):
        provider.complete(request(max_tokens=640))
    assert 110.0 < clock.now - 100.0 < 130.0, "100 tokens every six seconds, after the first minute's worth"


def test_a_request_larger_than_a_minutes_worth_waits_for_a_full_bucket() -> None:
    bucket = Bucket(60.0, 0.0)
    assert bucket.take(30, 0.0) == 0.0
    assert bucket.take(600, 0.0) == pytest.approx(30.0)
    assert bucket.take(1, 1000.0) == 0.0


# --- objects out of texts ---------------------------------------------------------------------------------------------


class Idea(BaseModel):
    name: str
    gain: float = Field(ge=0, le=1)
    steps: list[int] = Field(max_length=3)


GOOD = '{"name": "a", "gain": 0.5, "steps": [1]}'
FOUND = {
    "whole": GOOD,
    "with space": f"\n  {GOOD}\n",
    "in a fence": f"Here it is:\n```json\n{GOOD}\n```\nThat is all.",
    "in the first of two fences": f"```\n{GOOD}\n```\n```json\n{{}}\n```",
    "among words": f"I think {GOOD} would be best, not {{}}.",
    "after braces that open nothing": f"A {{set}} of {{things: {GOOD}",
    "after thoughts": f'<think>Maybe {{"name": "b"}}?</think>\n{GOOD}',
    "in a fence that is not closed": f"```json\n{GOOD}",
}


@pytest.mark.parametrize("name", FOUND)
def test_an_object_is_found(name: str) -> None:
    assert found_json(FOUND[name]) == json.loads(GOOD)


LOST = {
    "nothing": "",
    "a list": "[1, 2]",
    "a number": "3",
    "Python": "__import__('os').system('true')",
    "single quotes": "{'name': 'a'}",
    "half": GOOD[:-5],
    "deep": '{"a":' * 5000 + "1" + "}" * 5000,
    "deeper than 64": '{"a":' * 70 + "1" + "}" * 70,
    "braces": "{" * 100_000,
    "fences": "```json\n" * 20_000,
    "NaN": '{"name": NaN}',
    "too long": '{"name": "' + "a" * LONGEST + '"}',
}


@pytest.mark.parametrize("name", LOST)
def test_what_is_no_object_is_none(name: str) -> None:
    assert found_json(LOST[name]) is None


def test_all_problems_are_told_at_once() -> None:
    value, problems = parsed('{"gain": 3, "steps": [1, 2, 3, 4]}', Idea)
    assert value is None
    assert [problem.split(":")[0] for problem in problems] == ["name", "gain", "steps"]
    _, many = parsed(json.dumps({"name": "a", "gain": 0, "steps": ["x" * 1000] * 50}), Idea.model_construct().__class__)
    assert len(many) <= PROBLEMS + 1 and all(len(problem) <= 200 for problem in many)


def test_a_wrong_reply_is_shown_with_its_problems_and_mended() -> None:
    provider = Scripted(["I would rather not.", '{"name": "a", "gain": 7, "steps": []}', GOOD], price=PRICE)
    found = ask(provider, request("Ideas?"), Idea)
    assert found.value == Idea(name="a", gain=0.5, steps=[1]) and found.rounds == 3
    first, second, third = provider.asked
    assert first.schema == Idea.model_json_schema()
    assert len(second.messages) == len(third.messages) == 3, "only the last wrong reply is kept"
    assert third.messages[1].text == '{"name": "a", "gain": 7, "steps": []}'
    assert "- gain: " in third.messages[2].text and json.dumps(first.schema) in third.messages[2].text
    assert found.usage.output > found.reply.usage.output and found.usage.usd == pytest.approx(PRICE.usd(found.usage))


def test_rounds_are_bounded_and_paid_for() -> None:
    usage = Usage(input=10, output=5, usd=0.5)
    script: list[Line] = [Reply("no", usage, "m", "length", 0.1) for _ in range(9)]
    provider = Scripted(script)
    with pytest.raises(BadReply, match="limit of 64 tokens") as caught:
        ask(provider, request(), Idea, repairs=2)
    assert len(provider.asked) == 3 and caught.value.usage == Usage(input=30, output=15, usd=1.5)


def test_an_outage_between_rounds_keeps_the_account() -> None:
    usage = Usage(input=10, output=5, usd=0.5)
    provider: Provider = Scripted([Reply("no", usage, "m", "stop", 0.1), outage()])
    with pytest.raises(ProviderError) as caught:
        ask(provider, request(), Idea)
    assert caught.value.usage == usage


def test_a_long_wrong_reply_is_not_sent_back_whole() -> None:
    provider = Scripted(["x" * 500_000, GOOD])
    assert ask(provider, request(), Idea).rounds == 2
    assert len(provider.asked[1].messages[1].text) == 20_000


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_is_taken_from_the_environment_and_shown_nowhere() -> None:
    keys = Keys({"MY_KEY": " plain-words-as-a-key \n"})
    key = keys.take("MY_KEY")
    assert key.get_secret_value() == "plain-words-as-a-key"
    assert "plain" not in f"{key!r} {key} {keys!r} {keys.redactor!r} {vars(keys.redactor)!r}"
    assert keys.redactor("it is plain-words-as-a-key, really") == f"it is {SHOWN}, really"


@pytest.mark.parametrize(
    "key",
    [
        "sk-ant-api03-abcdefghijklmnop",
        "sk-proj-abcdefghijkl_mnop",
        "AIzaSyA0123456789abcdefghijklmnopqrstu",
        "hf_abcdefghijklmnopqrst",
        "gsk_abcdefghijklmnopqrst",
        "ghp_abcdefghijklmnopqrst",
        "AKIAIOSFODNN7EXAMPLE",
    ],
)
def test_common_forms_of_keys_are_replaced_unasked(key: str) -> None:
    redactor = Redactor()
    assert redactor(f"key={key}, next") == f"key={SHOWN}, next"
    assert redactor("Authorization: Bearer abc.def-123456") == f"Authorization: Bearer {SHOWN}"
    plain = "a risk-averse task-oriented sk-learn, hf_hub and none"
    assert redactor(plain) == plain


def test_of_two_keys_that_begin_alike_the_longer_goes_first() -> None:
    keys = Keys({"A": "common-start", "B": "common-start-and-more", "C": "none"})
    for name in "ABC":
        keys.take(name)
    assert keys.redactor("common-start-and-more none") == f"{SHOWN} none"


def test_a_log_record_is_cleaned_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    keys = Keys({"MY_KEY": "plain-words-as-a-key"})
    keys.take("MY_KEY")
    keys.redactor.watch(["tests.watched"])
    keys.redactor.watch(["tests.watched"])
    logger = logging.getLogger("tests.watched")
    assert logger.filters == [keys.redactor]
    try:
        raise ValueError("plain-words-as-a-key")
    except ValueError:
        logger.exception("sent %s", "plain-words-as-a-key")
    assert "plain-words" not in caplog.text and "ValueError" in caplog.text and f"sent {SHOWN}" in caplog.text
