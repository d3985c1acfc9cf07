"""The benchmarks of language model trainings: turns, ratios, intervals."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from postgrad.bench import BENCHMARKS, stages, throughput
from postgrad.bench.base import BenchSpec
from postgrad.testing.language import make_tiny_lm

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def _spec(name: str, folder: Path, **options: str) -> BenchSpec:
    known = {key: default for key, (default, _) in BENCHMARKS.get(name).options.items()}
    return BenchSpec(quick=True, folder=folder, command="bench", options={**known, **options})


def _measured(tokens: float, peak: float) -> dict[str, Any]:
    return {"tokens": tokens, "seconds": 1.0, "peak_mb": peak, "losses": [1.0]}


def test_ratios_are_to_the_better_rival_of_the_same_round() -> None:
    found = {
        "full/postgrad": [_measured(100, 50), _measured(400, 60)],
        "full/plain": [_measured(50, 100), _measured(400, 100)],
        "full/trl": [_measured(25, 200), _measured(100, 40)],
    }
    line = throughput._line(found, "full", "postgrad", False)
    # 100 / 50 and 400 / 400; 50 / 100 and 60 / 40.
    assert line["to the faster rival"] == 1.41 and (line["lowest"], line["highest"]) == (1.0, 2.0)
    assert line["to the leaner rival"] == 0.87


def test_the_difference_of_arms_is_paired_by_item() -> None:
    better = [{"grades": [1.0, 1.0, 0.0, 1.0] * 50}]
    worse = [{"grades": [1.0, 0.0, 0.0, 1.0] * 50}]
    gap, low, high = (float(word.strip("[],")) for word in stages._above(better, worse).split())
    assert gap == 0.25 and 0.18 < low < 0.25 < high < 0.32
    assert stages._above(better, better) == "-"


def test_the_longer_arm_trains_on_as_many_rows_as_grpo() -> None:
    made = stages.arms(2, 300, 1e-4, 24)
    drawn = 24 * stages.PROMPTS * stages.SAMPLES
    assert 0.5 < made["SFT, longer"]["then"][0]["epochs"] * 300 / drawn < 1.5
    assert {json.dumps({**arm, "then": 0}) for arm in made.values()} == {json.dumps({**made["SFT"], "then": 0})}


@pytest.mark.slow
def test_contenders_learn_the_same_from_the_same_batches(tmp_path: Path) -> None:
    rows = [{"text": f"the {c} {t}", "answer": c} for c in ("red", "blue", "green") for t in ("car", "hat", "pen")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 4))
    make_tiny_lm(tmp_path / "lm", [row["text"] for row in rows])
    task = tmp_path / "task.yaml"
    task.write_text(
        "name: tiny\nobjective: colours\nkind: generation\ndata: {train: rows.jsonl, input: text, target: answer}\n"
        "metric: exact_match\nbase_models: ['path:lm']\n"
    )
    spec = _spec("throughput", tmp_path / "work", task=str(task), batch="4", tune="full", threads="1")
    result = BENCHMARKS.get("throughput").run(spec, lambda text: None)
    last = {name: each[0]["losses"][-1] for name, each in result["measured"].items()}
    assert last["full/plain"] == pytest.approx(last["full/trl"], rel=0.01)
    assert last["full/plain"] == pytest.approx(last["full/postgrad"], rel=0.01)
    assert len(result["table"]) == 4 and len(list((tmp_path / "work").glob("*.json"))) == 4


@pytest.mark.slow
@pytest.mark.skipif(find_spec("reasoning_gym") is None, reason="needs the extra gym")
def test_arms_are_trained_once_and_compared(tmp_path: Path) -> None:
    make_tiny_lm(tmp_path / "lm", ["What is 12 + 3?", "State the final answer to the following: 4 - 1 = "])
    spec = _spec("stages", tmp_path / "work", base=f"path:{tmp_path / 'lm'}", tokens="4", threads="1")
    told: list[str] = []
    first = BENCHMARKS.get("stages").run(spec, told.append)
    again = BENCHMARKS.get("stages").run(spec, told.append)
    assert first == again and len(first["table"]) == 3 and len(told) == 6
