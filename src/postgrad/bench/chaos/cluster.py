"""The cluster of processes as an engine that a controller finds by its name, and that can be out of reach."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

from postgrad.engines.local import WORKER
from postgrad.engines.remote.cluster import Capacity, Unreachable
from postgrad.engines.remote.engine import RemoteEngine
from postgrad.errors import UserError
from postgrad.records import EngineSpec
from postgrad.testing.nodes import Processes

KIND, AWAY = "chaos", "away"


class Shaky(Processes):
    """Out of reach while a file named `away` lies in its folder, which is `engine.address`."""

    def open(self, spec: EngineSpec) -> Capacity:
        self.folder = Path(spec.address or ".")
        if (self.folder / AWAY).exists():
            raise UserError("The cluster does not answer. Go on when it is back: postgrad resume")
        return super().open(spec)

    def _reach(self) -> None:
        if (self.folder / AWAY).exists():
            raise Unreachable("the cluster is out of reach")

    def names(self) -> list[str]:
        """Every job that it has not forgotten."""
        return sorted(path.name.removesuffix(".json") for path in self.folder.glob("*.json"))

    def forget(self) -> None:
        """Know no job any more, as after a restart without a database."""
        for name in self.names():
            (self.folder / name).unlink(missing_ok=True)
            (self.folder / f"{name}.json").unlink(missing_ok=True)


class ShakyEngine(RemoteEngine):
    """Jobs on it. It says at once what became of a job."""

    def __init__(self, command: Sequence[str] = WORKER) -> None:
        super().__init__(Shaky(Path()), command)
        self.grace_s, self.ask_s = 1.0, 0.2
