"""Task files: reading, all problems at once, writing, comparing, the schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from postgrad.errors import UserError
from postgrad.records import Budget, EngineSpec, Guard, ResearcherSpec, SearchSpec, TaskSpec
from postgrad.spec import (
    DEFAULT_BASE_MODEL,
    load_task,
    task_changes,
    task_fingerprint,
    task_schema,
    write_task,
)

ROOT = Path(__file__).resolve().parent.parent
MINIMAL: dict[str, Any] = {"objective": "Route messages.", "data": {"train": "train.csv"}, "base_models": []}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with data files, one of them a test file."""
    for name in ("train.csv", "test.csv"):
        (tmp_path / name).write_text("text,label\na,A\nb,B\n")
    return tmp_path


def write(folder: Path, fields: dict[str, Any] | str, name: str = "task.yaml") -> Path:
    path = folder / name
    path.write_text(fields if isinstance(fields, str) else yaml.safe_dump(fields))
    return path


def _in(folder: Path, value: object) -> object:
    return value.replace("{folder}", folder.name) if isinstance(value, str) else value


def problems_of(folder: Path, fields: dict[str, Any] | str) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_task(write(folder, fields))
    return str(caught.value).split("\n")[1:]


def test_defaults_are_filled_in(folder: Path) -> None:
    task = load_task(write(folder, MINIMAL))
    assert task.name == folder.name
    assert (task.kind, task.metric, task.researcher, task.seed) == ("classification", "macro_f1", "playbook", 0)
    assert task.data.train == str(folder / "train.csv")
    assert (task.data.input, task.data.target, task.data.out_of_scope) == ("text", "label", None)
    assert task.budget == Budget(wall_s=1200.0)
    assert (task.search, task.engine) == (SearchSpec(), EngineSpec())
    assert load_task(write(folder, MINIMAL, "intents.yaml")).name == "intents"


def test_metric_follows_the_out_of_scope_label(folder: Path) -> None:
    data = {"train": "train.csv", "out_of_scope": 7}
    task = load_task(write(folder, {**MINIMAL, "data": data}))
    assert (task.metric, task.data.out_of_scope) == ("mcc", "7")


def test_default_base_model(folder: Path, minilm: Path) -> None:
    fields = {key: value for key, value in MINIMAL.items() if key != "base_models"}
    assert load_task(write(folder, fields)).base_models == (DEFAULT_BASE_MODEL,)


def test_everything_said(folder: Path) -> None:
    model = folder / "models" / "m"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"x")
    task = load_task(
        write(
            folder,
            {
                "name": "shop-1",
                "objective": "Route.",
                "kind": "classification",
                "data": {"train": "train.csv", "test": "test.csv", "out_of_scope": "oos"},
                "metric": "accuracy",
                "min_effect": 0.01,
                "guards": [{"metric": "auroc", "min": 0.8}],
                "base_models": ["path:models/m", "hf:org/name@v1"],
                "budget": {"wall": "1h", "experiments": 9, "usd": 0, "disk": "20GB"},
                "researcher": "playbook",
                "search": {"policy": "uct"},
                "engine": {"kind": "local", "workers": 2},
                "seed": 3,
            },
        )
    )
    assert task.base_models == (f"path:{model}", "hf:org/name@v1")
    assert task.budget == Budget(wall_s=3600.0, experiments=9, usd=0.0, disk_gb=20.0)
    assert task.guards == (Guard(metric="auroc", min=0.8),)
    assert task.engine == EngineSpec(workers=2)
    assert TaskSpec.model_validate_json(task.model_dump_json()) == task


def test_shorthands(folder: Path) -> None:
    fields = {**MINIMAL, "search": "random", "engine": "local", "budget": "8h, $0", "base_models": "hf:a/b@c"}
    task = load_task(write(folder, fields))
    assert (task.search.policy, task.engine.kind) == ("random", "local")
    assert (task.budget, task.base_models) == (Budget(wall_s=28800.0, usd=0.0), ("hf:a/b@c",))


def test_overrides_come_first(folder: Path) -> None:
    path = write(folder, {**MINIMAL, "engine": {"threads": 4}, "budget": "8h"})
    task = load_task(path, {"budget": "40 experiments", "search": "uct", "engine": {"workers": 2}, "seed": None})
    assert task.budget == Budget(experiments=40)
    assert (task.search.policy, task.engine, task.seed) == ("uct", EngineSpec(workers=2, threads=4), 0)
    with pytest.raises(UserError, match="Unknown key 'sede'"):
        load_task(path, {"sede": 1})


def test_a_resolved_task_can_be_run_again(folder: Path) -> None:
    task = load_task(write(folder, MINIMAL))
    assert load_task(write(folder, task.model_dump(mode="json"), "again.yaml")) == task


def test_the_example_task_loads(minilm: Path) -> None:
    tasks = sorted((ROOT / "examples").rglob("task.yaml"))
    for path in tasks:
        assert load_task(path).objective


# --- problems -------------------------------------------------------------------------------------------------------


def test_all_problems_at_once(folder: Path) -> None:
    found = problems_of(
        folder,
        {
            "name": "my task!",
            "data": {"train": "tran.csv", "inptu": "x", "target": "text"},
            "metrik": "mcc",
            "metric": "mcc",
            "min_effect": 2,
            "guards": [{"metric": "f1"}, {"metric": "accuracy", "mim": 1}],
            "base_models": ["org/name"],
            "budget": "20 parsecs",
            "search": "greddy",
            "researcher": "playbok",
            "engine": {"kind": "slrm", "workers": 0},
            "seed": -1,
        },
    )
    for part in (
        "Unknown key 'metrik'. Did you mean 'metric'?",
        "objective is missing",
        "Unknown key 'data.inptu'. Did you mean 'input'?",
        "Unknown key 'guards.1.mim'. Did you mean 'min'?",
        "budget: Unknown unit 'parsecs'",
        "search: unknown search policy 'greddy'. Did you mean 'greedy'?",
        "researcher: unknown researcher 'playbok'. Did you mean 'playbook'?",
        "engine: unknown engine 'slrm'. Did you mean 'slurm'? Known: ",
        "engine.workers is 0",
        "min_effect is 2",
        "seed is -1",
        "such as 'my-task'",
        "base_models: The base model 'org/name' has no kind",
    ):
        assert any(part in line for line in found), f"{part} is not in:\n" + "\n".join(found)
    assert [line.strip().split(".")[0] for line in found] == [str(i) for i in range(1, len(found) + 1)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"train": "tran.csv"}}, r"data.train: There is no file .*Did you mean 'train.csv'"),
        ({"data": {"test": "test.csv"}}, "data.train is missing"),
        (
            {"data": {"train": "train.csv", "test": "../{folder}/train.csv"}},
            "data.train and data.test are the same file",
        ),
        ({"data": {"train": "train.csv", "input": "x", "target": "x"}}, "are both 'x'"),
        ({"data": "train.csv"}, r"data: expected keys \(train, dev, .*found 'train.csv'"),
        ({"data": {"train": "hint3:curekart/v2", "dev": "hint3:curekart/v2"}}, "no dev file"),
        ({"data": {"train": "train.csv", "out_of_scope": False}}, "Put quotation marks around it"),
        ({"metric": "mmc"}, "metric: unknown metric 'mmc'. Did you mean 'mcc'?"),
        ({"metric": "auroc"}, "'auroc' needs an out-of-scope label"),
        (
            {"kind": "regression"},
            "kind: input should be 'classification', 'generation' or 'script', found 'regression'",
        ),
        ({"guards": [{"metric": "accuracy"}]}, "needs a min or a max"),
        ({"guards": [{"metric": "accuracy", "min": 0.9, "max": 0.1}]}, "min 0.9 is above max 0.1"),
        ({"budget": 20}, "found 20, which has no unit"),
        ({"budget": {"wall": 20}}, "budget: Cannot read '20'"),
        ({"budget": {"wall": "1h", "disk": 20}}, "budget: Cannot read '20'"),
        ({"budget": {"disk": "20m"}}, "budget: disk is '20m', and a size was expected, such as '20 GB'"),
        ({"experiment": "20 GB"}, "experiment: disk is a limit of the run's whole folder"),
        ({"budget": {"disk_gb": 0}}, "budget.disk is 0.0, and more than 0 was expected"),
        ({"budget": {"wal": "20m"}}, "Unknown key 'budget.wal'. Did you mean 'wall'?"),
        ({"budget": {"experiments": 0}}, "budget.experiments is 0"),
        ({"budget": {"usd": -1}}, "budget.usd is -1"),
        ({"engine": {"memory_mb": "lots"}}, "engine.memory_mb: input should be a valid integer.*found 'lots'"),
        ({"engine": {"job_wall_s": float("nan")}}, "engine.job_wall_s is nan"),
        ({"seed": "x"}, "seed: input should be a valid integer"),
        (
            {"search": {"policy": "greedy", "params": {"p_debg": 0.5}}},
            "'search.params.p_debg'. Did you mean 'p_debug'?",
        ),
        ({"search": {"policy": "greedy", "params": {"p_debug": 7}}}, "search.params.p_debug: input should be less"),
        ({"base_models": ["path:nowhere"]}, "there is no folder"),
        ({"name": 12}, "name: input should be a valid string, found 12"),
    ],
)
def test_one_problem(folder: Path, change: dict[str, Any], message: str) -> None:
    if isinstance(change.get("data"), dict):
        change = {"data": {key: _in(folder, value) for key, value in change["data"].items()}}
    with pytest.raises(UserError, match=message) as caught:
        load_task(write(folder, {**MINIMAL, **change}))
    assert "has 1 problem:" in str(caught.value), caught.value


# --- comparing ------------------------------------------------------------------------------------------------------


def test_changes_are_named(folder: Path) -> None:
    old = load_task(write(folder, MINIMAL))
    new = load_task(
        write(
            folder,
            {**MINIMAL, "metric": "accuracy", "budget": "8h", "data": {"train": "train.csv", "test": "test.csv"}},
        )
    )
    assert task_changes(old, old) == ()
    assert set(task_changes(old, new)) == {
        "metric: macro_f1 -> accuracy",
        f"data.test: not set -> {folder / 'test.csv'}",
        "budget: 20m -> 8h",
    }


def test_fingerprint_ignores_the_budget_only(folder: Path) -> None:
    task = load_task(write(folder, MINIMAL))
    assert task_fingerprint(task) == task_fingerprint(task.model_copy(update={"budget": Budget(experiments=1)}))
    for change in ({"seed": 1}, {"metric": "accuracy"}, {"search": SearchSpec(policy="uct")}):
        assert task_fingerprint(task) != task_fingerprint(task.model_copy(update=change))


# --- writing --------------------------------------------------------------------------------------------------------


def test_written_task_loads_back(folder: Path) -> None:
    fields = {
        "name": "my-task",
        "objective": "Route: messages # to 'intents', été",
        "data": {"train": "train.csv", "test": "test.csv", "input": "text", "target": "label", "out_of_scope": "no"},
        "metric": "accuracy",
        "budget": "40 experiments",
        "base_models": [],
        "guards": [{"metric": "accuracy", "min": 0.5}],
    }
    path = folder / "new.yaml"
    write_task(fields, path)
    task = load_task(path)
    assert task == load_task(write(folder, fields))
    assert (task.objective, task.data.out_of_scope) == (fields["objective"], "no")
    with pytest.raises(UserError, match="is there already and was left as it is"):
        write_task(fields, path)
    write_task({**fields, "seed": 5}, path, overwrite=True)
    assert load_task(path).seed == 5


def test_every_comment_of_a_written_task_can_be_taken_off(folder: Path) -> None:
    """The keys that are shown as comments are examples that work."""
    path = folder / "new.yaml"
    write_task({"objective": "Route.", "data": {"train": "train.csv"}, "base_models": []}, path)
    (folder / "dev.csv").write_text("text,label\nc,A\n")
    keys = ("name", "kind", "dev", "test", "input", "target", "out_of_scope", "guards", "researcher", "engine")
    marks = {f"# {key}" for key in keys}
    lines = path.read_text().split("\n")
    shown = [line.replace("# ", "", 1) if line.strip().split(":")[0] in marks else line for line in lines]
    assert sum(a != b for a, b in zip(lines, shown, strict=True)) == len(keys)
    path.write_text("\n".join(shown))
    task = load_task(path)
    assert (task.engine.workers, task.data.out_of_scope, len(task.guards)) == (2, "out_of_scope", 1)


def test_a_folder_that_cannot_be_written_to(folder: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        write_task(MINIMAL, folder / "train.csv" / "task.yaml")


# --- the schema -----------------------------------------------------------------------------------------------------


def test_schema_describes_every_key() -> None:
    schema = task_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert set(schema["properties"]) == set(TaskSpec.model_fields)
    assert schema["required"] == ["objective"]
    assert schema["anyOf"] == [{"required": ["data"]}, {"required": ["script"]}]
    assert schema["additionalProperties"] is False
    for properties in (schema["properties"], schema["$defs"]["DataSpec"]["properties"]):
        assert all(each["description"] for each in properties.values())
    assert {"type": "string"} in schema["properties"]["budget"]["anyOf"]
    assert "wall" in schema["$defs"]["Budget"]["properties"]
    assert "uct" in schema["properties"]["search"]["examples"]


def test_notes_of_a_researcher_are_read_once_and_kept(folder: Path) -> None:
    path = write(folder, {**MINIMAL, "researcher": {"command": ["true"], "notes": "papers.md"}})
    with pytest.raises(UserError, match="researcher.notes: .*papers.md cannot be read"):
        load_task(path)
    (folder / "papers.md").write_text("Adapters of rank 8 are enough.")
    spec = load_task(path).researcher
    assert isinstance(spec, ResearcherSpec) and spec.notes == "Adapters of rank 8 are enough."
    (folder / "papers.md").write_text("x" * 20_001)
    with pytest.raises(UserError, match="longer than 20,000"):
        load_task(path)
    (folder / "papers.md").write_bytes(bytes(range(128, 200)))
    with pytest.raises(UserError, match="not UTF-8"):
        load_task(path)
