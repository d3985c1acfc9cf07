"""A program of the user's as a recipe: which version of its files is run. No worker of ours trains it."""

from __future__ import annotations

from pathlib import Path
from typing import Mapping

from postgrad.errors import UserError
from postgrad.records import Dimension, Record, Value
from postgrad.train.base import CheckFailed, FitJob, Fitted


class ScriptParams(Record):
    """`tree` names the content of all files, as git does; "" is the source as it was given."""

    tree: str = ""


class Script:
    """The backend."""

    seeded = True
    answers = frozenset({"scores"})
    Params = ScriptParams

    def space(self, params: Mapping[str, Value]) -> dict[str, Dimension]:
        return {}

    def nominal_cost(self, params: Mapping[str, Value], rows: int, texts: int) -> float:
        return 1.0

    def fit(self, job: FitJob) -> Fitted:
        raise CheckFailed("script", "A script is run as it is, and not by a training worker.")

    def load(self, folder: Path) -> Fitted:
        raise UserError(f"{folder} is what a script left: run its own code on it, which lies beside it.")
