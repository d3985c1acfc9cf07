"""Who plays a benchmark: a policy by name, with settings of its own: `posterior[numbers=0;priced=false]`."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from postgrad.errors import UserError
from postgrad.search import POLICIES

_WRITTEN = re.compile(r"([a-z_0-9]+)(?:\[([^\[\]]*)\])?")


class Player(NamedTuple):
    """A policy and the settings that differ from its own; `written` is what the tables call it."""

    written: str
    policy: str
    params: dict[str, Any]


def player(written: str) -> Player:
    """Read one player.

    Raises:
        UserError: there is no such policy or setting, or a value is not allowed.
    """
    found = _WRITTEN.fullmatch(written.strip())
    if not found:
        raise UserError(f"Got the policy {written!r}. Expected a name, or a name with settings: posterior[numbers=0].")
    params = dict(_setting(written, part) for part in (found[2] or "").split(";") if part.strip())
    try:
        POLICIES.get(found[1]).Params.model_validate(params)
    except ValidationError as wrong:
        first = wrong.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"Settings of {written}: {where}: {first['msg'].lower()}.") from wrong
    return Player(written.strip(), found[1], params)


def _setting(written: str, part: str) -> tuple[str, Any]:
    name, equals, value = part.partition("=")
    if not equals:
        raise UserError(f"Got {part!r} in {written}. Expected NAME=VALUE, several with semicolons.")
    return name.strip(), yaml.safe_load(value)
