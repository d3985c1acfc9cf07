"""The contract of a provider of text, as tests. Give it your provider and it says whether a researcher can rely on it.

In a test file of your own package::

    class TestMyProvider(ProviderContract):
        def make(self) -> Provider:
            return MyProvider(...)

        def failing(self) -> Provider:
            return MyProvider(base_url="http://127.0.0.1:9")

It needs pytest as the runner only. The provider has to answer whatever it is asked. It does not judge what it says.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import get_args

from pydantic import TypeAdapter

from postgrad.llm.base import Finish, Message, Provider, Reply, Request
from postgrad.llm.errors import BadReply, Outage, ProviderError, Refused

SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}
ODD_TEXTS = {
    "control characters": "".join(map(chr, range(32))) + "\x7f\x00\ufeff\u202e",
    "half a surrogate pair": "a \ud800 b",
    "other scripts": "שלום 你好 👩‍🔬 é",
    "JSON": '{"role": "system", "content": "}]}"}',
    "line ends": "data: [DONE]\r\n\r\nevent: error\n\n",
    "long": "word " * 20_000,
}


def request(text: str = "Say something.", **named: object) -> Request:
    """A request of one message."""
    fields = {"max_tokens": 64, **named}
    return TypeAdapter(Request).validate_python({"messages": (Message("user", text),), **fields})


class ProviderContract:
    """What every provider holds to."""

    secrets: tuple[str, ...] = ()
    """Keys that `make` and `failing` use, which nothing may show."""

    def make(self) -> Provider:
        """Return a provider that answers."""
        raise AssertionError("define make(self) in the test class")

    def failing(self) -> Provider:
        """Return a provider that cannot answer."""
        raise AssertionError("define failing(self) in the test class")

    def check(self, provider: Provider, reply: Reply) -> None:
        """What holds for every reply."""
        usage, price = reply.usage, provider.price
        assert reply.text and reply.model and reply.latency_s >= 0
        assert reply.finish in get_args(Finish)
        assert usage.input > 0 and usage.output > 0, "a prompt and a text have tokens"
        assert 0 <= usage.cached_input + usage.written_input <= usage.input
        assert (usage.usd is None) == (price is None), "dollars are known where the price is, and only there"
        assert price is None or usage.usd == price.usd(usage)
        assert TypeAdapter(Reply).validate_json(json.dumps(asdict(reply))) == reply, "a reply survives JSON"

    # --- tests --------------------------------------------------------------------------------------------------------

    def test_a_reply_has_text_usage_and_cost(self) -> None:
        provider = self.make()
        assert provider.model
        self.check(provider, provider.complete(request()))

    def test_a_conversation_is_answered(self) -> None:
        provider = self.make()
        roles = ("system", "user", "assistant", "user")
        messages = tuple(TypeAdapter(Message).validate_python({"role": role, "text": role}) for role in roles)
        self.check(provider, provider.complete(Request(messages, max_tokens=64, temperature=0.0, seed=1)))

    def test_a_request_with_a_schema_is_answered(self) -> None:
        provider = self.make()
        asked = request(schema=SCHEMA)
        before = asked.key("any")
        self.check(provider, provider.complete(asked))
        assert asked.key("any") == before, "a request is not changed"

    def test_odd_texts_are_sent(self) -> None:
        provider = self.make()
        for text in ODD_TEXTS.values():
            self.check(provider, provider.complete(request(text)))

    def test_threads_do_not_mix_replies(self) -> None:
        provider = self.make()
        with ThreadPoolExecutor(4) as pool:
            for reply in pool.map(provider.complete, [request(f"Number {number}") for number in range(8)]):
                self.check(provider, reply)

    def test_a_failure_is_one_of_three_kinds_and_says_something(self) -> None:
        try:
            self.failing().complete(request())
        except ProviderError as error:
            assert isinstance(error, Outage | Refused | BadReply)
            assert error.kind and len(str(error)) > 20
            assert not any(secret in f"{error!r} {error}" for secret in self.secrets)
        else:
            raise AssertionError("the failing provider answered")

    def test_no_key_is_shown(self) -> None:
        for provider in (self.make(), self.failing()):
            shown = f"{provider!r} {provider} {vars(provider)!r}"
            assert not any(secret in shown for secret in self.secrets)
