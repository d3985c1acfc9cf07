"""The JSON schema of one reply: only what is open can be named, so that a server that holds its model to it cannot err
in names. What a schema does not say (ranges, what goes together, what is new) is checked afterwards."""

from __future__ import annotations

import re
from typing import Any, Sequence

from postgrad.records import ResearcherSpec
from postgrad.research.brief import Brief
from postgrad.research.ideas import Ask, recipe_of
from postgrad.research.menu import Item, open_bases, open_steps
from postgrad.research.proposing import WORDS, Reply

SHORTEST = 40
_EXPERIMENT = re.compile(r"\be\d{4,}\b")


def schema_of(ask: Ask, told: Brief, menu: Sequence[Item], most: int, spec: ResearcherSpec) -> dict[str, Any]:
    """The schema of a reply to a question. Experiments that the brief names are those that can be evidence; texts may
    be as long as leaves room for the rest of the reply, at one character a token."""
    schema = Reply.model_json_schema()
    schema["properties"]["proposals"]["maxItems"] = most
    parts = schema["$defs"]
    suggestion = parts["Suggestion"]
    fields = suggestion["properties"]
    for words in ("hypothesis", "refuted_by"):
        fields[words]["maxLength"] = max(SHORTEST, min(WORDS, spec.max_tokens // (3 * most)))
    only_moves = spec.form == "moves" and bool(menu)
    names: list[str | None] = [item.name for item in menu]
    if ask.parent is None or only_moves:
        suggestion["required"].insert(0, "move")
    else:
        names.append(None)
    fields["move"] = {"enum": names, "description": fields["move"]["description"]}
    if only_moves:
        suggestion["properties"] = {name: fields[name] for name in suggestion["required"]}
        for part in ("Given", "Range", "NewStep"):
            del parts[part]
        return schema
    if addable := list(open_steps(ask)):
        fields["add_steps"]["items"] = _named(parts["NewStep"], addable, "op")
    else:
        del fields["add_steps"], parts["NewStep"]
    held(fields, "remove_steps", [step.op for step in recipe_of(ask.parent).data] if ask.parent else [])
    held(fields, "evidence", named_in(told, ask))
    fields["base_model"] = {
        "enum": [*dict.fromkeys(open_bases(ask)), None],
        "description": fields["base_model"]["description"],
    }
    return schema


def named_in(told: Brief, ask: Ask) -> list[str]:
    """The experiments that a brief names, in its order."""
    return [name for name in dict.fromkeys(_EXPERIMENT.findall(told.text)) if name in ask.tree.experiments]


def _named(part: dict[str, Any], names: Sequence[str], key: str = "name") -> dict[str, Any]:
    """The same object with one of these names."""
    return {**part, "properties": {**part["properties"], key: {"enum": list(dict.fromkeys(names))}}}


def held(fields: dict[str, Any], field: str, names: Sequence[str]) -> None:
    """Hold the texts of a list to these. Without any it is left out: llama.cpp does not heed a `maxItems` of 0."""
    if names:
        fields[field]["items"] = {"enum": list(dict.fromkeys(names))}
    else:
        del fields[field]
