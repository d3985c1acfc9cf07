"""Who proposes, where that is not one of the project's own: language models, or a program of the user."""

from __future__ import annotations

from typing import Literal

from postgrad.records.base import Record


class Rates(Record):
    """Dollars per million tokens. Cached and written input cost as much as other input where nothing is said."""

    input: float
    output: float
    cached_input: float | None = None
    written_input: float | None = None


class ModelSpec(Record):
    """One language model, and how it is reached. No key is in it, only the name of the variable that holds one.

    Attributes:
        name: what its proposals are signed with; PROVIDER/MODEL where it is not set.
        provider: a name of `docs/providers.md`.
        model: as the provider calls it.
        base_url: of the service; None takes the provider's own.
        key_env: the environment variable with the key; None takes the provider's own.
        price: None takes the known price of the model.
        prompt: words of the user that are added to what every model is told.
        path: the file of `recorded` and `scripted`.
        stream: False asks for replies in one piece.
        schema_by: `prompt` puts the reply's JSON schema into the prompt at once.
    """

    name: str | None = None
    provider: str
    model: str = ""
    base_url: str | None = None
    key_env: str | None = None
    price: Rates | None = None
    prompt: str = ""
    path: str | None = None
    stream: bool = True
    schema_by: Literal["auto", "prompt"] = "auto"

    @property
    def called(self) -> str:
        """What its proposals are signed with."""
        return self.name or (f"{self.provider}/{self.model}" if self.model else self.provider)


class ResearcherSpec(Record):
    """Who proposes beside the playbook, or in its place.

    Attributes:
        kind: `language_model` for `models`, `command` for a program, `outside` for whoever puts ideas in by `inbox` or
            `mcp`.
        command: the program with its arguments.
        env: names of environment variables that it is given beside a few that are no keys.
        alone: the playbook competes with the others where this is False, and only fills in for them where it is True.
        notes: what the person noted of the literature, as text; quoted in what is told.
        context_tokens: of what is told about the run, however large that is.
        examples: train rows that are quoted in it.
        form: `moves` has a proposal be one open move with its reasons, for models that are lost in more.
        proposals: asked for at once; those that are not used at once are kept.
        bad_cases: the first model is asked, once at the end of the search, for words on what goes wrong.
        max_tokens: of a reply, hidden reasoning included.
        wait_s: how long a run waits for an idea from outside before the playbook proposes in its place.
        timeout_s: for one reply. Under a budget of time it is at most a twentieth of that.
    """

    kind: Literal["language_model", "command", "outside"]
    models: tuple[ModelSpec, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    alone: bool = False
    notes: str = ""
    context_tokens: int = 8000
    examples: int = 5
    form: Literal["full", "moves"] = "full"
    proposals: int = 3
    bad_cases: bool = True
    max_tokens: int = 2048
    temperature: float | None = None
    timeout_s: float = 60.0
    wait_s: float = 600.0

    @property
    def called(self) -> str:
        """Who that is, in words."""
        who = " ".join(self.command) if self.kind == "command" else ", ".join(model.called for model in self.models)
        return f"{self.kind} ({who})" if who else self.kind


def called(researcher: str | ResearcherSpec) -> str:
    """Who proposes, in words."""
    return researcher if isinstance(researcher, str) else researcher.called
