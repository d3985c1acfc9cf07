"""The engine over Slurm on a real cluster: slurmctld, two slurmd and munge on this machine."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import pytest

from postgrad.engines import slurm as slurm_module
from postgrad.engines.base import Engine
from postgrad.engines.local import LocalEngine
from postgrad.engines.remote import engine as engine_module
from postgrad.engines.remote.cluster import Unreachable
from postgrad.engines.remote.engine import RemoteHandle
from postgrad.engines.slurm import SlurmCluster, SlurmEngine
from postgrad.errors import UserError
from postgrad.execute.executor import Executor
from postgrad.records import EngineSpec, Limits, Stage
from postgrad.spec import load_task
from postgrad.store.artifacts import Artifacts
from postgrad.testing.backend import LABELS, WORDS
from postgrad.testing.engine import EngineContract, until
from postgrad.testing.language import make_tiny_lm
from slurm_nodes import Slurm, missing
from test_engine_remote import STEPS, held_at, steps_of, work_of
from test_executor import finished, inputs_of, make_spec
from test_scripts import driven, run_of, task_of

LIMITS = Limits(wall_s=100, memory_mb=1000, threads=1)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Slurm]:
    """A cluster that runs, for all tests. Nothing of it is left."""
    if why := missing():
        pytest.skip(f"no Slurm here: {why}")
    cluster = Slurm()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
    assert cluster.processes() == [] and not cluster.folder.exists()


@pytest.fixture
def slurm(nodes: Slurm, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """The cluster, as the one that the commands of this process find. It says at once what became of a job."""
    monkeypatch.setenv("SLURM_CONF", str(nodes.conf))
    monkeypatch.setattr(engine_module, "GRACE_S", 1.0)
    monkeypatch.setattr(engine_module, "ASK_S", 0.3)
    return nodes


@pytest.mark.usefixtures("slurm")
class TestSlurmEngine(EngineContract):
    def make(self, program: Path) -> Engine:
        return SlurmEngine((sys.executable, str(program)))

    def inside(self, folder: Path) -> Path:
        return work_of(folder)

    # What these are about is done by the node's own local engine, and is tested there; here they take long.
    @pytest.mark.slow
    def test_many_jobs_leak_nothing(self, tmp_path: Path) -> None:
        super().test_many_jobs_leak_nothing(tmp_path)

    @pytest.mark.slow
    def test_a_hung_job_is_ended_and_a_busy_or_talking_one_is_not(self, tmp_path: Path) -> None:
        super().test_a_hung_job_is_ended_and_a_busy_or_talking_one_is_not(tmp_path)

    @pytest.mark.slow
    def test_memory_of_children_counts(self, tmp_path: Path) -> None:
        super().test_memory_of_children_counts(tmp_path)


class Place:
    """A job of an engine that is open."""

    def __init__(self, folder: Path, program: str = STEPS, **spec: Any) -> None:
        self.program = folder / "program.py"
        self.program.write_text(program)
        self.spec = EngineSpec.model_validate({"kind": "slurm", "workers": 4, "threads": 1, "lease_s": 10.0, **spec})
        self.folder = folder / "job"
        self.folder.mkdir(exist_ok=True)
        self.engine = self.opened()

    def opened(self) -> SlurmEngine:
        engine = SlurmEngine((sys.executable, str(self.program)))
        engine.open(self.spec)
        return engine

    def started(self) -> RemoteHandle:
        handle = self.engine.start(self.folder, LIMITS)
        assert isinstance(handle, RemoteHandle)
        return handle

    def steps(self) -> dict[str, int]:
        return steps_of(self.folder)

    def go(self) -> None:
        """Let the last attempt go on to its end."""
        (work_of(self.folder) / "go").touch()


def names(slurm: Slurm) -> list[str]:
    """All jobs that this cluster remembers."""
    return slurm.said("squeue", "-h", "--states=all", "-o", "%j").split()


def test_a_job_cancelled_from_outside_goes_on_where_it_was_and_slurm_never_requeues_it(
    slurm: Slurm, tmp_path: Path
) -> None:
    place = Place(tmp_path, held_at(10))
    handle = place.started()
    until(lambda: handle.wait(0.1) is not None or place.steps()["steps"] >= 5)
    first = handle.name
    (number,) = slurm.said("squeue", "-h", f"--name={first}", "-o", "%i").split()
    refused = subprocess.run(["scontrol", "requeue", number], capture_output=True, text=True, check=False)
    assert refused.returncode != 0 and "disabled" in refused.stderr
    slurm.said("scancel", number)
    found = handle.wait(120)
    assert found is not None and (found.code, found.cause) == (0, None)
    assert place.steps() == {"starts": 2, "steps": 20}, "nothing was done twice"
    granted = json.loads((place.folder / "remote" / "grant.json").read_text())
    assert (granted["attempt"], granted["preempted"], granted["lost"]) == (2, 1, 0)
    assert "CANCELLED" in slurm.said("squeue", "-h", "--states=all", f"--name={first}", "-o", "%T")
    place.engine.close()


# Slow at first, so that the time limit comes in between; asked to end, it keeps what it has.
KEEPING = """
import json, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
kept = folder / "kept.json"
done = json.loads(kept.read_text()) if kept.exists() else {"starts": 0, "steps": 0}
done["starts"] += 1
def keep(number, frame):
    time.sleep(3)  # longer than a job gets that is merely stopped
    kept.write_text(json.dumps(done))
    sys.exit(1)
signal.signal(signal.SIGTERM, keep)
while done["steps"] < 400:
    time.sleep(0.2 if done["starts"] == 1 else 0.001)
    done["steps"] += 1
(folder / "result").write_text(json.dumps(done))
"""


def test_a_time_limit_leaves_time_for_a_checkpoint_and_the_job_goes_on_from_it(slurm: Slurm, tmp_path: Path) -> None:
    place = Place(tmp_path, KEEPING, options={"time": "1"}, lease_s=20.0)
    handle = place.started()
    found = handle.wait(200)
    assert found is not None and (found.code, found.cause) == (0, None)
    # Slurm asks for the end half a minute before the limit and up to half a minute earlier, so within a limit of a
    # minute at any moment, even before anybody listens: then that attempt counts as lost, and the next is like a first.
    kept = json.loads((place.folder / "kept.json").read_text())
    assert kept["starts"] == 1 and 0 <= kept["steps"] < 400, "an attempt was cut, and kept where it was"
    assert json.loads((place.folder / "result").read_text()) == {"starts": 2, "steps": 400}
    granted = json.loads((place.folder / "remote" / "grant.json").read_text())
    assert granted["preempted"] >= 1 and granted["attempt"] == 1 + granted["preempted"] + granted["lost"]
    place.engine.close()


GPU = """
import json, os, sys, time
from pathlib import Path
began = time.time()
time.sleep(1.5)
told = {"device": os.environ.get("CUDA_VISIBLE_DEVICES"), "began": began, "ended": time.time()}
(Path(sys.argv[1]) / "told.json").write_text(json.dumps(told))
"""


def test_a_device_is_never_used_by_two_jobs_at_once(slurm: Slurm, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(GPU)
    engine = SlurmEngine((sys.executable, str(program)))
    engine.open(EngineSpec(kind="slurm", threads=1, gpus=1, memory_mb=500))
    assert engine.slots == 2, "as many jobs as devices"
    handles = []
    for number in range(4):
        (tmp_path / f"job{number}").mkdir()
        handles.append(engine.start(tmp_path / f"job{number}", LIMITS))
    assert [found.code for handle in handles if (found := handle.wait(120)) is not None] == [0] * 4
    told = [json.loads((tmp_path / f"job{number}" / "told.json").read_text()) for number in range(4)]
    assert {each["device"] for each in told} == {"0", "1"}
    for device in ("0", "1"):
        spans = sorted((each["began"], each["ended"]) for each in told if each["device"] == device)
        assert all(ended <= began for (_, ended), (began, _) in zip(spans, spans[1:], strict=False))
    engine.close()


def test_a_node_that_dies_is_replaced_by_another(slurm: Slurm, tmp_path: Path) -> None:
    place = Place(tmp_path, held_at(10), lease_s=8.0, memory_mb=4000)
    handle = place.started()
    until(lambda: handle.wait(0.1) is not None or place.steps()["steps"] >= 5)
    first = place.engine.cluster.statuses([handle.name])[handle.name].node
    slurm.lose(first)
    try:
        found = handle.wait(180)
        assert found is not None and (found.code, found.cause) == (0, None)
        assert place.steps() == {"starts": 2, "steps": 20}
        second = place.engine.cluster.statuses([handle.name])[handle.name].node
        assert {first, second} == {"n1", "n2"}
        granted = json.loads((place.folder / "remote" / "grant.json").read_text())
        # Slurm has not noticed yet that the node is down, and is told to leave it out.
        assert granted["preempted"] == 0 and granted["lost"] == granted["attempt"] - 1 == 1
    finally:
        slurm.start_node(first)
        slurm.ready()
    place.engine.close()


CONTROLLER = """
import sys
from pathlib import Path
from postgrad.engines.slurm import SlurmEngine
from postgrad.records import EngineSpec, Limits
program, folder = sys.argv[1:]
engine = SlurmEngine((sys.executable, program))
engine.open(EngineSpec(kind="slurm", workers=2, threads=1))
handle = engine.start(Path(folder), Limits(wall_s=100, memory_mb=1000, threads=1))
print(handle.name, flush=True)
handle.wait(100)
"""


def test_a_controller_that_is_killed_finds_its_job(slurm: Slurm, tmp_path: Path) -> None:
    place = Place(tmp_path, held_at(10))
    controller = subprocess.Popen(
        [sys.executable, "-c", CONTROLLER, str(place.program), str(place.folder)], stdout=subprocess.PIPE, text=True
    )
    assert controller.stdout is not None
    name = controller.stdout.readline().strip()
    until(lambda: place.steps()["steps"] >= 1)
    controller.kill()
    controller.wait()
    controller.stdout.close()
    handle = place.started()
    assert handle.name == name
    place.go()
    found = handle.wait(120)
    assert found is not None and found.code == 0 and place.steps() == {"starts": 1, "steps": 20}
    assert names(slurm).count(name) == 1
    place.engine.cluster.submit(place.engine.request(handle._attempt, LIMITS))
    assert names(slurm).count(name) == 1, "a name that Slurm knows is no second job, also when it has ended"
    place.engine.close()


def test_a_slurm_that_does_not_answer_is_waited_for(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, held_at(10))
    handle = place.started()
    until(lambda: handle.wait(0.1) is not None or place.steps()["steps"] >= 2)
    slurm.freeze_controller()
    monkeypatch.setattr(slurm_module, "PATIENCE_S", 1.0)
    place.go()
    try:
        with pytest.raises(Unreachable):
            place.engine.cluster.statuses([handle.name])
        found = handle.wait(120)
        assert found is not None and found.code == 0 and place.steps()["starts"] == 1, "what counts is the lease"
        with pytest.raises(UserError, match="sinfo"):
            place.opened()
    finally:
        slurm.freeze_controller(signal.SIGCONT)
        slurm.ready()
    place.engine.close()


def test_what_the_cluster_has_and_what_it_does_not_know(slurm: Slurm, tmp_path: Path) -> None:
    found = SlurmCluster().open(EngineSpec(kind="slurm"))
    assert (found.nodes, found.cores, found.memory_mb, found.gpus) == (2, 8, 16000, 2.0)
    assert SlurmCluster().open(EngineSpec(kind="slurm", partition="one")).nodes == 1
    with pytest.raises(UserError, match="'mian', which Slurm does not know. Did you mean 'main'"):
        Place(tmp_path, partition="mian")
    with pytest.raises(UserError, match=r"refuses the job.*feature.*engine.options.constraint"):
        Place(tmp_path, options={"constraint": "h100"}).started()
    (tmp_path / "job" / "remote" / "grant.json").unlink()
    with pytest.raises(UserError, match="lower engine.memory_mb"):
        Place(tmp_path).engine.start(tmp_path / "job", Limits(wall_s=9, memory_mb=90_000, threads=1))


def test_what_a_job_printed_is_found_by_its_name_alone(slurm: Slurm, tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.spec = place.spec.model_copy(update={"python": "/bin/false", "retries": 0})
    place.engine = place.opened()
    handle = place.started()
    found = handle.wait(120)
    assert found is not None and found.cause == "lost"
    assert "FAILED (NonZeroExitCode), exit code" in (place.folder / "log.txt").read_text()
    log = place.folder / "remote" / "1" / "node.log"
    log.write_text("the last words")
    assert SlurmCluster().logs(handle.name) == "the last words"
    assert SlurmCluster().logs("postgrad-nobody") == ""
    place.engine.close()


# --- trainings, and a whole run ---------------------------------------------------------------------------------------


def test_a_training_on_slurm_gives_what_a_local_one_gives(slurm: Slurm, tmp_path: Path) -> None:
    found = []
    for name, engine in (("here", LocalEngine()), ("there", SlurmEngine())):
        engine.open(EngineSpec(kind="slurm", workers=1, threads=1))
        executor = Executor(engine, Artifacts(tmp_path / name / "artifacts"), tmp_path / name / "scratch")
        spec = make_spec(save_model=True)
        found.append(finished(executor.start(spec, inputs_of(spec))))
        engine.close()
    here, there = found
    assert here.failure is None and there.failure is None and there.usage.cpu_s > 0
    assert [unit.outputs for unit in there.units] == [unit.outputs for unit in here.units], "to the last bit"
    assert there.model == here.model


@pytest.mark.slow
def test_a_language_model_is_trained_on_two_nodes_together(slurm: Slurm, tmp_path: Path) -> None:
    phrases = [phrase for phrases in WORDS.values() for phrase in phrases]
    tiny = make_tiny_lm(tmp_path / "tiny", [*phrases, *LABELS * 3])
    stage = Stage(
        backend="causal_lm",
        params={
            "tune": "full",
            "lr": 3e-3,
            "epochs": 2,
            "batch_size": 4,
            "precision": "fp32",
        },
    )
    found = []
    for name, engine, nodes in (("here", LocalEngine(), 1), ("there", SlurmEngine(), 2)):
        kind = "local" if nodes == 1 else "slurm"
        engine.open(EngineSpec(kind=kind, workers=1, threads=1, nodes=nodes, sandbox="none", lease_s=10.0))
        executor = Executor(engine, Artifacts(tmp_path / name / "artifacts"), tmp_path / name / "scratch")
        spec = make_spec(stage, base_model=tiny, limits={"wall_s": 300.0})
        job = executor.start(spec, inputs_of(spec))
        found.append(job.poll(300.0))
        engine.close()
    here, there = found
    assert here is not None and there is not None and here.failure is None and there.failure is None, str(found)
    assert there.usage.cpu_s > here.usage.cpu_s, "what the processes of both nodes used is counted"
    alone, together = (np.array([loss for _, loss in result.units[0].history]) for result in found if result)
    assert len(alone) == len(together) > 4 and np.allclose(alone, together, rtol=0.02), "the same steps"
    assert not (tmp_path / "there" / "scratch" / spec.job).exists()


def write_task(folder: Path, engine: str) -> None:
    extras = ("now", "today", "please", "again", "quickly")
    rows = [(f"{verb} my {noun} {extra}", verb.upper()) for verb in ("open", "close", "find", "send")
            for noun in ("account", "card", "order") for extra in extras]  # fmt: skip
    with (folder / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    (folder / "task.yaml").write_text(
        "name: tiny\nobjective: tell verbs apart\nbase_models: []\nbudget: 2 experiments\n"
        f"data: {{train: train.csv}}\nengine: {engine}\n"
    )


@pytest.mark.slow
def test_a_run_on_slurm_ends_with_the_champion_of_a_local_one(slurm: Slurm, tmp_path: Path) -> None:
    found = []
    for name, engine in (("here", "{workers: 1, threads: 1}"), ("there", "{kind: slurm, workers: 1, threads: 1}")):
        (tmp_path / name).mkdir()
        write_task(tmp_path / name, engine)
        done = subprocess.run(
            [sys.executable, "-m", "postgrad", "run", "task.yaml", "--json"],
            cwd=tmp_path / name,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        found.append(json.loads(done.stdout))
    here, there = found
    assert there["failures"] == 0 and there["experiments"] == here["experiments"]
    assert there["champion"] == here["champion"] and there["sealed"] == here["sealed"]
    assert sum("postgrad-e00" in name for name in names(slurm)) >= 4, "and its jobs were Slurm's"


@pytest.mark.slow
def test_a_script_runs_on_slurm_with_its_referee(slurm: Slurm, tmp_path: Path) -> None:
    found = []
    for name, engine in (("here", "{workers: 1}"), ("there", "{kind: slurm, workers: 1}")):
        task = task_of(tmp_path / name, budget="2 experiments")
        path = tmp_path / name / "task.yaml"
        path.write_text(path.read_text().replace("{workers: 1}", engine))
        task = load_task(path)
        events = driven(run_of(tmp_path / name, task))
        (read,) = [event.body.read for event in events if event.body.type == "sealed_done"]
        found.append([(score.role, score.experiment, score.estimate.value) for score in read.scores])
    assert found[0] == found[1]
