"""`postgrad bench engines`: what an engine adds to empty jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from postgrad.bench.base import BenchSpec
from postgrad.bench.engines import Engines
from postgrad.errors import UserError


def spec(folder: Path, engine: str) -> BenchSpec:
    return BenchSpec(quick=True, folder=folder, command="", options={"engine": engine, "jobs": "8"})


def test_this_machine_is_measured(tmp_path: Path) -> None:
    (row,) = Engines().run(spec(tmp_path, "local"), lambda text: None)["table"]
    assert (row["engine"], row["jobs"]) == ("local", 2)
    assert 0 < row["least_s"] <= row["median_s"] <= row["most_s"]


def test_a_relative_folder_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the command line has it."""
    monkeypatch.chdir(tmp_path)
    assert Engines().run(spec(Path("bench-runs"), "local"), lambda text: None)["table"]


@pytest.mark.parametrize(
    ("engine", "advice"),
    [
        ("{kind: [ray", "expected an engine as in a task file"),
        ("{kind: ray, addres: x}", "expected an engine as in a task file"),
        ("{kind: ray}", "engine.address is missing"),
        ("nowhere", "Unknown engine 'nowhere'"),
    ],
)
def test_what_is_no_engine(tmp_path: Path, engine: str, advice: str) -> None:
    with pytest.raises(UserError, match=advice):
        Engines().run(spec(tmp_path, engine), lambda text: None)
