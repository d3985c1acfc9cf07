"""The executor over the local engine: results become artefacts, and every bad end becomes the right failure."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any, Iterator

import numpy as np
import psutil
import pytest

from postgrad.engines.base import Handle
from postgrad.engines.local import LocalEngine
from postgrad.errors import PostgradError
from postgrad.execute.executor import Executor, RunningJob
from postgrad.records import EngineSpec, Failure, JobResult, JobSpec, Limits, Recipe, Row, Stage, Unit
from postgrad.store.artifacts import Artifacts
from postgrad.testing.backend import LABELS, OUT_OF_SCOPE, WORDS, example_rows
from postgrad.testing.encoder import make_tiny_encoder
from postgrad.testing.engine import until

PATIENCE_S = 120.0
CLASSIC = Stage(backend="classic")
TINY: dict[str, Any] = {"batch_size": 8, "lr": 5e-4, "epochs": 60, "precision": "fp32"}
SHORT = {**TINY, "epochs": 12}
ASKED = tuple(Row(f"q{row.id}", row.text, f"secret-{row.label}") for row in example_rows(3))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = {word for phrases in WORDS.values() for phrase in phrases for word in phrase.split()}
    return make_tiny_encoder(tmp_path_factory.mktemp("tiny"), sorted(words))


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[Executor]:
    yield from opened(tmp_path, LocalEngine())


def opened(folder: Path, engine: LocalEngine) -> Iterator[Executor]:
    engine.open(EngineSpec(workers=2, threads=1))
    yield Executor(engine, Artifacts(folder / "artifacts"), folder / "scratch")
    engine.close()


def make_spec(stage: Stage = CLASSIC, units: int = 1, base_model: Path | None = None, **facts: Any) -> JobSpec:
    limits = {"wall_s": PATIENCE_S, "memory_mb": 4000, "threads": 1, **facts.pop("limits", {})}
    return JobSpec(
        job=facts.pop("job", "e0001-search-u0-7"),
        experiment="e0001",
        recipe=Recipe(stage=stage),
        labels=LABELS,
        out_of_scope=OUT_OF_SCOPE,
        base_model=str(base_model) if base_model else None,
        units=tuple(Unit(name=f"u{i}", train=f"u{i}.t", predict=f"u{i}.p", seed=i) for i in range(units)),
        limits=Limits.model_validate(limits),
        **facts,
    )


def inputs_of(spec: JobSpec) -> dict[str, tuple[tuple[Row, ...], tuple[Row, ...]]]:
    return {unit.name: (example_rows(), ASKED) for unit in spec.units}


def finished(job: RunningJob) -> JobResult:
    result = job.poll(PATIENCE_S)
    assert result is not None
    return result


def run(executor: Executor, spec: JobSpec) -> JobResult:
    return finished(executor.start(spec, inputs_of(spec)))


def failure_of(result: JobResult) -> Failure:
    assert result.failure is not None
    assert result.failure.message.endswith((".", "]"))
    return result.failure


def probs_of(executor: Executor, result: JobResult) -> np.ndarray[Any, Any]:
    with np.load(io.BytesIO(executor.artifacts.read(result.units[0].outputs))) as file:
        assert [str(name) for name in file["ids"]] == [row.id for row in ASKED]
        probs: np.ndarray[Any, Any] = file["probs"]
        return probs


def test_outputs_and_model_become_artefacts(executor: Executor, tmp_path: Path) -> None:
    spec = make_spec(save_model=True)
    job = executor.start(spec, inputs_of(spec))
    assert job.experiment == "e0001"
    result = finished(job)
    assert result.failure is None and result.log_tail == ""
    assert probs_of(executor, result).shape == (len(ASKED), len(LABELS))
    assert result.usage.wall_s > 0 and result.usage.cpu_s > 0 and result.usage.max_rss_mb > 20
    assert result.model is not None
    executor.artifacts.restore_folder(result.model, tmp_path / "model")
    assert (tmp_path / "model" / "postgrad.json").is_file()
    assert not (executor.scratch / spec.job).exists(), "the job folder is removed once its files are stored"
    assert job.poll(0) == result


def test_a_tuned_model_passes_the_second_look(executor: Executor, tiny: Path) -> None:
    stage = Stage(backend="embedder", params={**TINY, "epochs": 2})
    result = run(executor, make_spec(stage, base_model=tiny, save_model=True))
    assert result.failure is None and result.model is not None
    assert not list(executor.scratch.iterdir()), "neither job leaves a folder"


def test_the_job_is_not_told_the_answers(executor: Executor) -> None:
    spec = make_spec()
    job = executor.start(spec, inputs_of(spec))
    folder = executor.scratch / spec.job
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {spec.units[0].predict, "job.json"} <= {path.name for path in files}
    assert not any(b"secret-" in path.read_bytes() for path in files)
    finished(job)


def test_several_units_in_one_job(executor: Executor) -> None:
    result = run(executor, make_spec(units=3))
    assert [unit.name for unit in result.units] == ["u0", "u1", "u2"]
    assert result.failure is None


# --- bad ends of the real worker --------------------------------------------------------------------------------------


def test_a_recipe_that_cannot_be_run(executor: Executor) -> None:
    failure = failure_of(run(executor, make_spec(Stage(backend="classic", params={"C": 0}))))
    assert (failure.boundary, failure.kind) == ("recipe", "invalid")


def test_a_job_out_of_time(executor: Executor, tiny: Path) -> None:
    spec = make_spec(Stage(backend="embedder", params=TINY), base_model=tiny, limits={"wall_s": 0.4})
    result = run(executor, spec)
    failure = failure_of(result)
    assert (failure.boundary, failure.kind) == ("resource", "timeout") and "0.4 s" in failure.message
    assert result.usage.wall_s >= 0.4


def test_a_job_out_of_memory(executor: Executor) -> None:
    failure = failure_of(run(executor, make_spec(limits={"memory_mb": 60})))
    assert (failure.boundary, failure.kind) == ("resource", "oom") and "60 MB" in failure.message


def shoot(executor: Executor, spec: JobSpec, job: RunningJob, *, after: int = 0) -> int:
    """Kill the worker of a job once it is at it, and is not `after`; return its number."""

    def there() -> list[psutil.Process]:
        assert job.poll(0.0) is None, "it ended before that"
        return [each for each in psutil.Process().children() if each.pid != after]

    until(lambda: (executor.scratch / spec.job / "progress.json").exists() and bool(there()))
    (worker,) = there()
    os.kill(worker.pid, signal.SIGKILL)
    return worker.pid


def test_a_worker_that_was_shot_goes_on_once(executor: Executor) -> None:
    spec = make_spec()
    whole = run(executor, spec)
    job = executor.start(spec, inputs_of(spec))
    os.kill(psutil.Process().children()[0].pid, signal.SIGKILL)
    found = finished(job)
    assert found.failure is None and found.units[0].outputs == whole.units[0].outputs, "and nobody sees it"
    assert job.used().wall_s == pytest.approx(found.usage.wall_s)


def test_a_worker_that_was_shot_twice(executor: Executor, tiny: Path) -> None:
    spec = make_spec(Stage(backend="embedder", params=SHORT), base_model=tiny)
    job = executor.start(spec, inputs_of(spec))
    first = shoot(executor, spec, job)
    before = psutil.Process().children()
    assert [each.pid for each in before] == [first]
    shoot(executor, spec, job, after=first)
    failure = failure_of(finished(job))
    assert (failure.boundary, failure.kind) == ("train", "crash")
    assert "SIGKILL" in failure.message and "unit 1 of 1" in failure.evidence


def test_a_worker_that_was_shot_with_much_memory_is_not_started_again(executor: Executor, tiny: Path) -> None:
    spec = make_spec(Stage(backend="embedder", params=SHORT), base_model=tiny, limits={"memory_mb": 700})
    job = executor.start(spec, inputs_of(spec))

    def large() -> bool:
        assert job.poll(0.0) is None, "it ended before that"
        return any(child.memory_info().rss > 400 << 20 for child in psutil.Process().children(recursive=True))

    until(large)
    until(lambda: job.poll(0.3) is None and (executor.scratch / spec.job / "progress.json").exists())
    os.kill(psutil.Process().children()[0].pid, signal.SIGKILL)
    assert failure_of(finished(job)).kind == "crash"


def test_a_stopped_job_goes_on_where_it_was(executor: Executor, tiny: Path) -> None:
    spec = make_spec(Stage(backend="embedder", params=TINY), base_model=tiny)
    job = executor.start(spec, inputs_of(spec))
    checkpoint = executor.scratch / spec.job / "checkpoint" / "u0"
    until(lambda: any(checkpoint.glob("state-*.pt")))
    job.stop()
    job.stop()
    stopped = failure_of(finished(job))
    assert (stopped.boundary, stopped.kind) == ("controller", "stopped")
    assert any(checkpoint.glob("state-*.pt")), "what was stopped can go on"
    resumed = run(executor, spec)
    assert resumed.failure is None and probs_of(executor, resumed).shape == (len(ASKED), len(LABELS))
    assert resumed.units[0].history[0][0] > 4, "the first epoch, four steps, was not done again"


def test_another_job_of_the_same_name_starts_afresh(executor: Executor) -> None:
    folder = executor.scratch / "e0001-search-u0-7"
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "job.json").write_text("{}")
    assert run(executor, make_spec()).failure is None
    assert not folder.exists()


# --- programs that misbehave ------------------------------------------------------------------------------------------

HEADER = f"""
import json, os, sys, time
from pathlib import Path
import numpy as np
folder = Path(sys.argv[1])
ids = [json.loads(line)["id"] for line in (folder / "u0.p").read_text().splitlines()]
probs = np.full((len(ids), {len(LABELS)}), 1 / {len(LABELS)}, dtype=np.float32)
score = np.zeros(len(ids), dtype=np.float32)
def save(name="u0", **changes):
    np.savez(folder / f"out-{{name}}.npz", **{{"ids": np.array(ids), "probs": probs, "score": score, **changes}})
def result(names=("u0",), **facts):
    units = [{{"name": name, "outputs": f"out-{{name}}.npz"}} for name in names]
    (folder / "result.json").write_text(json.dumps({{"job": folder.name, "units": units, **facts}}))
"""


@pytest.mark.parametrize(
    ("program", "address", "message"),
    [
        ("save(ids=np.array(ids[::-1])); result()", "predict/invalid_output", "not to the questions"),
        ("save(probs=probs[:, 1:]); result()", "predict/invalid_output", "shapes"),
        ("save(score=score[:, None]); result()", "predict/invalid_output", "shapes"),
        ("save(score=score * np.nan); result()", "predict/invalid_output", "not finite"),
        ("save(score=score - np.inf); result()", "predict/invalid_output", "not finite"),
        ("save(probs=probs * 2); result()", "predict/invalid_output", "sum to 1"),
        ("save(ids=np.array(ids, dtype=object)); result()", "isolation/pickle", "would run code"),
        ("(folder / 'out-u0.npz').write_bytes(b'PK nothing'); result()", "predict/invalid_output", "cannot be read"),
        ("result()", "predict/invalid_output", "cannot be read"),
        ("save('u9'); result(('u9',))", "isolation/forged_result", "nothing of that name"),
        ("result(())", "predict/invalid_output", "without outputs of u0"),
        ("save(); result(); (folder / 'result.json').write_text('{')", "predict/invalid_output", "result file"),
        ("save(); result(model='model')", "predict/invalid_output", "without its model"),
        ("sys.exit(0)", "train/crash", "without a result"),
        ("print('boom'); sys.exit(9)", "train/crash", "exit code 9"),
        ("save(); result(); os.abort()", "train/crash", "SIGABRT"),
        ("time.sleep(1000)", "resource/hung", "neither computed nor reported"),
    ],
)
def test_programs_that_misbehave(program: str, address: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(dedent(HEADER) + program)
    engine = LocalEngine(command=(sys.executable, "-P", str(tmp_path / "program.py")))
    for executor in opened(tmp_path, engine):
        spec = make_spec(save_model="model=" in program, limits={"hung_s": 1.0} if "hung" in address else {})
        failure = failure_of(run(executor, spec))
    assert f"{failure.boundary}/{failure.kind}" == address
    assert message in failure.message
    assert "boom" not in program or "boom" in failure.evidence


# What a job can do in its own folder where no sandbox holds its inputs: the next start would be shown what they name.
REACHING = """
import json, os, signal, sys
from pathlib import Path
folder = Path(sys.argv[1])
facts = json.loads((folder / "job.json").read_text())
(folder / "job.json").write_text(json.dumps(facts | {"base_model": str(folder.parent.parent / "secrets")}))
os.kill(os.getpid(), signal.SIGKILL)
"""


class Counting(LocalEngine):
    """Knows how many jobs it started."""

    starts = 0

    def start(self, folder: Path, limits: Limits) -> Handle:
        self.starts += 1
        return super().start(folder, limits)


def test_a_job_that_changed_its_inputs_and_was_killed_is_not_started_again(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(REACHING)
    engine = Counting(command=(sys.executable, "-P", str(tmp_path / "program.py")))
    engine.open(EngineSpec(workers=1, threads=1, sandbox="none"))
    executor = Executor(engine, Artifacts(tmp_path / "artifacts"), tmp_path / "scratch")
    failure = failure_of(run(executor, make_spec()))
    engine.close()
    assert (failure.boundary, failure.kind) == ("isolation", "changed_inputs") and "job.json" in failure.message
    assert engine.starts == 1


def test_what_a_job_put_in_place_of_its_home_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("""
import os, shutil, signal, sys
from pathlib import Path
folder = Path(sys.argv[1])
if not (folder / "again").exists():
    (folder / "again").touch()
    shutil.rmtree(folder / "private")
    (folder / "private").touch()
    os.kill(os.getpid(), signal.SIGKILL)
print("a folder" if (folder / "private").is_dir() else "none", flush=True)
""")
    engine = LocalEngine(command=(sys.executable, "-P", str(tmp_path / "program.py")))
    engine.open(EngineSpec(workers=1, threads=1, sandbox="none"))
    failure = failure_of(run(Executor(engine, Artifacts(tmp_path / "artifacts"), tmp_path / "scratch"), make_spec()))
    engine.close()
    assert failure.evidence == "a folder", "the second one has a home"


def test_nothing_is_written_through_what_a_job_put_in_place_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "program.py").write_text("""
import os, signal, subprocess, sys
from pathlib import Path
folder = Path(sys.argv[1])
print("said", flush=True)
if not (folder / "again").exists():
    (folder / "again").touch()
    (folder / "log.txt").unlink()
    subprocess.run(["ln", "-s", "../../mine", "log.txt"], cwd=folder, check=True)
    os.kill(os.getpid(), signal.SIGKILL)
""")
    engine = LocalEngine(command=(sys.executable, "-P", str(tmp_path / "program.py")))
    for executor in opened(tmp_path, engine):
        failure = failure_of(run(executor, make_spec()))
    assert (tmp_path / "mine").read_text() == "mine" and failure.evidence == "said", "the second one has a log"


def test_good_units_survive_a_bad_one(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(HEADER + "save('u0'); save('u1', score=score * np.nan); result(('u0', 'u1'))")
    engine = LocalEngine(command=(sys.executable, "-P", str(tmp_path / "program.py")))
    for executor in opened(tmp_path, engine):
        result = run(executor, make_spec(units=2))
    assert [unit.name for unit in result.units] == ["u0"]
    assert "u1" in failure_of(result).message


# --- the folder -------------------------------------------------------------------------------------------------------


def test_progress_is_for_a_person(executor: Executor) -> None:
    spec = make_spec(units=8)
    job = executor.start(spec, inputs_of(spec))
    seen = {job.progress()}
    while job.poll(0.01) is None:
        seen.add(job.progress())
    # Which states are seen depends on how fast the job is; that they are read and said does not.
    assert any(re.fullmatch(r".+ \(part [1-8] of 8\)", line) for line in seen), seen


def test_a_folder_that_cannot_be_written(executor: Executor) -> None:
    executor.scratch.write_text("a file is in the way")
    with pytest.raises(PostgradError, match="Cannot start job .* `postgrad resume`"):
        executor.start(make_spec(), inputs_of(make_spec()))


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden"])
def test_names_that_would_leave_the_folder(name: str, executor: Executor) -> None:
    with pytest.raises(PostgradError, match="cannot be the name"):
        executor.start(make_spec(job=name), inputs_of(make_spec()))


def test_clear_removes_what_was_left(executor: Executor) -> None:
    (executor.scratch / "old" / "checkpoint").mkdir(parents=True)
    executor.clear()
    assert not executor.scratch.exists()
    assert run(executor, make_spec()).failure is None
