"""Questions to a store that are not answered: none is taken for an answer, and none is asked more than is needed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Sequence

import pytest

from postgrad.engines.remote import attempt as attempt_module
from postgrad.engines.remote import engine as engine_module
from postgrad.engines.remote import store as store_module
from postgrad.engines.remote.engine import RemoteHandle
from postgrad.engines.remote.posted import Looks
from postgrad.engines.remote.store import Store as Reached
from postgrad.testing.engine import until
from s3_server import Store
from test_engine_remote import LIMITS, hasty
from test_engine_storage import HALF, Place, server, store

__all__ = ["hasty", "server", "store"]


class Deaf(Reached):
    """A store that does not answer some questions.

    Attributes:
        deaf: numbers of the questions.
        looks: keys of each question for several objects.
    """

    def __init__(self, url: str, deaf: Sequence[int] = ()) -> None:
        super().__init__(url, 60.0)
        self.deaf, self.asked = frozenset(deaf), 0
        self.looks: list[Sequence[str]] = []

    def _ask(self, method: str, *words: Any, _size: int = 0, **named: Any) -> Any:
        self.asked += 1
        if self.asked in self.deaf:
            raise TimeoutError("the store does not answer")
        return super()._ask(method, *words, _size=_size, **named)

    def read_all(self, keys: Sequence[str]) -> dict[str, bytes | OSError]:
        self.looks.append(keys)
        return super().read_all(keys)


@pytest.fixture
def own(tmp_path: Path) -> str:
    """A store of this test alone, in this process."""
    return f"memory://{tmp_path.parent.name}-{tmp_path.name}/x"


# --- made once --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrites", [False, True])
@pytest.mark.parametrize("question", [1, 2, 3])
def test_a_try_that_was_broken_off_says_nothing(store: Store, overwrites: bool, question: int) -> None:
    store.overwrites = overwrites
    reached = Deaf("s3://runs/x", [question])
    with pytest.raises(TimeoutError):
        assert reached.makes_one
    assert reached.makes_one is not overwrites, "as every other node finds it"


def test_whoever_asks_again_does_not_lose_to_his_own_claim(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "SETTLE_S", 0.01)
    for number in range(12):
        key = f"jobs/{number}/1/lease.json"
        reached = Deaf(own, [4])  # What is there, the try, the claim, what is there; then all claims.
        with pytest.raises(TimeoutError):
            reached.take(key, b"me")
        assert reached.names(f"{key}.claims"), "its claim was laid down"
        assert reached.take(key, b"me") and not Reached(own, 5.0).take(key, b"somebody else")


# --- signs of life ----------------------------------------------------------------------------------------------------


def test_what_is_looked_at_for_the_first_time_is_asked_for_alone(own: str) -> None:
    reached = Deaf(own)
    looks = Looks(reached, fresh_s=30.0)
    for number in range(9):
        reached.write(f"jobs/{number}/beat.json", b"%d" % number)
        assert looks.read(f"jobs/{number}/beat.json") == b"%d" % number
    assert [len(keys) for keys in reached.looks] == [1] * 9


def test_a_store_that_is_away_is_asked_once_for_all_that_is_new(own: str) -> None:
    reached = Deaf(own, [2])
    looks = Looks(reached, fresh_s=60.0)
    with pytest.raises(FileNotFoundError):
        looks.read("jobs/0/beat.json")
    for number in range(1, 5):
        with pytest.raises(TimeoutError):
            looks.read(f"jobs/{number}/beat.json")
    assert len(reached.looks) == 2
    reached.write("jobs/3/beat.json", b"3")
    looks._at -= 61.0  # A minute later.
    assert looks.read("jobs/3/beat.json") == b"3"


def test_a_sign_of_life_that_cannot_be_read_is_no_silence(tmp_path: Path, store: Store) -> None:
    place = Place(tmp_path, store, HALF, lease_s=20.0)
    handle = place.started()
    until(lambda: handle.wait(0.1) is not None or place.steps()["steps"] == 30)
    assert place.engine._office is not None
    looks = place.engine._office.looks
    looks._found |= dict.fromkeys(
        (key for key in looks._found if key.endswith("/beat.json")), TimeoutError("no answer")
    )
    looks._at = time.monotonic() + 60.0  # So it was found a moment ago, and the lease was found.
    with pytest.raises(TimeoutError):
        handle._look(time.monotonic() + 100.0)
    assert len(place.cluster.submitted) == 1, "nobody can tell now"
    looks._at = 0.0
    place.go()
    assert place.ended(handle).code == 0 and len(place.cluster.submitted) == 1


# --- the beginning of a job -------------------------------------------------------------------------------------------


def test_a_store_that_is_away_when_a_job_begins_is_waited_for(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt_module, "BEGIN_AGAIN_S", 60.0)
    place = Place(tmp_path, store, lease_s=20.0)
    other = place.folder.with_name("other")
    other.mkdir()
    store.away()
    handle = place.started()
    asked: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(Reached, "_ask", lambda self, method, *words, **named: asked.append(method))
        second = place.engine.start(other, LIMITS)
    assert asked == [], "the second one is told what the first one was"
    monkeypatch.setattr(attempt_module, "BEGIN_AGAIN_S", 0.5)
    assert isinstance(second, RemoteHandle) and second.wait(0) is None and handle.wait(2.5) is None
    assert place.cluster.submitted == []
    store.back()
    until(lambda: handle.wait(0.1) is not None or second.wait(0.1) is not None or len(place.cluster.submitted) == 2)
    second.stop()
    assert place.ended(handle).code == 0
    assert len(place.cluster.submitted) == 2 and place.steps(place.folder) == {"starts": 1, "steps": 60}


@pytest.mark.parametrize("part", ["/told.json", "/grant.json"])
def test_a_job_whose_begin_was_broken_off_is_begun_once(tmp_path: Path, store: Store, part: str) -> None:
    place = Place(tmp_path, store)
    store.failing = part
    handle = place.started()
    assert handle.wait(0.5) is None and place.cluster.submitted == []
    store.failing = ""
    assert place.ended(handle).code == 0
    assert len(place.cluster.submitted) == 1 and place.steps(place.folder) == {"starts": 1, "steps": 60}


def test_a_store_that_stays_away_ends_the_wait_and_a_job_that_never_began_can_be_stopped(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, store)
    monkeypatch.setattr(engine_module, "AWAY_S", 3.0)
    store.away()
    handle = place.started()
    with pytest.raises(OSError):
        handle.wait(120)
    with pytest.raises(OSError):
        handle.stop()  # Nobody can tell whether a controller before this one left it running.
    store.back()
    handle.stop()
    found = handle.wait(0)
    assert found is not None and found.cause == "stopped" and place.cluster.submitted == []
    assert place.ended(place.started()).code == 0, "it begins when it is started again"
