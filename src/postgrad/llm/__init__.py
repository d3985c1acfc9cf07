"""Providers of text: one file each, one line here. `presets.py` has the services that speak OpenAI's protocol."""

from postgrad.llm.base import Connector
from postgrad.registry import Registry

PROVIDERS: Registry[Connector] = Registry(
    "provider",
    "postgrad.providers",
    {
        "openai_compatible": "postgrad.llm.openai_compatible:OpenAICompatibleConnector",
        "anthropic": "postgrad.llm.anthropic:AnthropicConnector",
        "in_process": "postgrad.llm.in_process:InProcessConnector",
        "scripted": "postgrad.llm.scripted:ScriptedConnector",
        "recorded": "postgrad.llm.recorded:RecordedConnector",
    },
)
