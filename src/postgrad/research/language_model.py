"""A language model as proposer: one request, a bounded repair of a wrong reply, and an account of what it cost."""

from __future__ import annotations

from pathlib import Path

from postgrad.llm.base import Message, Price, Provider, Reply, Request, Usage
from postgrad.llm.counting import dearest
from postgrad.llm.errors import ProviderError, Refused
from postgrad.llm.recorded import Recording
from postgrad.llm.retry import Retry, Retrying
from postgrad.quoting import escaped
from postgrad.records import Asked, ModelSpec, ResearcherSpec
from postgrad.research.asking import NOTE, noted
from postgrad.research.questions import Question

REPAIRS = 2
# What the schema and a wrong reply may add to a prompt, in tokens, before it is known.
BESIDE = 2000


class Gate:
    """Asks a provider only where what is left pays for the dearest that may come of it. Not for several threads."""

    def __init__(self, inner: Provider) -> None:
        self._inner = inner
        self.left: float | None = None

    @property
    def model(self) -> str:
        return self._inner.model

    @property
    def price(self) -> Price | None:
        return self._inner.price

    def complete(self, request: Request) -> Reply:
        if self.left is not None and (worst := dearest(request, self.price)) > self.left:
            raise Refused("quota", f"The request may cost ${worst:.4f}, and the budget has ${self.left:.4f} left.")
        try:
            reply = self._inner.complete(request)
        except ProviderError as error:
            self.spend(error.usage)
            raise
        self.spend(reply.usage)
        return reply

    def spend(self, usage: Usage | None) -> None:
        """Take what was used from what is left."""
        if self.left is not None and usage is not None:
            self.left -= usage.usd or 0.0


def patient(timeout_s: float) -> Retry:
    """How often a server is asked again where one reply may take so long: within about that time once more."""
    return Retry(attempts=3, base_s=0.5, cap_s=5.0, retry_after_cap_s=timeout_s / 2, deadline_s=timeout_s)


class LanguageModel:
    """The proposer.

    Args:
        provider: answers one request; it is asked again after outages, as `rules` say.
        record: the file that every request and its answer go to before the answer is used.
        repairs: how often a wrong reply goes back.
    """

    def __init__(
        self,
        model: ModelSpec,
        spec: ResearcherSpec,
        provider: Provider,
        record: Path,
        rules: Retry,
        repairs: int = REPAIRS,
    ) -> None:
        self.name = model.called
        self._told, self._spec, self._provider_name = model, spec, model.provider
        self._gate = Gate(provider)
        self._repairs = repairs
        self._record = Recording(Retrying(self._gate, rules), record)

    def can_pay(self, usd: float | None) -> bool:
        """False where one question of the full length may cost more than that."""
        price = self._gate.price
        if usd is None or price is None:
            return usd is None
        # Briefs are counted at three bytes a token, and a byte may be a token.
        read = 3 * (self._spec.context_tokens + BESIDE) + len(self._told.prompt.encode())
        return price.most(read, self._spec.max_tokens) <= usd

    def answer(self, question: Question) -> Asked:
        """Ask. What is wrong with a reply goes back to the model; what is right of the last one is taken."""
        request = self._request(question)
        asked = Asked(
            proposer=self.name,
            provider=self._provider_name,
            model=self._gate.model,
            slot=question.slot,
            key=request.key(self._gate.model),
        )
        reading = question.reading()
        provider = self._record.at(question.slot)
        self._gate.left = question.usd
        self._gate.spend(provider.spent)
        try:
            usage: Usage | None = reading.ask(provider, request, self._repairs)
            failed = None
        except ProviderError as error:
            usage, failed = error.usage, None if reading.sketches else why(error)
        return asked.model_copy(
            update={
                **account(usage),
                "rounds": provider.rounds,
                "seconds": round(provider.seconds, 3),
                "failed": failed,
                "sketches": tuple(reading.sketches),
                "notes": noted(reading.problems),
            }
        )

    def _request(self, question: Question) -> Request:
        own = f"\n\nThe person adds:\n{self._told.prompt}" if self._told.prompt.strip() else ""
        return Request(
            messages=(Message("system", question.system + own), Message("user", question.brief.text)),
            max_tokens=self._spec.max_tokens,
            temperature=self._spec.temperature,
            schema=question.schema(self._spec),
            seed=question.number,
        )


def why(error: ProviderError) -> str:
    """Why nothing came of a question, as the log keeps it."""
    return escaped(" ".join(f"{type(error).__name__}/{error.kind}: {error}".split()))[:NOTE]


def account(usage: Usage | None) -> dict[str, object]:
    """What a question cost, for the ledger. Where no token was used it cost nothing, whatever the price."""
    if usage is None:
        return {}
    return {
        "tokens_in": usage.input,
        "tokens_out": usage.output,
        "usd": usage.usd,
        "estimated": usage.estimated,
    }
