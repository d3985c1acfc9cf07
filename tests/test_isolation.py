"""What a worker is given and what is taken from it: blind questions, fingerprints, files judged before being read."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from postgrad.bench.overhead import SimulatedEngine, simulated_task
from postgrad.engines.base import Exit
from postgrad.engines.local import LocalEngine
from postgrad.engines.tripwire.sitecustomize import Tripwire
from postgrad.events import JobStarted
from postgrad.execute import collect
from postgrad.execute.answers import Answers, BadAnswers, Questions, disagreement, questions, read_answers, written
from postgrad.execute.executor import Executor
from postgrad.execute.files import Refused, check_model, plain_text, plain_value, read_regular
from postgrad.execute.foreign import runs_foreign_code
from postgrad.records import EngineSpec, JobSpec, Limits, Recipe, Row, Stage, Step, Unit, Usage, Value
from postgrad.removing import remove_tree
from postgrad.runner import drive, opened, start_run
from postgrad.store.artifacts import Artifacts
from postgrad.testing.backend import LABELS, OUT_OF_SCOPE, example_rows
from postgrad.train import BACKENDS

# As the referee has them: in-scope rows in the order of their labels, then what is out of scope.
REFEREES = tuple(
    Row(f"{n:04x}{'+background' if n >= 40 else ''}", f"text number {n}", f"L{n // 10}" if n < 40 else "none")
    for n in range(60)
)
ASKED = questions("u0", REFEREES)
GOOD = Answers(np.full((60, 3), 1 / 3, dtype=np.float32), np.arange(60, dtype=np.float32))


# --- what a job is given ----------------------------------------------------------------------------------------------


def test_questions_tell_nothing_but_their_texts() -> None:
    shown = ASKED.shown
    assert [name for name, _ in shown] == [f"q{place:06d}" for place in range(60)]
    assert sorted(text for _, text in shown) == sorted(row.text for row in REFEREES)
    places = [REFEREES.index(next(row for row in REFEREES if row.text == text)) for _, text in shown]
    assert abs(float(np.corrcoef(places, range(60))[0, 1])) < 0.4, "the order is not that of the labels"
    assert questions("u0", REFEREES[::-1]).shown == shown, "the referee's order leaves no trace"
    assert questions("u0", REFEREES) == ASKED, "a job that is started again finds the same file"
    assert questions("u1", REFEREES).shown != shown


def test_answers_find_their_way_back() -> None:
    kept = {text: float(place) for place, (_, text) in enumerate(ASKED.shown)}
    file = saved(score=np.arange(60, dtype=np.float32))
    found = read_answers(file, ASKED, 3)
    assert [kept[row.text] for row in REFEREES] == found.score.tolist()
    with np.load(io.BytesIO(written(ASKED.ids, found))) as stored:
        assert [str(name) for name in stored["ids"]] == [row.id for row in REFEREES]
        assert stored["score"].tolist() == found.score.tolist()
    assert written(ASKED.ids, found) == written(ASKED.ids, found)


def test_a_job_folder_holds_no_id_and_no_label_of_a_question(tmp_path: Path) -> None:
    engine = LocalEngine(command=(sys.executable, "-c", "import time; time.sleep(30)"))
    engine.open(EngineSpec(sandbox="none"))
    spec = make_spec()
    job = Executor(engine, Artifacts(tmp_path / "artifacts"), tmp_path / "scratch").start(
        spec, {"u0": (example_rows(), tuple(Row(f"{row.id}+typos", row.text, "secret") for row in REFEREES))}
    )
    texts = [path.read_text() for path in (tmp_path / "scratch" / spec.job).glob("*") if path.is_file()]
    job.stop()
    engine.close()
    assert any("text number 7" in text for text in texts)
    assert not any("secret" in text or "+typos" in text or "+background" in text for text in texts)


def test_code_of_other_packages_is_known_by_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "guest-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: guest\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[postgrad.backends]\nguest = guest:Backend\nclassic = guest:Backend\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "guest" in BACKENDS.names() and not BACKENDS.is_own("guest")
    assert BACKENDS.is_own("classic"), "an outsider cannot take the name of one of ours"
    own = Recipe(stage=Stage(backend="classic"), data=(Step(op="dedup"),))
    members: Value = ({"stage": {"backend": "classic"}}, {"stage": {"backend": "guest", "params": {}}})
    mixed = Stage(backend="ensemble", params={"members": members})
    assert not runs_foreign_code(own)
    assert runs_foreign_code(own.model_copy(update={"stage": Stage(backend="guest")}))
    assert runs_foreign_code(own.model_copy(update={"data": (Step(op="from-elsewhere"),)}))
    assert runs_foreign_code(own.model_copy(update={"stage": mixed}))


def test_foreign_code_gets_one_fold_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for name, foreign in (("own", False), ("foreign", True)):
        for module in ("postgrad.racer", "postgrad.certify"):
            monkeypatch.setattr(f"{module}.runs_foreign_code", lambda recipe, foreign=foreign: foreign)
        store = start_run(simulated_task(tmp_path / name, 4), tmp_path / name / "runs")
        with opened(store, engine=SimulatedEngine()) as session:
            drive(session)
            started = [event.body for event in store.events() if isinstance(event.body, JobStarted)]
            found.append((started, session.tree.champion, [node.score for node in session.tree.all()]))
    (own, *first), (apart, *second) = found
    assert first == second, "folds in one job or in four: the same scores"
    assert {len(job.units) for job in apart} == {1}
    assert max(len(job.units) for job in own if job.purpose == "search") > 1
    assert max(len(job.units) for job in own if job.purpose == "select") > 1


# --- answers ----------------------------------------------------------------------------------------------------------


def saved(**changes: Any) -> bytes:
    file = io.BytesIO()
    ids = np.array([f"q{place:06d}" for place in range(60)])
    np.savez(file, **{"ids": ids, "probs": GOOD.probs, "score": GOOD.score, **changes})
    return file.getvalue()


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "<f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_answers_in_any_float_and_any_order_are_read(kind: str, order: Any) -> None:
    found = read_answers(saved(probs=np.array(GOOD.probs, dtype=kind, order=order)), ASKED, 3)
    assert found.probs.dtype == found.score.dtype == np.float32
    assert np.allclose(found.probs, 1 / 3, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"probs": GOOD.probs.astype(np.int64)}, "type int64"),
        ({"probs": GOOD.probs.astype(np.complex64)}, "type complex64"),
        ({"probs": GOOD.probs.astype(np.longdouble)}, "type"),
        ({"probs": GOOD.probs - 1}, "sum to 1"),
        ({"score": GOOD.score.astype(np.float64) + 1e300}, "single precision"),
        ({"score": GOOD.score[:59]}, "shapes"),
        ({"ids": np.array(["q000000"] * 60)}, "not to the questions"),
        ({"ids": np.array([b"q000000"] * 60)}, "type"),
        ({"extra": np.zeros(1)}, "expected to hold"),
    ],
)
def test_answers_that_are_none(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadAnswers, match=says):
        read_answers(saved(**changes), ASKED, 3)


def packed(change: Callable[[dict[str, bytes]], None], method: int = zipfile.ZIP_STORED) -> bytes:
    """Answers with the members of the file changed."""
    with zipfile.ZipFile(io.BytesIO(saved())) as good:
        members = {name: good.read(name) for name in good.namelist()}
    change(members)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return file.getvalue()


def test_files_of_answers_that_are_broken() -> None:
    broken: list[bytes] = [b"", b"PK", saved()[:-300], saved()[:200] + bytes(5) + saved()[205:]]
    broken.append(packed(lambda m: m.update({"probs.npy": m["probs.npy"][:-1]})))
    broken.append(packed(lambda m: m.update({"probs.npy": m["probs.npy"].replace(b"NUMPY", b"nymph")})))
    broken.append(packed(lambda m: m.update({"probs.npy": m["probs.npy"][:6] + b"\x09" + m["probs.npy"][7:]})))
    broken.append(packed(lambda m: m.update({"../score.npy": m.pop("score.npy")})))
    broken.append(packed(lambda m: None, zipfile.ZIP_LZMA))
    for data in broken:
        with pytest.raises(BadAnswers):
            read_answers(data, ASKED, 3)


def test_a_size_in_a_header_is_not_believed() -> None:
    """numpy would set aside what the header says before it reads a byte."""
    for shape in ("(60, 3000000000)", "(-60, -3)", "(60.0, 3)"):
        with pytest.raises(BadAnswers):
            read_answers(packed(partial(with_header, shape)), ASKED, 3)


def with_header(shape: str, members: dict[str, bytes]) -> None:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    start = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    members["probs.npy"] = start + GOOD.probs.tobytes()


def test_the_same_model_twice_and_two_models() -> None:
    rng = np.random.default_rng(0)
    near = Answers(GOOD.probs + rng.normal(0, 1e-5, (60, 3)).astype(np.float32), GOOD.score * np.float32(1.00001))
    assert disagreement(GOOD, near) == ""
    other = replace(GOOD, score=GOOD.score + 0.5)
    assert "answers differ" in disagreement(GOOD, other)
    one = GOOD.probs.copy()
    one[0] = (0.9, 0.05, 0.05)
    assert "1 of 60 answers differ" in disagreement(GOOD, replace(GOOD, probs=one))


# --- files ------------------------------------------------------------------------------------------------------------


def test_model_folders(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "encoder").mkdir(parents=True)
    (model / "postgrad.json").write_text("{}")
    (model / "encoder" / "model.safetensors").write_bytes(b"x" * 1000)
    check_model(model, 2000)
    with pytest.raises(Refused, match="more than 1,000 bytes"):
        check_model(model, 1000)
    for name, kind in (("a.PKL", "pickle"), ("run.sh", "model_file"), ("noend", "model_file")):
        (model / name).write_text("x")
        with pytest.raises(Refused) as found:
            check_model(model, 2000)
        assert found.value.kind == kind
        (model / name).unlink()
    (model / "link").symlink_to(tmp_path)
    with pytest.raises(Refused, match="link"):
        check_model(model, 2000)


def test_reading_does_not_wait_for_a_pipe_or_a_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    for path, kind in ((tmp_path / "pipe", "special_file"), (tmp_path / "device", "planted_link")):
        with pytest.raises(Refused) as found:
            read_regular(path, 10)
        assert found.value.kind == kind
    with pytest.raises(Refused, match="device and not a plain file"):
        read_regular(Path("/dev/zero"), 10)


def test_whatever_a_job_left_can_be_removed(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    subprocess.run(
        [sys.executable, "-c", "import os\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')"], cwd=folder, check=True
    )
    (folder / "locked").mkdir()
    (folder / "locked" / "file").touch()
    (folder / "locked").chmod(0)
    (folder / "out").symlink_to(tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    remove_tree(folder)
    remove_tree(tmp_path / "missing")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("steps", range(8))
def test_what_was_killed_while_it_was_removed_is_removed_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    folder = tmp_path / "job"
    for name in ("run/work/out", "run/private", "referee/work/out", "referee/hidden"):
        (folder / name).mkdir(parents=True)
        (folder / name / "file").touch()
    done: list[str] = []
    real = os.rmdir

    def killed(name: str) -> None:
        if len(done) == steps:
            raise KeyboardInterrupt
        done.append(name)
        real(name)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_tree(folder)
    (folder / "run" / "work" / "out").mkdir(parents=True, exist_ok=True)
    remove_tree(folder)
    assert not list(tmp_path.iterdir())


def test_texts_for_people_are_plain() -> None:
    assert plain_text("\x1b[31mred\x1b[0m \x1b]0;title\x07 a\tb\nc") == "red  a\tb\nc"
    assert plain_text("\x9b2J\u202etxt\x00\r") == "\ufffd2J\ufffdtxt\ufffd\ufffd"
    assert plain_value({"\x1b[Ka": ["\x07", {"b": 1.5}], "c": None}) == {"a": ["\ufffd", {"b": 1.5}], "c": None}
    assert len(plain_text("x" * 10_000)) == 2_000


# --- a job's inputs, where nothing keeps it from changing them --------------------------------------------------------


def make_spec() -> JobSpec:
    unit = Unit(name="u0", train="u0.t", predict="u0.p", seed=0)
    return JobSpec(
        job="e0001-search-u0-0", experiment="e0001", recipe=Recipe(stage=Stage(backend="constant")), labels=LABELS,
        out_of_scope=OUT_OF_SCOPE, base_model=None, units=(unit,), limits=Limits(wall_s=60, memory_mb=2000, threads=1),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["job.json", "u0.t", "u0.p"])
@pytest.mark.parametrize("how", ["append", "remove", "link", "turn"])
def test_changed_inputs_are_found_out(how: str, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    data = b'{"id": "q000000", "text": "one"}\n'
    for each in ("job.json", "u0.t", "u0.p"):
        (folder / each).write_bytes(data)
    handed = collect.Handed(
        dict.fromkeys(("job.json", "u0.t", "u0.p"), collect.Fingerprint.of(data)), {"u0": Questions((), (), ())}
    )
    collector = collect.Collector(make_spec(), folder, handed, Artifacts(tmp_path / "artifacts"))
    exited = Exit(code=0, cause=None, usage=Usage())
    before = collector.collect(exited).result.failure
    assert before is not None and before.kind == "crash"
    target = folder / name
    if how == "append":
        target.write_bytes(data + b" ")
    elif how == "turn":
        target.write_bytes(data.replace(b"one", b"two"))
    else:
        target.unlink()
    if how == "link":
        (tmp_path / "same").write_bytes(data)
        target.symlink_to(tmp_path / "same")
    failure = collector.collect(exited).result.failure
    assert failure is not None and (failure.boundary, failure.kind) == ("isolation", "changed_inputs")
    assert name in failure.message


# --- the tripwire -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "values", "kind"),
    [
        ("open", ("/lib/x.so", "r", 0), ""),
        ("open", ("/lib/x.so", "w", 0), "forbidden_file"),
        ("open", ("/lib/x.so", None, os.O_RDWR), "forbidden_file"),
        ("open", ("/library", "r", 0), "forbidden_file"),
        ("open", ("/job/out", "w", 0), ""),
        ("open", ("/job/../store", "r", 0), "forbidden_file"),
        ("open", (3, "r", 0), ""),
        ("open", (b"/store", "r", 0), "forbidden_file"),
        ("open", ("/etc/os-release", "r", 0), ""),
        ("open", ("/etc/shadow", "r", 0), "forbidden_file"),
        ("open", ("/dev/null", "w", 0), ""),
        ("open", ("/proc/self/environ", "r", 0), ""),
        ("open", ("/proc/1/environ", "r", 0), "forbidden_file"),
        ("open", ("/proc/cpuinfo", "r", 0), ""),
        ("os.listdir", ("/src",), ""),
        ("open", ("/src/data.csv", "r", 0), "forbidden_file"),
        ("os.rename", ("/job/a", "/lib/b", -1, -1), "forbidden_file"),
        ("os.symlink", ("/etc/passwd", "/job/b", -1), "forbidden_file"),
        ("sqlite3.connect", (":memory:",), ""),
        ("socket.connect", (None, ("127.0.0.1", 80)), ""),
        ("socket.connect", (None, ("192.0.2.1", 80)), "network"),
        ("socket.connect", (None, "/job/socket"), ""),
        ("socket.getaddrinfo", ("localhost", 80, 0, 0, 0), ""),
        ("socket.getaddrinfo", ("example.invalid", 80, 0, 0, 0), "network"),
        ("os.kill", (os.getppid(), 9), "signal"),
        ("os.kill", (os.getppid(), 0), ""),
        ("os.kill", (os.getpid(), 15), ""),
        ("os.kill", (-1, 9), "signal"),
    ],
)
def test_tripwire(event: str, values: tuple[Any, ...], kind: str) -> None:
    wire = Tripwire(reads=("/lib",), writes=("/job",), lists=("/src",), line=None)
    assert wire.found(event, values)[0] == kind
    if kind:
        with pytest.raises(PermissionError, match="a job may not do this"):
            wire(event, values)
    else:
        wire(event, values)


# --- without a sandbox ------------------------------------------------------------------------------------------------


def test_a_run_without_a_sandbox_says_so(tmp_path: Path) -> None:
    rows = "".join(f"{verb} my {noun},{verb}\n" for verb in ("open", "close") for noun in map(str, range(30)))
    (tmp_path / "train.csv").write_text(f"text,label\n{rows}")
    (tmp_path / "task.yaml").write_text(
        "name: tiny\nobjective: tell verbs apart\nbase_models: []\nbudget: 1 experiments\ndata: {train: train.csv}\n"
    )
    command = [sys.executable, "-m", "postgrad", "run", "task.yaml", "--unsandboxed", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert "without a sandbox" in done.stderr
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["experiments"] == 1
    report = (tmp_path / "runs" / "tiny-001" / "report.md").read_text()
    assert "sandbox none" in report
