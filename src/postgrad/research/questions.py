"""What a proposer is asked, whatever is to be changed: recipes, or the files of a script."""

from __future__ import annotations

from typing import Any, Protocol, Sequence

from postgrad.llm.base import Provider, Request, Usage
from postgrad.records import ResearcherSpec, Sketch
from postgrad.research.brief import Brief


class Reading(Protocol):
    """Asks for replies of one form, and checks them.

    Attributes:
        sketches: what can be tried of the last reply of which anything could be.
        problems: what was wrong with the last one.
    """

    sketches: list[Sketch]
    problems: Sequence[str]

    def ask(self, provider: Provider, request: Request, repairs: int) -> Usage:
        """Ask; what is wrong goes back so often.

        Raises:
            ProviderError: there is no usable reply, with the usage of all rounds.
        """
        ...


class Question(Protocol):
    """One question."""

    @property
    def slot(self) -> str:
        """Names the question within its run: a run that was killed asks it under the same name again."""
        ...

    @property
    def usd(self) -> float | None:
        """Dollars that may be spent on it; None where they are not counted."""
        ...

    @property
    def number(self) -> int:
        """Of the experiment that it is asked for."""
        ...

    @property
    def brief(self) -> Brief:
        """What is told of the run."""
        ...

    @property
    def system(self) -> str:
        """Who a model is, and how it is to reply."""
        ...

    def schema(self, spec: ResearcherSpec) -> dict[str, Any]:
        """The JSON schema of the reply."""
        ...

    def context(self, spec: ResearcherSpec) -> dict[str, object]:
        """What a program gets in place of a prompt, as data for JSON."""
        ...

    def reading(self) -> Reading:
        """A new reading of its replies."""
        ...
