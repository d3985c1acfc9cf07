"""Jobs on a Ray cluster, through its Jobs API over plain HTTP: no Ray on the controller, and none in the jobs' Python.

A job's name is Ray's submission id, so that one which is submitted twice is one job. Ray is asked to find a node with
room, to start the job there, to say how it stands and to end it; that a node is lost, and that a job is started again,
is for the lease (`remote/lease.py`). Tried with Ray 2.60; the fields are those of `POST /api/jobs/` in its REST API.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from dataclasses import dataclass
from typing import Any, Mapping, Sequence
from urllib.parse import quote, urlsplit

from postgrad.engines.local import WORKER
from postgrad.engines.remote.cluster import Capacity, Request, State, Status, Unreachable
from postgrad.engines.remote.engine import RemoteEngine
from postgrad.engines.remote.http import Answered, Service
from postgrad.errors import UserError, near_miss
from postgrad.records import EngineSpec

PORT = 8265
# The first with all fields that are sent.
OLDEST = (2, 9)
ASK_S, SUBMIT_S = 20.0, 60.0
# Of so many jobs each is asked after by itself.
FEW = 3
LOG_CHARS, SAID_CHARS = 1 << 16, 1000
MB = 1 << 20
# Seconds between Ray's SIGTERM and its SIGKILL. The default of 3 is less than a job needs to keep what it has.
STOP_WAIT = {"RAY_JOB_STOP_WAIT_TIME_S": "30"}
OPTIONS = ("autoscaler", "headers_env", "label_selector", "resources", "token_env")
STATES: Mapping[str, State] = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "SUCCEEDED": "ended",
    "FAILED": "ended",
    "STOPPED": "ended",
}
# Ray gives up a job that found no room for a quarter of an hour. It never began, so it is asked for again.
NEVER_BEGAN = "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"
# The head hands a job to an agent of its own. What that refuses, it passes on as a fault of its own.
REFUSED_INSIDE = re.compile(r"Request failed with status code 4\d\d")
KNOWN_ALREADY = "already exists"
ERROR = re.compile(r"[A-Za-z_.]+: ")


class RayEngine(RemoteEngine):
    """The engine `ray`."""

    def __init__(self, command: Sequence[str] = WORKER) -> None:
        super().__init__(RayCluster(), command)

    def complaints(self, spec: EngineSpec) -> list[str]:
        """What is wrong with the settings, as far as can be said without the cluster."""
        try:
            settings_of(spec)
        except UserError as problem:
            return [str(problem)]
        return []


class Refused(Exception):
    """The dashboard answered, and will not do it: the status (4xx or a redirection), and its words."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status, self.said = status, said


@dataclass(frozen=True)
class Wishes:
    """What `engine.options` say."""

    headers: Mapping[str, str]
    resources: Mapping[str, float]
    labels: Mapping[str, str]
    autoscaler: bool

    @classmethod
    def of(cls, options: Mapping[str, str]) -> Wishes:
        """Read them.

        Raises:
            UserError: one is not known, or says nothing that can be used.
        """
        for name in options:
            if name not in OPTIONS:
                hint = near_miss(name, OPTIONS)
                raise UserError(f"engine.options.{name} is unknown.{hint} Known for ray: {', '.join(OPTIONS)}.")
        if (grows := options.get("autoscaler", "false")) not in ("true", "false"):
            raise UserError(f'engine.options.autoscaler is \'{grows}\'; expected "true" or "false".')
        resources = _object(options.get("resources", "{}"), "engine.options.resources", '{"a100": 1}')
        labels = _object(options.get("label_selector", "{}"), "engine.options.label_selector", '{"zone": "b"}')
        if not all(isinstance(amount, int | float) and amount > 0 for amount in resources.values()):
            raise UserError("engine.options.resources holds an amount that is no number above 0. Change it.")
        return cls(_headers(options), resources, {k: str(v) for k, v in labels.items()}, grows == "true")


def _headers(options: Mapping[str, str]) -> dict[str, str]:
    """Headers that say who asks. The options name environment variables: a task file holds no key."""
    found = {}
    if name := options.get("headers_env"):
        told = _object(_variable(name, "headers_env"), f"The environment variable {name}", '{"Cookie": "..."}')
        found = {key: str(value) for key, value in told.items()}
    if name := options.get("token_env"):
        found["Authorization"] = f"Bearer {_variable(name, 'token_env').strip()}"
    if any(mark in text for pair in found.items() for text in pair for mark in "\r\n"):
        raise UserError("A header for Ray holds a line break. Set its environment variable again, without.")
    return found


def _variable(name: str, option: str) -> str:
    if not (value := os.environ.get(name, "")):
        raise UserError(f"engine.options.{option} names the environment variable {name}, which is not set. Set it.")
    return value


def _object(text: str, where: str, example: str) -> dict[str, Any]:
    """A JSON object. What it holds may be secret and is not repeated."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{where} is no JSON object; expected one such as {example}.")
    return found


def settings_of(spec: EngineSpec) -> tuple[str, Wishes]:
    """The address, and the rest.

    Raises:
        UserError: a setting is wrong, or not for this engine.
    """
    if spec.nodes != 1 or spec.partition is not None:
        key = "nodes" if spec.nodes != 1 else "partition"
        raise UserError(f"engine.{key} is not for ray: a job has one node, which engine.options.resources choose.")
    return address_of(spec), Wishes.of(spec.options)


def address_of(spec: EngineSpec) -> str:
    """Where the dashboard is, without a slash at its end.

    Raises:
        UserError: that is no address of one.
    """
    told = (spec.address or "").strip()
    example = f"http://127.0.0.1:{PORT}"
    if not told or told == "auto":
        raise UserError(f"engine.address is missing: that of Ray's dashboard, such as {example}.")
    if told.startswith("ray://"):
        host = urlsplit(told).hostname or "HOST"
        raise UserError(
            f"engine.address is '{told}', which is Ray's client port. Jobs go to the dashboard: http://{host}:{PORT}."
        )
    try:
        parts = urlsplit(told if "://" in told else f"http://{told}")
        bare = parts.port is None and "://" not in told
    except ValueError:
        raise UserError(f"engine.address is '{told}', which is no address; expected {example}.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UserError(f"engine.address is '{told}'; expected http:// or https://, a host and a port: {example}.")
    if "@" in parts.netloc:
        raise UserError(
            "engine.address holds a user name or a password. Put the header into an environment variable, and its name "
            "into engine.options.headers_env."
        )
    return f"{parts.scheme}://{parts.netloc}{f':{PORT}' if bare else ''}{parts.path.rstrip('/')}"


class Dashboard:
    """Ray's dashboard."""

    def __init__(self, address: str, headers: Mapping[str, str]) -> None:
        self.address = address
        self._service = Service(address, headers)

    def ask(self, method: str, path: str, body: object = None, within_s: float | None = None) -> Any:
        """The answer, from JSON.

        Raises:
            Refused: it will not.
            Unreachable: it did not answer, or with something else, or could not.
        """
        try:
            return self._service.ask(method, path, body, within_s or ASK_S)
        except Answered as problem:
            said = last_words(problem.text)
            if problem.status >= 500 and not REFUSED_INSIDE.search(problem.text):
                raise Unreachable(f"{self.address} failed ({problem.status}): {said}") from None
            raise Refused(problem.status, said or problem.reason) from None


def last_words(text: str) -> str:
    """What a person is told of a log or of a traceback: its end, without the call stack."""
    lines = text.strip().splitlines()
    if lines and lines[0].startswith("Traceback"):
        errors = [number for number, line in enumerate(lines) if ERROR.match(line)]
        lines = lines[errors[-1] :] if errors else lines[-1:]
    return "\n".join(lines)[-SAID_CHARS:].rstrip("\n.")


class RayCluster:
    """The cluster behind a dashboard."""

    def __init__(self) -> None:
        self._wishes = Wishes({}, {}, {}, autoscaler=False)
        self._dashboard = Dashboard("", {})

    def open(self, spec: EngineSpec) -> Capacity:
        address, self._wishes = settings_of(spec)
        self._dashboard = Dashboard(address, self._wishes.headers)
        try:
            version = self._version()
            nodes = self._nodes()
        except Unreachable as problem:
            raise UserError(
                f"{problem}. Expected Ray's dashboard there (engine.address). Start a cluster with `ray start --head`, "
                "or forward the port of one to this machine: docs/engines.md#ray."
            ) from None
        except Refused as problem:
            raise UserError(self._advice(problem)) from None
        if self._wishes.autoscaler:
            return Capacity(said=(f"Ray {version}, which starts nodes as they are needed",))
        self._fits(spec, nodes)
        return _capacity(version, nodes)

    def _version(self) -> str:
        found = self._dashboard.ask("GET", "/api/version")
        version = found.get("ray_version") if isinstance(found, dict) else None
        if not isinstance(version, str):
            raise Unreachable(f"{self._dashboard.address} is not Ray's dashboard")
        numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        if numbers < OLDEST:
            wanted = ".".join(map(str, OLDEST))
            raise UserError(f"The cluster runs Ray {version}; expected {wanted} or newer. Update it.")
        return version

    def _nodes(self) -> list[Mapping[str, float]]:
        """What each living node has, by Ray's names of resources."""
        found = self._dashboard.ask("GET", "/api/v0/nodes?detail=1&limit=10000")
        try:
            listed = found["data"]["result"]["result"]
            return [node["resources_total"] for node in listed if node["state"] == "ALIVE"]
        except (KeyError, TypeError):
            raise Unreachable(f"{self._dashboard.address} does not list its nodes") from None

    def _advice(self, problem: Refused) -> str:
        where = f"{self._dashboard.address} says ({problem.status}): {problem.said}."
        if problem.status in (401, 403) or 300 <= problem.status < 400:
            return (
                f"{where} It wants to know who asks: put the token into an environment variable, and the name of that "
                "into engine.options.token_env (or headers_env, for other headers)."
            )
        return f"{where} Expected the dashboard of a cluster with the package ray[default]. Check engine.address."

    def _fits(self, spec: EngineSpec, nodes: Sequence[Mapping[str, float]]) -> None:
        """Ray lets a job that no node can hold wait without a word."""
        needed = {"CPU": float(spec.threads or 1), "memory": float(spec.memory_mb * MB), **self._wishes.resources}
        needed |= {"GPU": spec.gpus} if spec.gpus else {}
        if any(all(node.get(name, 0.0) >= amount for name, amount in needed.items()) for node in nodes):
            return
        most = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in needed}
        told = ", ".join(f"{name} {_amount(name, needed[name])} (most: {_amount(name, most[name])})" for name in needed)
        raise UserError(
            f"No node of the Ray cluster can hold one job: it needs {told}. Lower engine.threads, memory_mb, gpus or "
            "options.resources, or start such a node. Where an autoscaler does: options: {autoscaler: 'true'}."
        )

    # --- jobs -----------------------------------------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        try:
            self._submit(request)
        except Refused as problem:
            if KNOWN_ALREADY not in problem.said:
                raise UserError(f"Ray refuses the job ({problem.status}): {problem.said}") from None
            self._again(request)

    def _submit(self, request: Request) -> None:
        self._dashboard.ask("POST", "/api/jobs/", self._body(request), SUBMIT_S)

    def _again(self, request: Request) -> None:
        """A job that is known already: nothing to do, but for one that Ray gave up before it began."""
        path = f"/api/jobs/{quote(request.name)}"
        try:
            found = self._dashboard.ask("GET", path)
            if isinstance(found, dict) and found.get("error_type") == NEVER_BEGAN:
                self._dashboard.ask("DELETE", path)
                self._submit(request)
        except Refused as problem:
            raise Unreachable(problem.said) from None

    def _body(self, request: Request) -> dict[str, Any]:
        needs = request.resources
        body: dict[str, Any] = {
            "entrypoint": entrypoint(request),
            "submission_id": request.name,
            "entrypoint_num_cpus": needs.cores,
            "entrypoint_num_gpus": needs.gpus,
            "entrypoint_memory": needs.memory_mb * MB,
            "entrypoint_resources": dict(self._wishes.resources),
            "runtime_env": {"env_vars": STOP_WAIT},
            "metadata": {"postgrad": request.name},
        }
        # Older ones know no labels, and refuse a field that they do not know.
        return body | ({"entrypoint_label_selector": dict(self._wishes.labels)} if self._wishes.labels else {})

    def statuses(self, names: Sequence[str]) -> Mapping[str, Status]:
        known = self._each(names) if len(names) <= FEW else self._listed()
        return {name: _status(known[name]) if name in known else Status("gone") for name in names}

    def _each(self, names: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """One question a job. The list of all would hold whatever the cluster ever ran."""
        known: dict[str, Mapping[str, Any]] = {}
        for name in names:
            try:
                found = self._dashboard.ask("GET", f"/api/jobs/{quote(name)}")
            except Refused as problem:
                if problem.status != 404:
                    raise Unreachable(problem.said) from None
                continue
            if not isinstance(found, dict):
                raise Unreachable(f"{self._dashboard.address} does not say how a job stands")
            known[name] = found
        return known

    def _listed(self) -> Mapping[str, Mapping[str, Any]]:
        try:
            listed = self._dashboard.ask("GET", "/api/jobs/")
        except Refused as problem:
            raise Unreachable(problem.said) from None
        if not isinstance(listed, list):
            raise Unreachable(f"{self._dashboard.address} does not list its jobs")
        return {str(job.get("submission_id")): job for job in listed if isinstance(job, dict)}

    def logs(self, name: str) -> str:
        """Kept by Ray on the node where the job ran: with the node they are lost."""
        try:
            found = self._dashboard.ask("GET", f"/api/jobs/{quote(name)}/logs")
        except Refused:
            return ""
        text = found.get("logs") if isinstance(found, dict) else None
        return text[-LOG_CHARS:] if isinstance(text, str) else ""

    def cancel(self, name: str) -> None:
        try:
            self._dashboard.ask("POST", f"/api/jobs/{quote(name)}/stop")
        except Refused as problem:
            if problem.status != 404:
                raise Unreachable(problem.said) from None

    def close(self) -> None:
        """Nothing is held between two questions."""


def entrypoint(request: Request) -> str:
    """The job for a shell. Its environment is set here and not by Ray, which would set it for a process of its own as
    well: there, a PYTHONPATH brings the packages of another environment."""
    folder = shlex.quote(request.folder)
    unseen = shlex.quote(f"This node does not see {request.folder}: the folder of the run has to be shared.")
    words = ["env", *(f"{name}={value}" for name, value in request.environment.items()), *request.command]
    return f"cd {folder} || {{ echo {unseen}; exit 66; }}; exec {shlex.join(words)}"


def _status(job: Mapping[str, Any]) -> Status:
    if job.get("error_type") == NEVER_BEGAN:
        return Status("gone", said=last_words(str(job.get("message") or "")))
    host = urlsplit(str(job.get("driver_agent_http_address") or "")).hostname or ""
    node = f"{host} ({str(job.get('driver_node_id'))[:8]})" if host else ""
    state = STATES.get(str(job.get("status")), "running")
    return Status(state, node, last_words(str(job.get("message") or "")))


def _capacity(version: str, nodes: Sequence[Mapping[str, float]]) -> Capacity:
    able = [node for node in nodes if node.get("CPU", 0.0) > 0]
    return Capacity(
        nodes=len(able),
        cores=int(sum(node["CPU"] for node in able)),
        memory_mb=int(sum(node.get("memory", 0.0) for node in able) / MB),
        gpus=sum(node.get("GPU", 0.0) for node in able),
        said=(f"Ray {version}",),
    )


def _amount(name: str, amount: float) -> str:
    return f"{amount / MB:.0f} MB" if name == "memory" else f"{amount:g}"
