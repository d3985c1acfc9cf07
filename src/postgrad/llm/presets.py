"""Services that speak OpenAI's chat-completions protocol, as data, and the way from settings to a provider."""

from __future__ import annotations

from dataclasses import dataclass

from postgrad.errors import UserError, near_miss
from postgrad.llm import PROVIDERS
from postgrad.llm.base import Price, Provider, Settings
from postgrad.llm.keys import Keys

FREE = Price(input=0.0, output=0.0)


@dataclass(frozen=True)
class Preset:
    """Where a service is.

    Attributes:
        key_env: the environment variable its users keep the key in; None where it asks for none.
        price: of every model there; None where it depends on the model.
    """

    base_url: str
    key_env: str | None = None
    price: Price | None = None


PRESETS = {
    "openai": Preset("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "google": Preset("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "mistral": Preset("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "openrouter": Preset("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "ollama": Preset("http://127.0.0.1:11434/v1", price=FREE),
    "vllm": Preset("http://127.0.0.1:8000/v1", price=FREE),
    "llama.cpp": Preset("http://127.0.0.1:8080/v1", price=FREE),
}


def filled(settings: Settings) -> Settings:
    """Settings with what the preset of their provider says; other providers' as they are.

    The key's variable goes with the preset's address: at another address it has to be named, so that no key is sent to
    a server it was not made for.
    """
    preset = PRESETS.get(settings.provider)
    if preset is None:
        return settings
    elsewhere = settings.base_url is not None and settings.base_url.rstrip("/") != preset.base_url
    return settings.model_copy(
        update={
            "base_url": settings.base_url or preset.base_url,
            "key_env": settings.key_env or (None if elsewhere else preset.key_env),
            "price": settings.price or preset.price,
        }
    )


def connect(settings: Settings, keys: Keys) -> Provider:
    """The provider that the settings name. Nothing is sent yet.

    Raises:
        UserError: no provider has this name, the settings are not complete, the key is not set, or a library is
            missing.
    """
    name = settings.provider
    known = sorted({*PROVIDERS.names(), *PRESETS})
    if name not in known:
        raise UserError(f"Unknown provider '{name}'.{near_miss(name, known)} Known: {', '.join(known)}.")
    kind = "openai_compatible" if name in PRESETS else name
    return PROVIDERS.get(kind).connect(filled(settings), keys)
