"""Keys: read from the environment when a provider is made, held in memory only, replaced where they would be shown."""

from __future__ import annotations

import logging
import os
import re
import traceback
from typing import Iterable, Mapping

from pydantic import SecretStr

from postgrad.errors import UserError

SHOWN = "[key]"
_SHORTEST = 8  # shorter ones are placeholders such as "none", which are words of the language
# Keys that are known by their form: OpenAI and Anthropic, Google, Hugging Face, Groq, xAI, GitHub, AWS, bearer tokens.
_SHAPES = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{12,}|AIza[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{16,}|gsk_[A-Za-z0-9]{16,}|xai-[A-Za-z0-9]{16,}"
    r"|gh[pousr]_[A-Za-z0-9]{16,}|AKIA[A-Z0-9]{12,})"
    r"|(?<=\bBearer )[A-Za-z0-9._~+/=-]{8,}",
)
_PRINTABLE = re.compile(r"[!-~]+")
# Where the libraries log what they send and get. A filter works on the logger it is put on, not on those below it.
LOGGERS = (
    "openai",
    "openai._base_client",
    "anthropic",
    "anthropic._base_client",
    "httpx2",
    "httpcore2.connection",
    "httpcore2.http11",
    "httpcore2.http2",
    "httpcore2.proxy",
    "httpcore2.socks",
)


class Redactor(logging.Filter):
    """Replaces keys in texts that are about to be shown: those it was told, and whatever has the form of one."""

    def __init__(self, keys: Iterable[SecretStr] = ()) -> None:
        super().__init__()
        self._keys: tuple[SecretStr, ...] = ()
        for key in keys:
            self.add(key)

    def __repr__(self) -> str:
        return f"Redactor({len(self._keys)} keys)"

    def add(self, key: SecretStr) -> None:
        """Replace this key from now on. Longer ones go first: one key may begin like another."""
        if len(key) >= _SHORTEST and key not in self._keys:
            self._keys = tuple(sorted((*self._keys, key), key=len, reverse=True))

    def __call__(self, text: str) -> str:
        """The text without keys."""
        for key in self._keys:
            text = text.replace(key.get_secret_value(), SHOWN)
        return _SHAPES.sub(SHOWN, text)

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean a log record in place, its traceback too. It is always logged."""
        said = record.getMessage()
        clean = self(said)
        if clean != said:
            record.msg, record.args = clean, None
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = self("".join(traceback.format_exception(*record.exc_info)).rstrip())
            record.exc_info = None
        return True

    def watch(self, names: Iterable[str] = LOGGERS) -> None:
        """Clean what these loggers log. Twice does no harm."""
        for name in names:
            logging.getLogger(name).addFilter(self)


class Keys:
    """The keys of this process, by the environment variable they came from."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        self.redactor = Redactor()

    def __repr__(self) -> str:
        return "Keys()"

    def take(self, variable: str) -> SecretStr:
        """The key in this environment variable. From now on the redactor knows it.

        Raises:
            UserError: the variable is not set, or holds what cannot be sent as a key.
        """
        value = self._environment.get(variable, "").strip()
        if not value:
            raise UserError(f"The environment variable {variable} is not set. Put the provider's key into it.")
        if not _PRINTABLE.fullmatch(value):
            raise UserError(
                f"The environment variable {variable} holds spaces or characters that no key has. Set it again, to the "
                "key alone."
            )
        key = SecretStr(value)
        self.redactor.add(key)
        return key
