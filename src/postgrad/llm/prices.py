"""What well-known models cost, in dollars per million tokens. Prices change: `price` in the settings goes first.

Read in November 2026 from public pages that quote the services' own price lists; `seen` is the day that such a page
gives. Where a service bills long prompts higher (Gemini Pro from 200,000 tokens, Claude Haiku 5.5 from 100,000, GPT-6
from 272,000), the table has the price below that, which is where requests of this project are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from postgrad.llm.base import Price


@dataclass(frozen=True)
class Listed:
    """One line of the table. `seen`: when that was the price, as YYYY-MM-DD."""

    price: Price
    seen: str


def _listed(seen: str, read: float, write: float, cached: float | None = None, stored: float | None = None) -> Listed:
    return Listed(Price(input=read, output=write, cached_input=cached, written_input=stored), seen)


TABLE = {
    ("anthropic", "claude-fable-5-1"): _listed("2026-10-01", 10.0, 50.0, 0.25, 12.5),
    ("anthropic", "claude-opus-5-5"): _listed("2026-09-23", 4.0, 20.0, 0.2, 5.0),
    ("anthropic", "claude-opus-5"): _listed("2026-07-24", 5.0, 25.0, 0.5, 6.25),
    ("anthropic", "claude-sonnet-5-5"): _listed("2026-10-24", 2.0, 10.0, 0.1, 2.5),
    ("anthropic", "claude-sonnet-5"): _listed("2026-10-10", 2.0, 10.0, 0.2, 2.5),
    ("anthropic", "claude-haiku-5-5"): _listed("2026-10-24", 0.1, 0.5, 0.01, 0.125),
    ("anthropic", "claude-haiku-4-5"): _listed("2026-10-10", 1.0, 5.0, 0.1, 1.25),
    ("openai", "gpt-6-astra"): _listed("2026-09-07", 10.0, 50.0, 1.0),
    ("openai", "gpt-6.1-sol"): _listed("2026-10-01", 2.0, 10.0, 0.1, 2.5),
    ("openai", "gpt-6-sol"): _listed("2026-09-23", 2.0, 10.0, 0.2, 2.5),
    ("openai", "gpt-6-luna"): _listed("2026-09-23", 0.1, 0.5, 0.01, 0.125),
    ("google", "gemini-3.5-flash"): _listed("2026-10-07", 1.5, 9.0),
    ("google", "gemini-3.5-flash-lite"): _listed("2026-10-07", 0.3, 2.5),
}
_DATED = re.compile(r"-(?:\d{8}|\d{4}-\d{2}-\d{2})$")


def price_of(provider: str, model: str) -> Price | None:
    """The price of a model at a service; a date at the end of the name is left aside. None where it is not known."""
    found = TABLE.get((provider, model)) or TABLE.get((provider, _DATED.sub("", model)))
    return found.price if found else None
