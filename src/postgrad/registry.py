"""Name -> plug-in, looked up when it is first used.

Each plug-in folder's `__init__.py` holds one `Registry` with a table of names to dotted paths. Outside packages add
their own with an entry point in the registry's group; an unknown name lists the known ones.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, Mapping, TypeVar

from postgrad.errors import UserError, near_miss

T = TypeVar("T")


class Registry(Generic[T]):
    """Lazy table of one kind of plug-in.

    Args:
        kind: what the plug-ins are called in messages, e.g. "policy".
        group: entry-point group that outside packages use, e.g. "postgrad.policies".
        table: name -> "package.module:attribute".
    """

    def __init__(self, kind: str, group: str, table: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._table = dict(table)

    def _paths(self) -> dict[str, str]:
        return {**_outside(self.group, tuple(sys.path)), **self._table}

    def names(self) -> tuple[str, ...]:
        """Every known name, sorted."""
        return tuple(sorted(self._paths()))

    def is_own(self, name: str) -> bool:
        """True for a plug-in of the project itself, False for one that another package brings."""
        return name in self._table

    def module(self, name: str) -> str:
        """The dotted path of the module that a known name is in; nothing is imported."""
        return self._paths()[name].partition(":")[0]

    def get(self, name: str) -> T:
        """Return the plug-in called `name`, an instance.

        Raises:
            UserError: the name is unknown, or a library that the plug-in needs is not installed.
        """
        paths = self._table if name in self._table else self._paths()
        if name not in paths:
            hint = near_miss(name, paths)
            raise UserError(f"Unknown {self.kind} '{name}'.{hint} Known: {', '.join(sorted(paths))}.")
        module, _, attribute = paths[name].partition(":")
        try:
            made: Any = getattr(sys.modules.get(module) or import_module(module), attribute)()
        except ModuleNotFoundError as missing:
            raise UserError(
                f"The {self.kind} '{name}' needs the library '{missing.name}', which is not installed. "
                f"Install it with: pip install 'postgrad[train]'."
            ) from missing
        plugin: T = made
        return plugin


@lru_cache(maxsize=64)
def _outside(group: str, path: tuple[str, ...]) -> dict[str, str]:
    """What installed packages bring, by name. Reading it takes milliseconds, at every experiment."""
    return {point.name: point.value for point in entry_points(group=group)}
