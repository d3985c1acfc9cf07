"""An object that is made once, on stores that refuse in other words than S3 itself, and by those who ask again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Iterable, Iterator

import fsspec
import pytest

from postgrad.engines.remote import store as store_module
from postgrad.engines.remote.store import TRIED
from postgrad.engines.remote.store import Store as Reached
from postgrad.testing.engine import until
from s3_server import Start, Store
from test_engine_remote import LIMITS, hasty
from test_engine_storage import Place, store

__all__ = ["hasty", "store"]

CONDITION = re.compile(rb"\s*<Condition>[^<]*</Condition>")


class Gateway(Store):
    """It refuses in the words of MinIO and others: they do not say which condition failed.

    Attributes:
        status: of its refusals.
        code: the name of the error in them; "" for an answer without words.
        refused: how often it refused.
    """

    status, code, refused = 412, "PreconditionFailed", 0

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        answer: list[Any] = []
        body = super().__call__(environ, lambda *words: answer.extend(words))
        if not answer[0].startswith("412"):
            start(*answer)
            return body
        said, found = CONDITION.subn(b"", b"".join(body))
        assert found, "there was a condition to leave out"
        said = said.replace(b"PreconditionFailed", self.code.encode()) if self.code else b""
        self.refused += 1
        named = [(name, value) for name, value in answer[1] if name.lower() != "content-length"]
        start(f"{self.status} Refused", [*named, ("Content-Length", str(len(said)))])
        return [said]


@pytest.fixture(scope="module")
def server() -> Iterator[Gateway]:
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    gateway = Gateway()
    gateway.back()
    yield gateway
    gateway.away()


@pytest.fixture
def gateway(server: Gateway, store: Store, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """The same one, empty."""
    for name, value in (("status", 412), ("code", "PreconditionFailed"), ("refused", 0)):
        monkeypatch.setattr(server, name, value)
    return server


def tried(gateway: Gateway) -> list[str]:
    """What a try left."""
    return [key for key in gateway.keys("runs") if f"/{TRIED}/" in key]


@pytest.mark.parametrize(
    ("status", "code"),
    [(412, "PreconditionFailed"), (412, "InItsOwnWords"), (412, ""), (409, "ConditionalRequestConflict"), (409, "")],
)
def test_a_refusal_in_other_words_is_one(gateway: Gateway, status: int, code: str) -> None:
    gateway.status, gateway.code = status, code
    first, second = Reached("s3://runs/x", 60.0), Reached("s3://runs/x", 60.0)
    assert first.take("jobs/a/1/lease.json", b"me") and first.makes_one and gateway.refused == 1
    assert not second.take("jobs/a/1/lease.json", b"somebody else") and second.makes_one is first.makes_one
    assert first.take("jobs/a/1/lease.json", b"me"), "whoever asks again has it still"
    assert first.read("jobs/a/1/lease.json") == b"me" and tried(gateway) == []


def test_the_lease_itself_is_refused_to_the_second_one(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Reached("s3://runs/x", 60.0), Reached("s3://runs/x", 60.0)
    assert first.makes_one and second.makes_one
    look = second._found
    looked: list[str] = []

    def before(key: str) -> bytes | None:
        """Both look before either writes."""
        found = look(key)
        if not looked:
            assert found is None and first.take(key, b"me")
        looked.append(key)
        return found

    monkeypatch.setattr(second, "_found", before)
    refused = gateway.refused
    assert not second.take("jobs/a/1/lease.json", b"somebody else") and gateway.refused == refused + 1
    assert first.read("jobs/a/1/lease.json") == b"me"


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (400, "InvalidArgument"), (503, "Busy")])
def test_what_is_no_refusal_says_nothing_and_leaves_nothing(gateway: Gateway, status: int, code: str) -> None:
    gateway.status, gateway.code = status, code
    reached = Reached("s3://runs/x", 60.0)
    with pytest.raises(OSError):
        assert reached.makes_one
    assert gateway.refused and tried(gateway) == []
    gateway.status, gateway.code = 412, "PreconditionFailed"
    assert reached.makes_one and tried(gateway) == []


def test_a_store_that_does_not_answer_is_not_taken_for_the_refusal_before(gateway: Gateway) -> None:
    reached = Reached("s3://runs/x", 60.0)
    reached.write("a", b"first", mode="create")
    try:
        reached.write("a", b"second", mode="create")
    except OSError as refusal:
        assert store_module._is_refusal(refusal)
        gateway.away()
        reached.patience_s = 0.5
        with pytest.raises(OSError) as found:
            reached.write("a", b"third", mode="create")
        gateway.back()
        assert not store_module._is_refusal(found.value)
    assert gateway.refused == 1


def test_a_job_that_is_delivered_twice_runs_once(tmp_path: Path, gateway: Gateway) -> None:
    place = Place(tmp_path, gateway, lease_s=20.0)
    place.engine.grace_s = 60.0  # The cluster says what became of the second one.
    place.cluster.reachable = False
    handle = place.started()
    request = place.engine.request(handle._attempt, LIMITS)
    place.cluster.reachable = True
    for _ in range(2):
        place.cluster.deliver(request)
    until(lambda: "delivered twice" in place.cluster.log(handle.name).read_text())
    assert place.ended(handle).code == 0 and place.steps(place.folder) == {"starts": 1, "steps": 60}
    assert gateway.refused and tried(gateway) == []


class Late(Reached):
    """The first write of a lease is not answered, and is seen only when somebody lays down the next claim."""

    def __init__(self, url: str) -> None:
        super().__init__(url, 5.0)
        self.late: list[tuple[str, bytes]] = []
        self.lost = False

    def write(self, key: str, data: bytes, mode: str = "overwrite") -> None:
        if key.endswith("lease.json") and not self.lost:
            self.lost = True
            self.late.append((key, data))
            raise TimeoutError("the store does not answer")
        super().write(key, data, mode)
        if "/lease.json.claims/" in key:
            while self.late:
                super().write(*self.late.pop())


def test_whoever_asks_again_has_what_was_written_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "SETTLE_S", 0.01)
    url = f"memory://{tmp_path.parent.name}-{tmp_path.name}/x"
    reached = Late(url)
    with pytest.raises(TimeoutError):
        reached.take("jobs/a/1/lease.json", b"me")
    assert reached.take("jobs/a/1/lease.json", b"me") and reached.late == []
    assert not Reached(url, 5.0).take("jobs/a/1/lease.json", b"somebody else")
