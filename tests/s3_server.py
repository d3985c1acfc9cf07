"""A server that speaks S3 on loopback, in this process, which can be away and come back with all that it holds; and
nodes that share no folder with the controller and reach it with credentials of their own."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator

import boto3
import fsspec
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from free_ports import free_ports
from postgrad.engines.remote.cluster import Request
from postgrad.engines.remote.posted import ANYWHERE
from postgrad.testing.nodes import Processes

KEY, SECRET = "AKIAOFTHETESTS", "secret-of-the-tests"
Start = Callable[..., Any]


class Silent(WSGIRequestHandler):
    """Writes no log."""

    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing."""


@dataclass
class Store:
    """The server.

    Attributes:
        overwrites: it takes no notice of `If-None-Match`, as some that speak S3.
        failing: what it refuses to answer, by a part of the path; "" for nothing.
        slow_s: seconds that it takes for each answer.
        asked: (method, path) of each request.
    """

    overwrites: bool = False
    failing: str = ""
    slow_s: float = 0.0
    asked: list[tuple[str, str]] = field(default_factory=list)
    port: int = field(default_factory=lambda: free_ports(1)[0])
    _server: BaseWSGIServer | None = None
    _app: Any = None

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        self.asked.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        until = time.monotonic() + self.slow_s
        while self.slow_s and time.monotonic() < until:
            time.sleep(0.02)
        if self._server is None or (self.failing and self.failing in environ["PATH_INFO"]):
            start("503 Service Unavailable", [])
            return []
        if self.overwrites:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        found: Iterable[bytes] = self._app(environ, start)
        return found

    def back(self) -> None:
        """Answer."""
        self._app = self._app or DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", self.port, self, threaded=True, request_handler=Silent)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def away(self) -> None:
        """Refuse connections."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def client(self) -> Any:
        """To look at what lies there, past everything that is tested."""
        told = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url=self.url, **told)

    def keys(self, bucket: str) -> list[str]:
        """What lies in a bucket."""
        return sorted(found["Key"] for found in self.client.list_objects_v2(Bucket=bucket).get("Contents", []))

    def read(self, bucket: str, key: str) -> bytes:
        found: bytes = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return found


@contextmanager
def serving() -> Iterator[Store]:
    """The server, as long as it is needed."""
    fsspec.get_filesystem_class(
        "s3"
    ).clear_instance_cache()  # It would go to a server before this one in the same process.
    store = Store()
    store.back()
    try:
        yield store
    finally:
        store.away()


class Apart(Processes):
    """Nodes whose programs start in a folder of their own, and write what they print there."""

    def deliver(self, request: Request) -> int:
        start = self.folder.parent / "start"
        start.mkdir(exist_ok=True)
        assert request.folder == ANYWHERE, "there is no folder that both see"
        return super().deliver(replace(request, folder=str(start), log=str(self.log(request.name))))

    def log(self, name: str) -> Path:
        """What a job's node printed."""
        return self.folder.parent / "start" / f"{name}.log"


def nodes_apart(folder: Path, store: Store) -> Apart:
    """A cluster whose nodes have a home, a scratch folder and credentials of their own."""
    home = folder / "home"
    (home / ".aws").mkdir(parents=True)
    (home / ".aws" / "credentials").write_text(
        f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    )
    (home / ".aws" / "config").write_text(f"[default]\nregion = us-east-1\nendpoint_url = {store.url}\n")
    own = {"HOME": str(home), "POSTGRAD_SCRATCH": str(folder / "scratch")}
    return Apart(folder / "cluster", own=own)
