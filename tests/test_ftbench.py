"""FT-Bench: its data sets in their official formats, the relative gain, its task files, and the benchmark."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import yaml

from postgrad.bench.base import BenchSpec
from postgrad.bench.ftbench import USUAL, FtBench, references
from postgrad.bench.ftbench_table import markdown, rows_of
from postgrad.data import ftbench_files
from postgrad.data.ftbench import PARTS, part_of
from postgrad.data.ftbench_files import RELEASES, WHOLE
from postgrad.data.sources import load_rows, read_source, resolve_source
from postgrad.errors import UserError
from postgrad.evaluate.splits import group_of, metrics_of
from postgrad.evaluate.statistics.relative_gain import fieller, relative_gain
from postgrad.metrics import TEXT_METRICS
from postgrad.metrics.base import Answered
from postgrad.metrics.items import Items, grade
from postgrad.records import Row
from postgrad.spec import load_task

ROOT = Path(__file__).resolve().parent.parent
TASKS = sorted((ROOT / "examples" / "ftbench").glob("*.yaml"))
TEN = {"sst2", "aci-bench", "hoc", "cs-bench", "omebench", "tomg-bench", "openfindata", "econlogicqa", "gta"}


def rows(name: str, part: str) -> tuple[Row, ...]:
    return load_rows(f"ftbench:{name}", input="text", target="answer", part=part, words=True)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder that holds nothing yet, and no other that could be found; known hashes count nothing."""
    monkeypatch.setenv("POSTGRAD_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name, release in RELEASES.items():
        known = {part: tuple(replace(file, sha256=None) for file in of) for part, of in release.files.items()}
        monkeypatch.setitem(RELEASES, name, replace(release, files=known))
    return tmp_path / "data" / "ftbench"


def put(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def everything(name: str) -> list[Row]:
    """The rows of all parts, none of which may be empty of the others' texts. Parts without a row are passed over."""
    found: list[Row] = []
    for part in PARTS:
        try:
            found += rows(name, part)
        except UserError as empty:
            assert "holds no row" in str(empty)
    return found


# --- the real files ---------------------------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("sst2", (6920, 872, 1821)),
        ("aci-bench", (67, 20, 40)),
        ("aci-bench/test2", (67, 20, 40)),
        ("aci-bench/test3", (67, 20, 40)),
        ("hoc", (1341, 167, 344)),
        ("cs-bench", (89, 23, 33)),
        ("lawbench/2-4", (306, 72, 122)),
        ("lawbench/3-1", (295, 77, 128)),
        ("omebench", (117, 23, 56)),
    ],
)
def test_counts_of_the_published_files(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, name: str, counts: tuple[int, ...]
) -> None:
    if not (shared_data / "ftbench").is_dir():
        pytest.skip(f"needs FT-Bench's files: {shared_data / 'ftbench'} is not there")
    monkeypatch.setenv("POSTGRAD_DATA", str(shared_data))
    found = {part: rows(name, part) for part in PARTS}
    assert tuple(len(found[part]) for part in PARTS) == counts
    if RELEASES[name].slices:
        texts = [{group_of(row.id) for row in found[part]} for part in PARTS]
        assert not (texts[0] & texts[1] or texts[0] & texts[2] or texts[1] & texts[2])


@pytest.mark.data
def test_every_lawbench_reference_can_be_scored(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (shared_data / "ftbench").is_dir():
        pytest.skip(f"needs FT-Bench's files: {shared_data / 'ftbench'} is not there")
    monkeypatch.setenv("POSTGRAD_DATA", str(shared_data))
    for file in TASKS:
        task = load_task(file)
        if not task.name.startswith(("ftbench-lawbench", "ftbench-omebench")):
            continue
        metric = TEXT_METRICS.get(task.metric)
        given = [Answered(row.text, row.label, row.label) for row in load_parts_of(task.data.test or "")]
        parts = metric.grade(given)
        assert not np.isnan(parts).any(), task.name
        assert metric.values(parts, np.ones((1, len(given))))[0] == pytest.approx(1.0)


def load_parts_of(source: str) -> tuple[Row, ...]:
    return load_rows(source, input="text", target="answer", part="test", words=True)


# --- hand-made files in the official formats --------------------------------------------------------------------------


def test_sst2_lines(own: Path) -> None:
    put(own / "sst2" / "train.tsv", 'a "quote" never closed\t1\n\nbad film\t0\n')
    assert [(row.text, row.label) for row in rows("sst2", "train")] == [
        ('a "quote" never closed', "1"),
        ("bad film", "0"),
    ]
    put(own / "sst2" / "dev.tsv", "no label here\n")
    with pytest.raises(UserError, match="sst2/dev.tsv is not in the official format"):
        rows("sst2", "dev")


def test_hallmarks_of_an_abstract_are_those_of_its_sentences(own: Path) -> None:
    line = {"pmid": "1", "sentences": ["One .", "Two ."], "labels": [["B--x--y", "NULL"], ["A", "B--z"]]}
    none = {"pmid": "2", "sentences": ["Nothing ."], "labels": [[]]}
    put(own / "hoc" / "hoc.jsonl", f"{json.dumps(line)}\n{json.dumps(none)}\n")
    assert {(row.text, row.label) for row in everything("hoc")} == {("One . Two .", '["A", "B"]'), ("Nothing .", "[]")}


def test_the_archive_of_hallmarks_is_read_as_its_repository_has_it(own: Path) -> None:
    archive = io.BytesIO()
    with ZipFile(archive, "w") as made:
        made.writestr("x-master/text/7.txt", "First .\nSecond .\nThird .\n")
        made.writestr("x-master/labels/7.txt", "< <Sustaining proliferative signaling--Receptors ANDEvading--a--b< ")
        made.writestr("x-master/README.md", "words")
    put(own / "hoc" / "master.zip", archive.getvalue())
    (found,) = everything("hoc")
    assert found.text == "First . Second . Third ."
    assert json.loads(found.label) == ["Evading", "Sustaining proliferative signaling"]


def test_csbench_formats(own: Path) -> None:
    shared = {"Split": "Valid", "Domain": "Data", "SubDomain": "List", "Tag": "Knowledge", "Language": "English"}
    choice = {"ID": 1, "Format": "Multiple-choice", "Question": "Which?", "A": "a", "B": "b", "C": "c", "D": "d"}
    assertion = {"ID": 2, "Format": "Assertion", "Question": "It is.", "Answer": False}
    put(own / "csbench" / "valid.json", json.dumps([{**shared, **choice, "Answer": "B"}, {**shared, **assertion}]))
    (asked,) = everything("cs-bench")
    assert (asked.text, asked.label) == ("Which?\nA. a\nB. b\nC. c\nD. d", "B")
    assert [row.label for row in everything("cs-bench/assertion")] == ["False"]


def test_aci_lawbench_and_omebench(own: Path) -> None:
    note = {"src": "[doctor] hi", "tgt": "CHIEF COMPLAINT\n\nNone.", "file": "D2N001"}
    put(own / "aci-bench" / "valid_full.json", json.dumps({"data": [note]}))
    assert [(row.text, row.label) for row in rows("aci-bench", "dev")] == [(note["src"], note["tgt"])]
    put(own / "lawbench" / "3-3.json", json.dumps([{"instruction": "i", "question": "q", "answer": "罪名:盗窃"}]))
    assert [(row.text, row.label) for row in everything("lawbench/3-3")] == [("q", "罪名:盗窃")]
    step = {"step": 1, "type": "addition", "subtype": "s", "intermediate_smiles": "C", "step_weight": 0.66666}
    reaction = {"reaction_id": "1", "level": "easy", "reactants_smiles": ["C"], "products_smiles": ["CC"]}
    put(own / "omebench" / "oMe_Gold.json", json.dumps([{**reaction, "conditions": "heat", "mechanism": [step]}]))
    (found,) = everything("omebench")
    assert json.loads(found.text) == {"reactants": ["C"], "products": ["CC"], "conditions": "heat"}
    assert json.loads(found.label) == [{"subtype": "s", "intermediate_smiles": "C", "step_weight": 0.667}]


def test_econlogicqa_and_openfindata(own: Path) -> None:
    put(own / "econlogicqa" / "val.csv", 'Question,A,B,C,D,Answer\n"Order, please",a,b,c,d,"C, A, B, D"\n')
    (found,) = rows("econlogicqa", "dev")
    assert (found.text, found.label) == ("Order, please\nA. a\nB. b\nC. c\nD. d", "C, A, B, D")
    archive = io.BytesIO()
    with ZipFile(archive, "w") as made:
        for number, name in enumerate(ftbench_files.OPENFINDATA_TASKS):
            asked = [{"id": 0, "question": f"问题{number}", "A": "甲", "B": "乙", "C": "丙", "answer": "B"}]
            made.writestr(f"openfindata_release/{name}.json", json.dumps(asked))
    put(own / "openfindata" / "openfindata_release.zip", archive.getvalue())
    found_all = everything("openfindata")
    assert len(found_all) == 8 and {row.label for row in found_all} == {"B"}
    assert found_all[0].text.endswith("\nA. 甲\nB. 乙\nC. 丙")
    put(own / "openfindata" / "openfindata_release.zip", b"no archive")
    with pytest.raises(UserError, match="not the published archive"):
        rows("openfindata", "test")


def test_gta_keeps_the_tools_that_the_reference_calls(own: Path) -> None:
    def call(name: str) -> dict[str, Any]:
        return {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": name, "arguments": {}}}]}

    query = {
        "tools": [{"name": "OCR", "description": "Reads text."}, {"name": "Calculator"}],
        "files": [{"type": "image", "path": "image/1.jpg"}],
        "dialogs": [
            {"role": "user", "content": "What is the sum?"},
            *(call("OCR"), {"role": "tool", "name": "OCR", "content": "1 2"}, call("Calculator"), call("OCR")),
            {"role": "assistant", "content": "3"},
        ],
        "gt_answer": {"whitelist": [["3"]], "blacklist": None},
    }
    put(own / "gta" / "dataset.json", json.dumps({"0": query}))
    (found,) = everything("gta")
    assert found.text == "What is the sum?\nFiles: image\nTools:\n- OCR: Reads text.\n- Calculator"
    assert json.loads(found.label) == ["OCR", "Calculator"]


def test_tomg_bench_trains_on_molecules_and_is_asked_for_what_they_must_have(own: Path) -> None:
    put(own / "tomg-bench" / "train.csv", "SubTask,Instruction,molecule\nAtomNum,Two carbons,CC\n")
    assert [(row.text, row.label) for row in rows("tomg-bench", "train")] == [("Two carbons", "CC")]
    for name in ftbench_files.TOMG_SUBTASKS:
        lines = "".join(f"Do {name} {number},CC,hydroxyl\n" for number in range(100))
        put(own / "tomg-bench" / f"{name}.csv", f"Instruction,molecule,added_group\n{lines}")
    found = rows("tomg-bench", "test")
    assert 0 < len(found) < 40
    asked = json.loads(found[0].label)
    assert asked["instruction"] == found[0].text and asked["subtask"] in found[0].text
    assert (asked["molecule"], asked["added_group"]) == ("CC", "hydroxyl")
    texts = [{row.text for row in rows("tomg-bench", part)} for part in ("dev", "test")]
    assert not texts[0] & texts[1]


def test_parts_depend_on_the_text_alone() -> None:
    found = [part_of(f"text {number}", WHOLE) for number in range(4000)]
    shares = {part: found.count(part) / len(found) for part in PARTS}
    assert shares == pytest.approx({"train": 0.6, "dev": 0.15, "test": 0.25}, abs=0.03)
    assert part_of(" Text   7! ", WHOLE) == part_of("text 7", WHOLE)


def test_names_and_parts_that_are_not_there_are_refused(own: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no built-in data set 'ftbench:sst'.*Did you mean 'sst2'.*ftbench:lawbench/3-1"
    ):
        resolve_source("ftbench:sst", tmp_path)
    assert resolve_source("ftbench:gta", tmp_path, "dev") == "ftbench:gta"
    with pytest.raises(UserError, match="has no side part"):
        resolve_source("ftbench:gta", tmp_path, "side")
    with pytest.raises(UserError, match=r"not on this machine.*econ_logic_qa.*POSTGRAD_DATA/ftbench"):
        read_source("ftbench:econlogicqa")


def test_a_changed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRAD_DATA", str(tmp_path))
    put(tmp_path / "ftbench" / "sst2" / "test.tsv", "good\t1\n")
    with pytest.raises(UserError, match="not the published file"):
        rows("sst2", "test")


# --- the relative gain ------------------------------------------------------------------------------------------------


def test_fieller_by_hand() -> None:
    """Without noise it is the ratio; with noise in the gain alone, the ratio of a normal interval."""
    exact = fieller(0.2, 0.4, 0.0, 0.0, 0.0)
    assert (exact.value, exact.low, exact.high) == pytest.approx((0.5, 0.5, 0.5))
    simple = fieller(0.2, 0.4, 0.01**2, 0.0, 0.0)
    assert (simple.low, simple.high) == pytest.approx((0.5 - 1.959964 * 0.01 / 0.4, 0.5 + 1.959964 * 0.01 / 0.4))
    # a = b = 1, both with variance v: r solves (1 - r)^2 = z^2 v (1 + r^2); for z^2 v = 0.2 that is 0.5 and 2.
    both = fieller(1.0, 1.0, 0.2 / 1.959964**2, 0.2 / 1.959964**2, 0.0)
    assert (both.low, both.high) == pytest.approx((0.5, 2.0))


def test_a_denominator_within_noise_gives_no_ratio() -> None:
    found = fieller(0.3, 0.035, 0.001, 0.02**2, 0.0)
    assert (found.value, found.low, found.high) == (None, None, None) and "within noise" in found.warning
    assert fieller(0.1, 0.0, 0.0, 0.0, 0.0).value is None
    assert fieller(math.nan, 0.2, 0.0, 0.0, 0.0).value is None
    below = fieller(0.1, -0.2, 1e-6, 1e-6, 0.0)
    assert below.value == pytest.approx(-0.5) and "below the base" in below.warning


def items(right: list[bool]) -> Items:
    answered = [Answered(str(i), "yes", "yes" if one else "no", 1) for i, one in enumerate(right)]
    names = np.array([str(i) for i in range(len(right))])
    return Items(names, names, grade(answered, ("exact_match",)))


def test_the_relative_gain_of_two_models_is_paired() -> None:
    base, tuned = items([True] * 40 + [False] * 160), items([True] * 100 + [False] * 100)
    metric = TEXT_METRICS.get("exact_match")
    found = relative_gain(metric, tuned, base, 0.6)
    assert found.value == pytest.approx(0.3 / 0.4) and found.low is not None and found.high is not None
    assert 0.5 < found.low < 0.75 < found.high < 1.0
    assert relative_gain(metric, tuned, base, 0.21).value is None
    unsure = relative_gain(metric, tuned, base, 0.6, error=0.05)
    assert unsure.high is not None and unsure.high > found.high
    assert relative_gain(metric, tuned, base, 0.6, error=0.3).value is None


def test_reference_scores_are_of_our_metric_or_of_none() -> None:
    known = references()
    assert set(known) == {"aci-bench", "tomg-bench", "econlogicqa", "gta"}
    for name, line in known.items():
        assert float(line["base"]) < float(line["reference"]) and line["source"]
        task = load_task(ROOT / "examples" / "ftbench" / f"{name}.yaml")
        assert line["metric"] in (task.metric, ""), name


# --- task files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", TASKS, ids=lambda file: file.stem)
def test_task_files_load(file: Path) -> None:
    task = load_task(file)
    assert task.name == f"ftbench-{file.stem}"
    name = str(task.data.train).removeprefix("ftbench:")
    assert {task.data.train, task.data.dev, task.data.test} == {f"ftbench:{name}"} and name in RELEASES
    assert (task.data.input, task.data.target) == ("text", "answer")
    if task.kind == "generation" and (find_spec("rdkit") or task.metric != "tomg_success"):
        assert task.metric in metrics_of(task.metric)


def test_all_ten_tasks_have_a_file() -> None:
    stems = {file.stem for file in TASKS}
    assert stems >= TEN and set(USUAL) <= stems
    assert {f"lawbench-{name.split('/')[1]}" for name in RELEASES if name.startswith("lawbench/")} == stems - TEN


# --- the benchmark ----------------------------------------------------------------------------------------------------


def spec(tmp_path: Path, **options: str) -> BenchSpec:
    given = {key: default for key, (default, _) in FtBench.options.items()}
    given |= {"tasks": str(tmp_path / "tasks"), "budget": "2 experiments", **options}
    return BenchSpec(quick=False, folder=tmp_path / "runs", command="postgrad bench ftbench", options=given)


def tiny_tasks(own: Path, tmp_path: Path) -> None:
    """SST-2's task file without a base model, on sentences that a word tells apart, and one whose data is not here."""
    for part, count in (("train", 60), ("dev", 30), ("test", 40)):
        lines = (f"{part} {n} {('awful', 'lovely')[n % 2]} film{n * 7}\t{n % 2}\n" for n in range(count))
        put(own / "sst2" / f"{part}.tsv", "".join(lines))
    (tmp_path / "tasks").mkdir()
    for name in ("sst2", "gta"):
        fields = yaml.safe_load((ROOT / "examples" / "ftbench" / f"{name}.yaml").read_text(encoding="utf-8"))
        if name == "sst2":
            fields |= {"base_models": [], "engine": {"workers": 1, "threads": 1, "sandbox": "none"}}
        (tmp_path / "tasks" / f"{name}.yaml").write_text(yaml.safe_dump(fields), encoding="utf-8")


def test_the_benchmark_runs_what_is_here_keeps_it_and_says_why_it_skips(own: Path, tmp_path: Path) -> None:
    tiny_tasks(own, tmp_path)
    said: list[str] = []
    first = FtBench().run(spec(tmp_path, only="sst2,gta"), said.append)
    done, skipped = first["tasks"]
    assert (done["task"], done["status"]) == ("sst2", "done")
    assert done["winner"] == "baseline", "two experiments are the constant and the baseline, which is the champion"
    assert done["rows"] == 40 and done["scores"]["champion"]["value"] > 0.8
    assert done["difference"] is None and done["relative_gain"] is None, "there is no base model to compare with"
    assert skipped["status"] == "skipped" and "not on this machine" in skipped["reason"]
    assert first["table"][1]["best"] == "skipped" and "**gta**: skipped." in first["markdown"]
    assert "**sst2**: `postgrad run" in first["markdown"]
    said.clear()
    again = FtBench().run(spec(tmp_path, only="sst2"), said.append)
    assert "  done before" in said
    assert again["tasks"] == first["tasks"], "what is done is not done again, and other tasks are kept"
    with pytest.raises(UserError, match="another task file or budget"):
        FtBench().run(spec(tmp_path, only="sst2", budget="3 experiments"), said.append)


def test_tasks_and_folders_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no task file.*--tasks"):
        FtBench().run(spec(tmp_path), print)
    there = {"tasks": str(ROOT / "examples" / "ftbench"), "only": "lawbench/3-9"}
    with pytest.raises(UserError, match="no task 'lawbench-3-9'.*lawbench-3-8"):
        FtBench().run(spec(tmp_path, **there), print)


def test_the_page_shows_difference_and_relative_gain() -> None:
    estimate = {"value": 0.25, "low": 0.2, "high": 0.3, "n": 40}
    task: dict[str, Any] = {
        **{
            "task": "aci-bench",
            "metric": "rouge1",
            "base_model": "package:x",
            "budget": "10 minutes",
            "status": "done",
        },
        **{"run": "postgrad run a.yaml", "rows": 40, "experiments": 7, "failed_experiments": 1, "certified": False},
        "scores": {"champion": estimate, "base_model": {**estimate, "value": 0.2}},
        "champion": {"experiment": "e5", "kind": "draft.lm_lora"},
        **{"winner": "champion", "seconds": 600.0, "asked_afterwards": ["base_model"]},
        "not_asked": {"few_shot": "the examples do not fit"},
        "difference": {"value": 0.05, "low": 0.01, "high": 0.09},
        "relative_gain": {
            "value": 1.25,
            "low": 0.5,
            "high": 3.0,
            "warning": "",
            "reference": references()["aci-bench"],
        },
    }
    (row,) = rows_of([task])
    assert row["tuned - base [95 %]"] == "+0.050 [+0.010, +0.090]"
    assert row["relative gain [95 %]"] == "+125 % [+50, +300]" and row["few-shot base"] is None
    page = markdown([task])
    assert "no room: base_model" in page and "few_shot has no score: the examples do not fit" in page
    assert "| aci-bench | rouge1 |" in page and "Qwen3-235B-2507" in page and "too few test rows" in page
    task["relative_gain"] |= {"value": None, "warning": "within noise"}
    assert rows_of([task])[0]["relative gain [95 %]"] == "undefined"
