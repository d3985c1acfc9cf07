"""Scripts: whole runs on small programs, what they may not do, by name, and kills at the boundaries of events."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

import psutil
import pytest

from postgrad.engines import hardware
from postgrad.engines.local import LocalEngine
from postgrad.engines.remote import engine as engine_module
from postgrad.engines.remote.engine import RemoteEngine
from postgrad.engines.remote.exchange import Shared
from postgrad.engines.remote.lease import Beat, write
from postgrad.errors import PostgradError, UserError
from postgrad.events import Event, JobFinished, RunStarted
from postgrad.execute.executor import RunningJob
from postgrad.records import Choice, Failure, Hardware, JobResult, Move, Proposal, Recipe, Stage, TaskSpec, Usage
from postgrad.research.base import Context
from postgrad.runner import drive, machine, opened, same_machine, start_run
from postgrad.scripts import session as session_module
from postgrad.scripts.executor import COMMAND as SCRIPT_WORKER
from postgrad.scripts.session import ScriptSession
from postgrad.scripts.workspace import Workspace
from postgrad.spec import load_task
from postgrad.store.sqlite import SqliteStore, new_run_folder
from postgrad.testing.nodes import Processes
from postgrad.tree import Tree
from test_end_to_end import postgrad

ROOT = Path(__file__).resolve().parent.parent
PREPARE = "SCALE = 0.05\n"
TRAIN = """
import json, os, random
from math import log
from pathlib import Path
from prepare import SCALE

SEED = 7
LEARNING_RATE = 0.01
BATCH_SIZE = 32
rng = random.Random(int(os.environ["POSTGRAD_SEED"]) + SEED)
loss = 1.0 + SCALE * log(LEARNING_RATE / 0.04) ** 2 + 0.02 * log(BATCH_SIZE / 64) ** 2 + rng.gauss(0, 0.002)
Path("out").mkdir()
Path("out/model.json").write_text(json.dumps({"loss": loss}))
print("val_loss:", loss)
"""
REFEREE = """
import json, os, random
from pathlib import Path

loss = json.loads(Path("out/model.json").read_text())["loss"]
hidden = next(Path(os.environ["POSTGRAD_HIDDEN"]).iterdir()).read_text().split()
rng = random.Random(os.environ["POSTGRAD_SPLIT"])
items = {word: loss + rng.gauss(0, 0.05) for word in hidden}
Path("score.json").write_text(json.dumps({"value": sum(items.values()) / len(items), "items": items}))
"""
TASK = """
name: tiny
kind: script
objective: Lower the loss.
script:
  source: src
  editable: [train.py]
  run: python train.py
  time: 2s
  kill: {kill}
  {measured}
  direction: min
budget: {budget}
engine: {{workers: {workers}}}
"""
MEASURED = (
    "leaves: [out]\n  metric: loss\n  referee: python referee.py\n  hidden: {search: val.txt, sealed: sealed.txt}"
)


def task_of(
    folder: Path,
    train: str = TRAIN,
    *,
    budget: str = "8 experiments",
    measured: str = MEASURED,
    kill: str = "60s",
    workers: int = 1,
    more: Mapping[str, str] | None = None,
) -> TaskSpec:
    source = folder / "src"
    source.mkdir(parents=True, exist_ok=True)
    words = {name: " ".join(f"{name}{number}" for number in range(50)) for name in ("val", "sealed")}
    files = {"train.py": train, "prepare.py": PREPARE, "referee.py": REFEREE}
    files |= {f"{name}.txt": text for name, text in words.items()} | dict(more or {})
    for name, text in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    (folder / "task.yaml").write_text(TASK.format(measured=measured, budget=budget, kill=kill, workers=workers))
    return load_task(folder / "task.yaml")


def run_of(folder: Path, task: TaskSpec) -> Path:
    with start_run(task, folder / "runs") as store:
        return store.folder


def driven(folder: Path, **options: Any) -> tuple[Event, ...]:
    with opened(SqliteStore.open(folder, write=True)) as session:
        drive(session, **options)
        return session.store.events()


def events_of(folder: Path) -> tuple[Event, ...]:
    with SqliteStore.open(folder, write=False) as store:
        return store.events()


# --- whole runs -------------------------------------------------------------------------------------------------------


def test_a_run_finds_better_numbers_and_reads_the_sealed_file_once(tmp_path: Path) -> None:
    task = task_of(tmp_path, budget="12 experiments", workers=2)
    folder = run_of(tmp_path, task)
    events = driven(folder)
    tree = Tree.from_events(events)
    assert len(tree) == 12 and all(node.score is not None for node in tree.all())
    (read,) = [event.body.read for event in events if event.body.type == "sealed_done"]
    champion, baseline = read.scores
    assert champion.role == "champion" and baseline.experiment == "e0000" and read.n == 50
    assert champion.estimate.value > baseline.estimate.value and read.difference.low > 0, "less loss is a higher score"
    assert read.refused is None and champion.estimate.value == pytest.approx(-1.0, abs=0.05)
    jobs = [event.body for event in events if event.body.type == "job_finished" and event.body.purpose == "sealed"]
    assert {job.experiment for job in jobs} == {"e0000", champion.experiment}
    assert len(jobs) == 6, "three fresh seeds of each side"
    kept = folder / "model"
    assert json.loads((kept / "out" / "model.json").read_text())["loss"] < 1.02
    assert (kept / "train.py").read_text() != TRAIN and (kept / "prepare.py").read_text() == PREPARE
    assert not (kept / "val.txt").exists()
    workspace = Workspace.open(folder, folder.name)
    commits = workspace.commits()
    versions = {node.proposed.proposal.recipe.hash for node in tree.all()}
    assert len(commits) == len(versions) - 1, "replicates have the commit of what they repeat"
    assert "LEARNING_RATE" in workspace.diff(workspace.baseline, commits["e0001"])
    assert (tmp_path / "src" / "train.py").read_text() == TRAIN and not (tmp_path / "src" / ".git").exists()


def test_a_printed_number_is_marked_as_the_scripts_own_word(tmp_path: Path) -> None:
    task = task_of(tmp_path, measured="printed: val_loss", budget="4 experiments")
    assert task.metric == "printed:-val_loss"
    events = driven(run_of(tmp_path, task))
    (read,) = [event.body.read for event in events if event.body.type == "sealed_done"]
    assert read.refused is not None and "own word" in read.refused
    assert all(node.score is not None for node in Tree.from_events(events).all())


def test_the_referee_measures_and_not_what_is_printed(tmp_path: Path) -> None:
    lying = TRAIN.replace('print("val_loss:", loss)', 'print("val_loss: 0.0"); print("loss: 0.0")')
    events = driven(run_of(tmp_path, task_of(tmp_path, lying, budget="2 experiments")))
    first = Tree.from_events(events)["e0000"]
    assert first.score is not None and first.score < -1.0


def test_the_untouched_layout_of_autoresearch_runs_from_init(tmp_path: Path) -> None:
    """A stand-in with its file names and its printed summary; nothing in it knows of Postgrad."""
    shutil.copytree(ROOT / "tests" / "data" / "autoresearch", tmp_path / "repo")
    before = {path.name: path.read_bytes() for path in (tmp_path / "repo").iterdir()}
    made = postgrad("init", "--script", "repo", cwd=tmp_path)
    assert made["autoresearch"] and made["script"]["printed"] == "val_bpb" and made["script"]["time"] == "2s"
    assert postgrad("check", "task.yaml", cwd=tmp_path)["ok"]
    run = postgrad("run", "task.yaml", "--budget", "2 experiments", cwd=tmp_path)
    assert run["experiments"] == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "repo").iterdir()} == before
    page = (tmp_path / "runs" / "repo-001" / "report.md").read_text()
    assert "Not certified" in page and "own word" in page and "printed:-val" in page


# --- what a script may not do -----------------------------------------------------------------------------------------

ATTACKS = {
    "changes prepare.py": ("open('prepare.py', 'a').write('SCALE = 0')", "isolation", "changed_protected"),
    "removes prepare.py": ("import os; os.remove('prepare.py')", None, None),
    "reads the validation text": ("open('val.txt').read()", "isolation", "hidden_file"),
    "reads it in the source": ("open({source!r} + '/val.txt').read()", "isolation", "forbidden_file"),
    "opens a socket": ("import socket; socket.create_connection(('192.0.2.1', 9), 1)", "isolation", "network"),
    "forks": ("import os, time\nfor _ in range(400): os.fork() or time.sleep(20)", "resource", "flood"),
    "outlives its budget": ("import time; time.sleep(60)", "resource", "timeout"),
    "fills the disk": (
        "import time\nfor n in range(40): open(f'big{{n}}', 'wb').write(bytes(2 << 20))\ntime.sleep(25)",
        "resource",
        "flood",
    ),
    "leaves a stale result": ("pass", "predict", "nothing_left"),
    "leaves a link": (
        "import os; os.mkdir('out'); os.symlink('/etc/hostname', 'out/model.json')",
        "isolation",
        "forbidden_file",
    ),
    "leaves no number": (
        "import os; os.mkdir('out'); open('out/model.json', 'w').write('{{\"loss\": NaN}}')",
        "evaluate",
        "no_score",
    ),
    "crashes": ("1 / 0", "train", "crash"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_what_a_script_may_not_do_is_a_failure_with_its_name(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, boundary, kind = ATTACKS[name]
    monkeypatch.setattr(session_module, "DISK_MB", 30)
    stale = {"out/model.json": json.dumps({"loss": 0.1})}
    task = task_of(
        tmp_path,
        program.format(source=str(tmp_path / "src")),
        budget="1 experiments",
        kill="3s" if "outlives" in name else "30s",
        more=stale if "stale" in name else {},
    )
    folder = run_of(tmp_path, task)
    with pytest.raises(PostgradError, match="no champion"):
        driven(folder)
    failure = Tree.from_events(events_of(folder))["e0000"].failure
    assert failure is not None
    if boundary is not None:
        assert (failure.boundary, failure.kind) == (boundary, kind), failure
    assert (tmp_path / "src" / "prepare.py").read_text() == PREPARE


class Editing:
    """Proposes one edit of the source."""

    def __init__(self, files: Mapping[str, bytes | None]) -> None:
        self.files = files

    def propose(self, task: TaskSpec, choice: Choice, context: Context) -> Proposal:
        workspace: Workspace = self.session.workspace
        commit = workspace.commit(f"e{context.index:04d}", workspace.baseline, self.files, "an edit")
        recipe = Recipe(stage=Stage(backend="script", params={"tree": workspace.tree_of(commit)}))
        return Proposal(
            recipe=recipe,
            kind="edit.own",
            hypothesis="h",
            change="c",
            expected_effect=0.0,
            refuted_by="r",
            proposer="somebody",
            seed=0,
            carried_out=Choice(parent="e0000", move=Move.IMPROVE, reason="r"),
        )

    session: ScriptSession


EDITS: dict[str, tuple[dict[str, bytes | None], str, str]] = {
    "edits prepare.py": ({"prepare.py": b"SCALE = 0.0\n"}, "isolation", "changed_protected"),
    "edits the referee": ({"referee.py": b"print('0')\n"}, "isolation", "changed_protected"),
    "adds a file": ({"sitecustomize.py": b"print('hello')\n"}, "isolation", "changed_protected"),
    "removes prepare.py": ({"prepare.py": None}, "isolation", "changed_protected"),
    "changes only the seed": (
        {"train.py": TRAIN.replace("SEED = 7", "SEED = 137").encode()},
        "recipe",
        "only_the_seed",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_that_is_none_is_refused_with_its_name(tmp_path: Path, name: str) -> None:
    files, boundary, kind = EDITS[name]
    folder = run_of(tmp_path, task_of(tmp_path, budget="2 experiments"))
    guest = Editing(files)
    with opened(SqliteStore.open(folder, write=True)) as session:
        assert isinstance(session, ScriptSession)
        guest.session = session
        drive(session, researcher=guest)
        failure: Failure | None = session.tree["e0001"].failure
        assert not session.tree["e0001"].started, "it is not even run"
    assert failure is not None and (failure.boundary, failure.kind) == (boundary, kind), failure


# --- kills ------------------------------------------------------------------------------------------------------------


def outline(folder: Path) -> str:
    """Everything of a run that must not depend on when it was killed."""
    tree = Tree.from_events(events_of(folder))
    parts: list[Any] = [tree.champion]
    for node in tree.all():
        parts += [node.proposed.model_dump(mode="json"), node.score, node.verdict]
    return json.dumps([*parts, sorted(Workspace.open(folder, "tiny-001").commits().items())])


def in_child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def test_killed_anywhere_worktrees_commits_and_log_are_in_step(tmp_path: Path) -> None:
    whole = run_of(tmp_path / "whole", task_of(tmp_path / "whole", budget="5 experiments"))
    driven(whole)
    killed = run_of(tmp_path / "killed", task_of(tmp_path / "killed", budget="5 experiments"))
    count = len(events_of(whole))

    def until(stop: int) -> None:
        class Dying(SqliteStore):
            def append(self, body: Any) -> Event:
                event = super().append(body)
                if event.seq >= stop:
                    os.kill(os.getpid(), signal.SIGKILL)
                return event

        with opened(Dying.open(killed, write=True)) as session:
            drive(session)

    for stop in range(1, count - 1, 4):
        assert in_child(partial(until, stop)) in (-signal.SIGKILL, 0)
    if "run_ended" not in {event.body.type for event in events_of(killed)}:
        driven(killed)
    assert outline(killed) == outline(whole)


# --- task files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("leaves: [out]", ""), "script.leaves is missing"),
        (("editable: [train.py]", "editible: [train.py]"), "Did you mean 'editable'"),
        (("run: python train.py", 'run: "python \'train.py"'), "cannot be read as a command"),
        (("time: 2s", "time: fast"), "a time was expected"),
        (("hidden: {search: val.txt, sealed: sealed.txt}", "hidden: {search: val.txt}"), "both `search` and `sealed`"),
        (("source: src", "source: nowhere"), "there is no folder"),
        (("kind: script", "kind: script\nmetric: mcc"), "Name it in script.metric"),
        (("referee: python referee.py", ""), "script.referee is missing"),
        (("direction: min", "direction: down"), "script.direction"),
    ],
)
def test_what_is_wrong_in_a_task_file_is_said(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    task_of(tmp_path)
    path = tmp_path / "task.yaml"
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(UserError) as wrong:
        load_task(path)
    assert said in str(wrong.value)


def test_a_source_without_an_editable_file(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    assert task.script is not None
    task = task.model_copy(update={"script": task.script.model_copy(update={"editable": ("model/*.py",)})})
    with pytest.raises(UserError, match="may be edited"):
        driven(run_of(tmp_path, task))


# --- the other commands -----------------------------------------------------------------------------------------------


def test_the_other_commands_know_scripts(tmp_path: Path) -> None:
    """One run, and every command that reads it."""
    task_of(tmp_path, budget="5 experiments", more={"unused.tmp": ""})
    checked = postgrad("check", "task.yaml", cwd=tmp_path)
    assert checked["ok"] and checked["editable"] == ["train.py"]
    assert any("file of `search` again" in line for line in checked["warnings"]), "no select file is named"
    assert any(line.startswith("LEARNING_RATE") for line in checked["constants"])
    run = postgrad("run", "task.yaml", cwd=tmp_path)
    assert run["experiments"] == 5
    first = postgrad("show", "tiny-001", "e0001", cwd=tmp_path)
    assert "+LEARNING_RATE = 0.02" in first["diff"] and first["recipe_hash"]
    assert postgrad("show", "tiny-001", "e0000", cwd=tmp_path)["diff"] == ""
    assert postgrad("replay", "tiny-001", cwd=tmp_path)
    postgrad("export", "tiny-001", "out-folder", cwd=tmp_path)
    kept = tmp_path / "out-folder"
    assert (kept / "out" / "model.json").is_file() and (kept / "REPORT.md").is_file()
    source = tmp_path / "src"
    if patch := (kept / "changes.patch").read_text():
        subprocess.run(["git", "apply", "-"], input=patch.encode(), cwd=source, check=True)
    assert (source / "train.py").read_text() == (kept / "train.py").read_text(), "the patch makes the champion's files"
    refused = postgrad("audit", "tiny-001", cwd=tmp_path, code=2)
    assert "its own affair" in json.dumps(refused)
    page = (tmp_path / "runs" / "tiny-001" / "report.html").read_text()
    assert "McNemar" not in page and "hidden data" in page


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"editable": "[model.py]"}, "no file matches model.py"),
        ({"run": "python trainer.py"}, "no file trainer.py"),
        ({"editable": '["*.py"]'}, "experiments may edit it"),
    ],
)
def test_check_says_what_is_wrong_with_the_files(tmp_path: Path, more: dict[str, str], said: str) -> None:
    task_of(tmp_path)
    path = tmp_path / "task.yaml"
    text = path.read_text()
    for key, value in more.items():
        text = re.sub(rf"^  {key}: .*$", f"  {key}: {value}", text, flags=re.MULTILINE)
    path.write_text(text)
    assert said in json.dumps(postgrad("check", "task.yaml", cwd=tmp_path, code=2))


def test_a_run_of_a_script_does_not_go_on_on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_of(tmp_path, task_of(tmp_path, budget="2 experiments"))
    driven(folder)
    other = tmp_path / "cpuinfo"
    other.write_text("model name : another kind of processor\n")
    monkeypatch.setattr(hardware, "CPUINFO", other)
    with pytest.raises(UserError, match="and here is another kind of processor, "):
        driven(folder)


@pytest.mark.parametrize("cores", [None, "999"])
def test_a_run_that_recorded_no_hardware_is_held_to_the_machine_that_it_began_on(
    tmp_path: Path, cores: str | None
) -> None:
    began, task = machine() | ({"cores": cores} if cores else {}), task_of(tmp_path, budget="2 experiments")
    with (
        closing(SqliteStore.create(new_run_folder(tmp_path / "runs", "tiny"))) as store,
        closing(LocalEngine()) as engine,
    ):
        engine.open(task.engine)
        store.append(RunStarted(run="tiny-001", task=task, task_file=None, postgrad="0", machine=began, packages={}))
        same_machine(store, engine)  # Nothing was trained yet.
        result = JobResult(job="e0000-search", usage=Usage(wall_s=2.0))
        store.append(JobFinished(job="e0000-search", experiment="e0000", purpose="search", result=result))
        if cores is None:
            same_machine(store, engine)
            return
        with pytest.raises(UserError, match="cores 999, and here is system"):
            same_machine(store, engine)


@pytest.mark.parametrize("program", ["train.py", "referee.py"])
def test_what_is_killed_from_outside_begins_anew_once(tmp_path: Path, program: str) -> None:
    slow = f"import time\ntime.sleep(1.5)\n{TRAIN}"
    more = {"referee.py": f"import time\ntime.sleep(1.5)\n{REFEREE}"}
    folder, shot = run_of(tmp_path, task_of(tmp_path, slow, budget="2 experiments", more=more)), set[int]()

    def strike(phase: str, jobs: Sequence[RunningJob]) -> None:
        most = 1 if jobs and jobs[0].experiment == "e0000" else 3  # The second time it is a failure.
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                trains = process.name().startswith("python") and program in process.cmdline()
                if trains and phase in ("searching", "last experiments") and len(shot) < most:
                    process.kill()
                    shot.add(process.pid)

    with opened(SqliteStore.open(folder, write=True)) as session:
        drive(session, tick=strike)
        (first,), (second,) = session.results("e0000", "search"), session.results("e0001", "search")
    assert len(shot) == 3
    assert first.failure is None and first.units and first.usage.wall_s > 3.0, "both attempts are paid for"
    assert second.failure is not None and "SIGKILL" in second.failure.message


def test_what_a_lost_attempt_ran_on_and_left_behind_decides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "GRACE_S", 1.0)
    monkeypatch.setattr(engine_module, "ASK_S", 0.2)
    slow = f"import time\nfrom pathlib import Path\nPath('left').touch(exist_ok=False)\ntime.sleep(2)\n{TRAIN}"
    folder = run_of(tmp_path, task_of(tmp_path, slow, budget="2 experiments"))
    cluster, lost = Processes(tmp_path / "cluster"), list[str]()

    def strike(phase: str, jobs: Sequence[RunningJob]) -> None:
        for job in jobs:
            attempt = folder / "scratch" / job.spec.job / "run" / "remote" / "1"
            if not lost and job.experiment == "e0001" and (attempt / "work" / "run" / "work" / "left").exists():
                lost.append(cluster.submitted[-1])
                cluster.lose(lost[0])
                write(Shared(attempt), "beat.json", Beat(count=99, usage=Usage(hardware=(Hardware(cpu="other"),))))

    engine = RemoteEngine(cluster, SCRIPT_WORKER)
    with opened(SqliteStore.open(folder, write=True), engine=engine) as session:
        drive(session, tick=strike)
        (result,) = session.results("e0001", "search")
    assert lost and result.failure is None and result.units
    assert [each.cpu for each in result.usage.hardware] == ["other", hardware.cpu_kind()], "all of it is recorded"
    assert [each.cpu for each in result.hardware] == [hardware.cpu_kind()]
