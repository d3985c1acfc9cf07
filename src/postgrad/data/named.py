"""The data sets that have names instead of paths: one file each, one line here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Mapping, Sequence

from postgrad.data import ftbench, gym, hint3, hub
from postgrad.data.files import Table, read_file
from postgrad.errors import UserError


@dataclass(frozen=True)
class NamedSource:
    """One kind of name.

    Attributes:
        check: (source, root, part) -> the name as a task keeps it. Refuses a name or a part that is not there, with a
            `UserError`, and reads nothing.
        read: (source, root, part, columns) -> the rows of a part; `columns` are those that are needed, None for all.
        is_one: (source, root) -> whether a source without the prefix is such a name.
    """

    check: Callable[[str, Path, str], str]
    read: Callable[[str, Path, str, Sequence[str] | None], Table]
    is_one: Callable[[str, Path], bool] = lambda source, root: False


def _check_hint3(source: str, root: Path, part: str) -> str:
    hint3.check_hint3(source, part)
    return source


def _read_hint3(source: str, root: Path, part: str, columns: Sequence[str] | None) -> Table:
    return read_file(hint3.hint3_file(source, part), columns)


def _reference(source: str, root: Path) -> hub.HubReference:
    found = hub.parse_hub(source, root)
    if found is None:
        raise UserError(f"'{source}' is no data set of the Hub. Expected hub:ORG/NAME or hub:FOLDER.")
    return found


def _check_hub(source: str, root: Path, part: str) -> str:
    return str(_reference(source, root))


def _read_hub(source: str, root: Path, part: str, columns: Sequence[str] | None) -> Table:
    return hub.read_hub(_reference(source, root), part)


def _check_gym(source: str, root: Path, part: str) -> str:
    gym.check_gym(source, part)
    return source


def _read_gym(source: str, root: Path, part: str, columns: Sequence[str] | None) -> Table:
    return gym.read_gym(source, part)


HUB = NamedSource(_check_hub, _read_hub, is_one=lambda source, root: hub.parse_hub(source, root) is not None)

#: prefix -> what is behind it
SOURCES: Mapping[str, NamedSource] = {
    hint3.PREFIX: NamedSource(_check_hint3, _read_hint3),
    ftbench.PREFIX: NamedSource(ftbench.check_ftbench, ftbench.read_ftbench),
    gym.PREFIX: NamedSource(_check_gym, _read_gym),
    hub.PREFIX: HUB,
}
