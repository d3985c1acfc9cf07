"""What speaks the part of Ray's HTTP interface that is used, with answers as Ray 2.60 gave them, and with faults."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Iterator

MB = 1 << 20
EXISTS = """Traceback (most recent call last):
  File "ray/dashboard/modules/job/job_head.py", line 419, in submit_job
    resp = await job_agent_client.submit_job_internal(submit_request)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
RuntimeError: Request failed with status code 400: Traceback (most recent call last):
  File "ray/dashboard/modules/job/job_manager.py", line 553, in submit_job
    raise ValueError(
ValueError: Job with submission_id {} already exists. Please use a different submission_id.
.
"""


@dataclass
class Dashboard:
    """The cluster behind the server.

    Attributes:
        fault: (status, text, headers) of every answer; "cut": the connection ends in the middle of one.
        token: asked for in each request.
        asked: (method, path) of each request.
    """

    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    nodes: list[dict[str, float]] = field(default_factory=lambda: [{"memory": 1.0 * MB}, node(2), node(4, GPU=1.0)])
    version: Any = field(default_factory=lambda: {"version": "4", "ray_version": "2.60.0"})
    fault: tuple[int, str, dict[str, str]] | str | None = None
    token: str | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    address: str = ""

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """(status, JSON or text)."""
        name = path.removeprefix("/api/jobs/").partition("/")[0]
        if (method, path) == ("GET", "/api/version"):
            return 200, self.version
        if path.startswith("/api/v0/nodes"):
            listed = [{"node_id": str(n), "state": "ALIVE", "resources_total": r} for n, r in enumerate(self.nodes)]
            dead = {"node_id": "x", "state": "DEAD", "resources_total": {"CPU": 900.0, "memory": 9e15}}
            return 200, {"data": {"result": {"total": len(listed), "result": [*listed, dead]}}}
        if (method, path) == ("POST", "/api/jobs/"):
            return self._submitted(body)
        if (method, path) == ("GET", "/api/jobs/"):
            return 200, [{"type": "DRIVER", "submission_id": None, "status": "RUNNING"}, *self.jobs.values()]
        if name not in self.jobs:
            return 404, f"Job {name} does not exist"
        if method == "DELETE":
            return 200, {"deleted": bool(self.jobs.pop(name))}
        if path.endswith("/stop"):
            self.jobs[name]["status"] = "STOPPED"
            return 200, {"stopped": True}
        return 200, {"logs": self.jobs[name].get("logs", "")} if path.endswith("/logs") else self.jobs[name]

    def _submitted(self, body: Any) -> tuple[int, Any]:
        self.bodies.append(body)
        name = body["submission_id"]
        if name in self.jobs:
            return 500, EXISTS.format(name)
        self.jobs[name] = {"type": "SUBMISSION", "submission_id": name, "status": "PENDING", "message": "It waits."}
        return 200, {"job_id": name, "submission_id": name}


def node(cores: int, **more: float) -> dict[str, float]:
    """What a node has."""
    return {"CPU": float(cores), "memory": 8000.0 * MB, "object_store_memory": 1e9, **more}


@contextmanager
def served() -> Iterator[Dashboard]:
    """The server, on a port of its own."""
    dashboard = Dashboard()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            dashboard.asked.append((self.command, self.path))
            headers: dict[str, str] = {}
            if dashboard.fault == "cut":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b'[{"half')
                self.close_connection = True
                return
            if isinstance(dashboard.fault, tuple):
                status, found, headers = dashboard.fault
            elif dashboard.token and self.headers.get("Authorization") != f"Bearer {dashboard.token}":
                status, found = 401, "Unauthorized: Missing authentication token"
            else:
                status, found = dashboard.answer(self.command, self.path, body)
            data = (found if isinstance(found, str) else json.dumps(found)).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _do  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        dashboard.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield dashboard
        server.shutdown()
        thread.join()
