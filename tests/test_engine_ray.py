"""The cluster `ray` speaks Ray's Jobs API: what it asks for, and what it makes of answers and of none."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest

from free_ports import free_ports
from postgrad.engines import ENGINES
from postgrad.engines.ray import RayCluster, RayEngine, address_of, entrypoint, last_words
from postgrad.engines.remote.cluster import Request, Resources, Unreachable
from postgrad.errors import UserError
from postgrad.records import EngineSpec
from ray_server import EXISTS, MB, Dashboard, served

NAMES = ("postgrad-a-1-0f", "postgrad-b-1-0f")


@pytest.fixture
def dashboard() -> Iterator[Dashboard]:
    with served() as found:
        yield found


def spec(dashboard: Dashboard, **more: object) -> EngineSpec:
    facts = {"kind": "ray", "address": dashboard.address, "threads": 2, "memory_mb": 3000, **more}
    return EngineSpec.model_validate(facts)


def opened(dashboard: Dashboard, **more: object) -> RayCluster:
    cluster = RayCluster()
    cluster.open(spec(dashboard, **more))
    return cluster


def request(name: str = NAMES[0], folder: str = "/run/a job") -> Request:
    return Request(
        name=name,
        command=("/opt/my env/bin/python", "-c", "print('$HOME'; 1)"),
        environment={"PYTHONPATH": "/opt/a b"},
        folder=folder,
        log=f"{folder}/node.log",
        resources=Resources(cores=2, memory_mb=3000, gpus=0.5),
        limit_s=60,
    )


# --- opening ----------------------------------------------------------------------------------------------------------


def test_open_says_what_the_living_nodes_have(dashboard: Dashboard) -> None:
    found = RayCluster().open(spec(dashboard))
    assert (found.nodes, found.cores, found.gpus) == (2, 6, 1.0) and found.memory_mb == 16000
    engine = RayEngine()
    engine.open(spec(dashboard))
    assert engine.slots == 3 and engine.threads == 2
    assert isinstance(ENGINES.get("ray"), RayEngine)


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ("http://head:8265", "http://head:8265"),
        (" https://ray.example.org/team/ ", "https://ray.example.org/team"),
        ("head:9000", "http://head:9000"),
        ("head", "http://head:8265"),
        ("10.0.0.7", "http://10.0.0.7:8265"),
        ("[::1]", "http://[::1]:8265"),
        ("http://head", "http://head"),
    ],
)
def test_forms_of_an_address(told: str, meant: str) -> None:
    assert address_of(EngineSpec(address=told)) == meant


@pytest.mark.parametrize(
    ("told", "advice"),
    [
        (None, "engine.address is missing"),
        ("auto", "engine.address is missing"),
        ("ray://head:10001", "http://head:8265"),
        ("ftp://head:8265", "expected http"),
        ("http://", "expected http"),
        ("http://head:port", "no address"),
        ("http://me:secret@head:8265", "headers_env"),
        ("http://head:8265/?x=1", "expected http"),
    ],
)
def test_what_is_no_address(told: str | None, advice: str) -> None:
    with pytest.raises(UserError, match=advice) as found:
        address_of(EngineSpec(address=told))
    assert "secret" not in str(found.value)


def test_nothing_at_the_address_is_said_with_advice() -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(UserError, match="does not answer: .*refused.*ray start --head"):
        RayCluster().open(EngineSpec(address=address))


def test_something_else_at_the_address(dashboard: Dashboard) -> None:
    for answer in ({"version": "other"}, ["a", "list"]):
        dashboard.version = answer
        with pytest.raises(UserError, match="is not Ray's dashboard"):
            opened(dashboard)
    dashboard.fault = (200, "<html>hello</html>", {})
    with pytest.raises(UserError, match="no JSON"):
        opened(dashboard)
    dashboard.fault = (404, "404: Not Found", {})
    with pytest.raises(UserError, match=r"404: Not Found.*ray\[default\]"):
        opened(dashboard)


def test_an_old_version_is_refused(dashboard: Dashboard) -> None:
    dashboard.version = {"version": "4", "ray_version": "2.7.1"}
    with pytest.raises(UserError, match="runs Ray 2.7.1; expected 2.9"):
        opened(dashboard)


def test_a_job_that_no_node_can_hold_is_refused_before_it_waits_for_ever(dashboard: Dashboard) -> None:
    with pytest.raises(UserError, match=r"CPU 5 \(most: 4\), memory 3000 MB \(most: 8000 MB\)"):
        opened(dashboard, threads=5)
    with pytest.raises(UserError, match=r"tpu 1 \(most: 0\)"):
        opened(dashboard, options={"resources": '{"tpu": 1}'})
    with pytest.raises(UserError, match="No node"):
        opened(dashboard, threads=4, gpus=2)
    engine = RayEngine()
    engine.open(spec(dashboard, threads=5, workers=7, options={"autoscaler": "true"}))
    assert engine.slots == 7


@pytest.mark.parametrize(
    ("more", "advice"),
    [
        ({"nodes": 2}, "engine.nodes is not for ray"),
        ({"partition": "gpu"}, "engine.partition is not for ray"),
        ({"options": {"resource": "{}"}}, "Did you mean 'resources'"),
        ({"options": {"resources": "a100=1"}}, "no JSON object"),
        ({"options": {"resources": '{"a100": "many"}'}}, "no number above 0"),
        ({"options": {"autoscaler": "yes"}}, 'expected "true" or "false"'),
        ({"options": {"token_env": "POSTGRAD_TEST_NO_TOKEN"}}, "which is not set"),
    ],
)
def test_settings_that_are_wrong(dashboard: Dashboard, more: dict[str, object], advice: str) -> None:
    with pytest.raises(UserError, match=advice) as found:
        opened(dashboard, **more)
    assert RayEngine().complaints(spec(dashboard, **more)) == [str(found.value)]
    assert RayEngine().complaints(spec(dashboard)) == [] and dashboard.asked == []


# --- who asks ---------------------------------------------------------------------------------------------------------


def test_a_token_comes_from_the_environment_and_goes_nowhere_else(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    dashboard.token = "t0ken-1"
    with pytest.raises(UserError, match=r"\(401\): Unauthorized.*token_env"):
        opened(dashboard)
    monkeypatch.setenv("MY_TOKEN", "t0ken-1\n")
    cluster = opened(dashboard, options={"token_env": "MY_TOKEN"})
    cluster.submit(request())
    assert cluster.statuses(NAMES[:1])[NAMES[0]].state == "waiting"
    assert "t0ken-1" not in str(dashboard.bodies)
    with served() as other:
        dashboard.fault = (307, "", {"Location": f"{other.address}/api/jobs/"})
        with pytest.raises(Unreachable):
            cluster.statuses(NAMES[:1])
        assert other.asked == [], "a redirection would take the token along"


def test_other_headers_come_from_one_variable(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    dashboard.token = "t0ken-2"
    monkeypatch.setenv("MY_HEADERS", '{"Authorization": "Bearer t0ken-2"}')
    opened(dashboard, options={"headers_env": "MY_HEADERS"})
    for wrong, advice in (("Authorization: Bearer t0ken-2", "no JSON object"), ('{"A": "b\\r\\nC: d"}', "line break")):
        monkeypatch.setenv("MY_HEADERS", wrong)
        with pytest.raises(UserError, match=advice) as found:
            opened(dashboard, options={"headers_env": "MY_HEADERS"})
        assert "t0ken-2" not in str(found.value)


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_a_job_is_asked_for_with_what_it_needs_and_once(dashboard: Dashboard) -> None:
    cluster = opened(
        dashboard, options={"resources": '{"GPU_A": 1}', "autoscaler": "true", "label_selector": '{"z": 1}'}
    )
    cluster.submit(request())
    cluster.submit(request())
    first, second = dashboard.bodies
    assert first == second and list(dashboard.jobs) == [NAMES[0]], "a second submission is no second job"
    needs = {name.removeprefix("entrypoint_"): value for name, value in first.items() if "entrypoint_" in name}
    assert needs == {
        "num_cpus": 2, "num_gpus": 0.5, "memory": 3000 * MB, "resources": {"GPU_A": 1}, "label_selector": {"z": "1"},
    }  # fmt: skip
    assert first["submission_id"] == NAMES[0]
    assert "PYTHONPATH" not in str(first["runtime_env"]), "Ray's own process would get it as well"
    opened(dashboard).submit(request("other"))
    assert "entrypoint_label_selector" not in dashboard.bodies[-1]


def test_the_command_is_quoted_for_the_shell(tmp_path: Path) -> None:
    folder = tmp_path / "a $(job) 'x'"
    folder.mkdir()
    program = "import os, sys; print(os.getcwd(), os.environ['MARK'], sys.argv[1:])"
    made = Request(
        name="x",
        command=(sys.executable, "-c", program, "$HOME; 'y' `z`", ""),
        environment={"MARK": "a b; $c"},
        folder=str(folder),
        log="",
        resources=Resources(),
        limit_s=1,
    )
    done = subprocess.run(entrypoint(made), shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{folder} a b; $c [\"$HOME; 'y' `z`\", '']"
    folder.rmdir()
    done = subprocess.run(entrypoint(made), shell=True, capture_output=True, text=True)
    assert done.returncode == 66 and f"does not see {folder}" in done.stdout


def test_statuses_of_many_jobs_are_one_question(dashboard: Dashboard) -> None:
    cluster = opened(dashboard)
    told = {
        "PENDING": "waiting", "RUNNING": "running", "SUCCEEDED": "ended", "FAILED": "ended", "STOPPED": "ended",
        "SOMETHING_NEW": "running",
    }  # fmt: skip
    for status in told:
        dashboard.jobs[status] = {"submission_id": status, "status": status, "message": None}
    dashboard.jobs["RUNNING"] |= {
        "driver_agent_http_address": "http://10.0.0.7:52365",
        "driver_node_id": "0123456789ab",
    }
    dashboard.asked.clear()
    found = cluster.statuses([*told, "unknown"])
    assert {name: status.state for name, status in found.items()} == {**told, "unknown": "gone"}
    assert found["RUNNING"].node == "10.0.0.7 (01234567)"
    assert dashboard.asked == [("GET", "/api/jobs/")]
    dashboard.asked.clear()
    few = ("PENDING", "unknown")
    assert cluster.statuses(few) == {name: found[name] for name in few}
    assert dashboard.asked == [("GET", f"/api/jobs/{name}") for name in few], "all that ever ran is not asked for"


def test_a_job_that_ray_gave_up_before_it_began_is_asked_for_again(dashboard: Dashboard) -> None:
    cluster = opened(dashboard)
    cluster.submit(request())
    why = {"status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_START_TIMEOUT", "message": "within 900.0 seconds"}
    dashboard.jobs[NAMES[0]] |= why
    found = cluster.statuses(NAMES[:1])[NAMES[0]]
    assert (found.state, found.said) == ("gone", "within 900.0 seconds")
    cluster.submit(request())
    assert cluster.statuses(NAMES[:1])[NAMES[0]].state == "waiting"


def test_logs_and_cancel(dashboard: Dashboard) -> None:
    cluster = opened(dashboard)
    assert cluster.logs(NAMES[0]) == ""
    cluster.cancel(NAMES[0])
    cluster.submit(request())
    dashboard.jobs[NAMES[0]]["logs"] = "x" * 100_000 + "the end"
    assert cluster.logs(NAMES[0]).endswith("the end") and len(cluster.logs(NAMES[0])) == 1 << 16
    cluster.cancel(NAMES[0])
    cluster.cancel(NAMES[0])
    assert cluster.statuses(NAMES[:1])[NAMES[0]].state == "ended"


# --- faults -----------------------------------------------------------------------------------------------------------

Fault = tuple[int, str, dict[str, str]] | str
FAULTS: tuple[Fault, ...] = (
    (500, "Traceback (most recent call last):\nRuntimeError: no agent", {}),
    (503, "", {}),
    "cut",
    (200, "{", {}),
)


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_passes_is_unreachable(dashboard: Dashboard, fault: Fault) -> None:
    cluster = opened(dashboard)
    dashboard.fault = fault
    for asked in (
        lambda: cluster.submit(request()),
        lambda: cluster.statuses(NAMES),
        lambda: cluster.logs(NAMES[0]),
        lambda: cluster.cancel(NAMES[0]),
    ):
        with pytest.raises(Unreachable):
            asked()
    dashboard.fault = None
    cluster.submit(request())
    assert cluster.statuses(NAMES)[NAMES[0]].state == "waiting", "and it goes on afterwards"


def test_what_ray_refuses_is_said_in_its_words(dashboard: Dashboard) -> None:
    cluster = opened(dashboard)
    words = "ValueError: Invalid label selector value: 'a b'."
    inside = EXISTS.rpartition("ValueError:")[0] + words
    outside = f"Traceback (most recent call last):\n  File x\n{words}\n"
    for status, text in ((400, outside), (500, inside)):
        dashboard.fault = (status, text, {})
        with pytest.raises(UserError, match="Invalid label selector value: 'a b'"):
            cluster.submit(request())
        with pytest.raises(Unreachable):
            cluster.statuses(NAMES)


def test_last_words_leave_the_call_stack_out() -> None:
    assert last_words("") == ""
    assert last_words("one\ntwo") == "one\ntwo"
    assert last_words("Traceback (most recent call last):\n  File x\n    y\nValueError: z") == "ValueError: z"
    assert len(last_words("x" * 5000)) == 1000


def test_a_server_that_says_nothing_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postgrad.engines.ray.ASK_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match="does not answer: .*timed out"):
            RayCluster().open(EngineSpec(address=address))
