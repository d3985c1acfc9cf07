"""What Slurm's commands are given and how their answers are read: no cluster is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from postgrad.engines import slurm
from postgrad.engines.remote.cluster import Request, Resources, Unreachable
from postgrad.engines.slurm import SlurmCluster, SlurmEngine, script
from postgrad.engines.slurm_words import COLUMNS, capacity, devices, jobs, minutes
from postgrad.errors import UserError
from postgrad.records import EngineSpec
from postgrad.spec import load_task

# As squeue, sinfo and sbatch 22.05 printed them.
SQUEUE = (
    ("postgrad-x-1", "1", "RUNNING", "0", "n1", "None", "0"),
    ("postgrad-x-2", "2", "PENDING", "0", "", "Resources", "0"),
    ("postgrad-x-3", "3", "CANCELLED", "0", "", "Priority", "0"),
    ("postgrad-x-4", "4", "TIMEOUT", "0", "n1", "TimeLimit", "9"),
    ("postgrad-x-5", "5", "FAILED", "0", "", "BadConstraints", "1"),
    ("postgrad-x-6", "6", "PENDING", "1", "", "BeginTime", "0"),
    ("postgrad-x-7", "7", "COMPLETED", "0", "n2", "None", "0"),
)
NODES = """n1|4|8000|gpu:2(S:0)|mixed
n1|4|8000|gpu:2(S:0)|mixed
n2|64|515000|gpu:a100:4(S:0-1),shard:8|idle~
n3|16|64000|(null)|down*
n4|16|64000+|gpu:1|drained"""
BAD_FEATURE = "sbatch: error: Batch job submission failed: Invalid feature specification"
LIMIT = """sbatch: error: QOSMaxSubmitJobPerUserLimit
sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, size, time limits)"""
AWAY = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"


def printed(rows: tuple[tuple[str, ...], ...]) -> str:
    """Rows as squeue prints them in columns."""
    return "".join("".join(c.ljust(w) for c, w in zip(r, COLUMNS.values(), strict=True)) + "\n" for r in rows)


def a_request(folder: Path, command: tuple[str, ...] = ("/bin/true",), **environment: str) -> Request:
    return Request(
        "postgrad-a-1", command, environment, str(folder), str(folder / "node.log"), Resources(2, 4000, 1.0), 5400
    )


def test_no_word_reaches_the_shell_of_a_job(tmp_path: Path) -> None:
    hostile = ["$(touch a)", "`touch b`", "two  words", "it's", 'a "quote"', "line\nbreak", "; touch c", "\\", "*", "é"]
    program = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['NOTE'], os.environ['PYTHONPATH']]))"
    request = a_request(
        tmp_path, (sys.executable, "-c", program, *hostile), NOTE=" ".join(hostile), PYTHONPATH="/a b/$HOME"
    )
    done = subprocess.run(["/bin/sh"], input=script(request), capture_output=True, text=True, cwd=tmp_path, check=True)
    assert json.loads(done.stdout) == [hostile, " ".join(hostile), "/a b/$HOME"]
    assert list(tmp_path.iterdir()) == []
    assert script(request).startswith("#!/bin/sh\n") and "\nexec " in script(request)
    with pytest.raises(AssertionError, match="names of variables"):
        script(replace(request, environment={"A;touch d": "x"}))


def cluster(**spec: object) -> SlurmCluster:
    """One whose settings are known, and which was not reached."""
    found = SlurmCluster()
    found._spec = EngineSpec.model_validate({"kind": "slurm", **spec})
    return found


def test_what_sbatch_is_asked_for() -> None:
    words = cluster(partition="gpu").command(a_request(Path("/run/50%j")))
    wanted = {"--job-name=postgrad-a-1", "--chdir=/run/50%j", "--output=/run/50%%j/node.log", "--no-requeue",
              "--open-mode=append", "--signal=B:TERM@30", "--time=90", "--cpus-per-task=2", "--mem=4512M",
              "--gres=gpu:1", "--partition=gpu", "--nodes=1", "--parsable"}  # fmt: skip
    assert wanted <= set(words)
    options = {"qos": "long", "gres": "gpu:a100:1", "mem-per-gpu": "40G", "time": "1:00:00", "exclusive": "yes"}
    words = cluster(options=options).command(a_request(Path("/run")))
    assert {"--qos=long", "--gres=gpu:a100:1", "--mem-per-gpu=40G", "--time=60", "--exclusive"} <= set(words)
    assert not any(word in words for word in ("--gres=gpu:1", "--mem=4512M", "--time=1:00:00"))
    short = cluster()
    short._longest_min = 30.0
    assert "--time=30" in short.command(a_request(Path("/run"))), "no more than the partition gives"


def test_states_of_jobs_are_read_from_columns() -> None:
    found = {job.name[-1]: job.status() for job in jobs(printed(SQUEUE))}
    states = {name: status.state for name, status in found.items()}
    assert states == {
        "1": "running",
        "2": "waiting",
        "3": "ended",
        "4": "ended",
        "5": "ended",
        "6": "ended",
        "7": "ended",
    }
    assert found["1"].node == "n1" and [name for name, status in found.items() if status.preempted] == ["4"]
    assert found["4"].said == "Slurm says of job 4: TIMEOUT (TimeLimit)."
    assert found["5"].said == "Slurm says of job 5: FAILED (BadConstraints), exit code 1."


@pytest.mark.parametrize(
    ("state", "reason", "stands", "preempted"),
    [
        ("CONFIGURING", "None", "waiting", False),
        ("SUSPENDED", "None", "waiting", False),
        ("COMPLETING", "None", "running", False),
        ("A_STATE_OF_A_LATER_SLURM", "None", "running", False),
        ("PREEMPTED", "None", "ended", True),
        ("DEADLINE", "DeadLine", "ended", True),
        ("REQUEUED", "None", "ended", True),
        ("NODE_FAIL", "NodeDown", "ended", False),
        ("OUT_OF_MEMORY", "OutOfMemory", "ended", False),
        ("BOOT_FAIL", "None", "ended", False),
        ("PENDING", "QOSMaxGRESPerJob", "ended", False),
        ("PENDING", "PartitionTimeLimit", "ended", False),
        ("PENDING", "QOSMaxJobsPerUserLimit", "waiting", False),
        ("PENDING", "JobHeldUser", "waiting", False),
    ],
)
def test_each_state_of_slurm_has_a_meaning(state: str, reason: str, stands: str, preempted: bool) -> None:
    (job,) = jobs(printed((("j", "1", state, "0", "n1", reason, "0"),)))
    assert (job.status().state, job.status().preempted) == (stands, preempted)


def test_times_and_devices_and_nodes() -> None:
    told = {"90": 90, "1:30": 1.5, "1:00:00": 60, "2-0": 2880, "1-12": 2160, "1-00:30": 1470, "1-01:00:30": 1500.5}
    assert {text: minutes(text) for text in told} == told
    assert [minutes(text) for text in ("infinite", "", "n/a", "1h")] == [None] * 4
    assert [devices(text) for text in ("gpu:2(S:0)", "gpu:a100:4(S:0-1),shard:8", "(null)", "mps:100", "gpu:0")] == [
        2, 4, 0, 0, 0,
    ]  # fmt: skip
    found = capacity([line.split("|") for line in NODES.splitlines()])
    assert (found.nodes, found.cores, found.memory_mb, found.gpus) == (2, 68, 523000, 6.0)
    assert found.said == ("2 of 4 nodes take jobs",)
    down = capacity([line.split("|") for line in NODES.splitlines()[3:]])
    assert (down.nodes, down.memory_mb) == (2, 128000), "they may come back"


def test_settings_are_checked_with_the_task_file(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(f"a{i},x\nb{i},y\n" for i in range(30)))
    text = "name: t\nobjective: o\nbudget: 1 experiments\ndata: {train: train.csv}\nengine: {kind: slurm, %s}\n"
    wrong = {
        "gpus: 0.5": r"whole devices.*shard:1",
        "address: 'http://a'": r"Slurm has none",
        "partition: 'a; b'": r"names of partitions",
        "options: {acount: a}": r"'acount' is no option for Slurm. Did you mean 'account'\?",
        "options: {array: 1-9}": r"'array' is set by the engine",
        "options: {partition: gpu}": r"'partition' is set by engine.partition",
        "options: {time: soon}": r"options.time is 'soon'",
        'options: {comment: "a\\nb"}': r"cannot be printed",
        "lease_s: 0": r"engine.lease_s is 0",
    }
    for line, words in wrong.items():
        (tmp_path / "task.yaml").write_text(text % line)
        with pytest.raises(UserError, match=words):
            load_task(tmp_path / "task.yaml")
    (tmp_path / "task.yaml").write_text(text % "partition: 'a,b-1', gpus: 1, options: {qos: long, time: '12:00:00'}")
    assert load_task(tmp_path / "task.yaml").engine.options["qos"] == "long"


# --- programs in the place of Slurm's, for answers that a healthy cluster does not give ------------------------------


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> None:
    """Make shell programs of these names be found first."""
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin:/bin")


def test_a_machine_without_slurm_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"no `sinfo` on this machine.*login node"):
        SlurmEngine().open(EngineSpec(kind="slurm"))


def test_a_limit_on_jobs_at_a_time_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = f"cat > {tmp_path}/given; test -e {tmp_path}/room && exec touch {tmp_path}/taken; echo '{LIMIT}' >&2; exit 1"
    stand_in(tmp_path, monkeypatch, squeue="exit 0", sbatch=full)
    monkeypatch.setattr(slurm, "HELD_AGAIN_S", 0.0)
    found = cluster()
    found.submit(a_request(tmp_path))
    assert found.statuses(["postgrad-a-1"])["postgrad-a-1"].state == "waiting"
    assert not (tmp_path / "taken").exists()
    (tmp_path / "room").touch()
    assert found.statuses(["postgrad-a-1"])["postgrad-a-1"].state == "gone" and (tmp_path / "taken").exists()
    assert (tmp_path / "given").read_text().startswith("#!/bin/sh\n")


def test_answers_that_pass_and_answers_that_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, squeue="exit 0", sbatch=f"echo '{AWAY}' >&2; exit 1")
    with pytest.raises(Unreachable, match="Unable to contact"):
        cluster().submit(a_request(tmp_path))
    stand_in(tmp_path, monkeypatch, sbatch=f"echo '{BAD_FEATURE}' >&2; exit 1")
    with pytest.raises(UserError, match="Invalid feature specification. Set engine.options.constraint"):
        cluster().submit(a_request(tmp_path))
    stand_in(
        tmp_path, monkeypatch, sbatch="sleep 20", squeue="echo 'slurm_load_jobs error: Socket timed out' >&2; exit 1"
    )
    with pytest.raises(Unreachable, match="Socket timed out"):
        cluster().statuses(["postgrad-a-1"])
    stand_in(tmp_path, monkeypatch, squeue="exec sleep 20")
    monkeypatch.setattr(slurm, "PATIENCE_S", 0.3)
    with pytest.raises(Unreachable, match="no answer"):
        cluster().submit(a_request(tmp_path))


def test_no_key_of_the_person_reaches_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, squeue="exit 0", sbatch=f"env > {tmp_path}/env; cat >> {tmp_path}/env")
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "SBATCH_EXPORT", "SBATCH_REQUEUE"):
        monkeypatch.setenv(name, "secret-of-the-person")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/other.conf")
    cluster().submit(a_request(tmp_path))
    text = (tmp_path / "env").read_text()
    assert "secret-of-the-person" not in text and "SLURM_CONF=/etc/slurm/other.conf" in text
