"""The contract of a store, as tests. An outside store proves itself with one small class.

In a test file of your own package::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self, tmp_path): ...      # a new, empty store, open for writing

        def reopen(self, store): ...        # the same run, open for writing again, after `store.close()`
"""

from __future__ import annotations

from pathlib import Path

import pytest

from postgrad.errors import PostgradError
from postgrad.events import Body, RunEnded, RunResumed, SearchEnded
from postgrad.store.base import Store
from postgrad.testing.events import a_start, proposed


class StoreContract:
    """What every store does. A subclass has a fixture `store` and a method `reopen`."""

    def reopen(self, store: Store) -> Store:
        """Open the run of a closed store again, for writing."""
        raise pytest.UsageError(f"{type(self).__name__} needs a method reopen(store)")

    def test_a_new_store_is_empty(self, store: Store) -> None:
        assert store.events() == ()
        assert 0.0 <= store.clock() < 60.0

    def test_events_come_back_as_they_were_and_in_order(self, store: Store) -> None:
        bodies: list[Body] = [
            a_start(),
            RunResumed(note="zażółć \x00 \n 🙂"),
            proposed("e1"),
            SearchEnded(reason="budget", finalists=("e1", "e2")),
        ]
        appended = [store.append(body) for body in bodies]
        assert [event.body for event in appended] == bodies
        assert store.events() == tuple(appended)

    def test_numbers_start_at_one_and_have_no_gap(self, store: Store) -> None:
        appended = [store.append(RunResumed(note=str(number))) for number in range(20)]
        assert [event.seq for event in appended] == list(range(1, 21))
        assert [event.seq for event in store.events(after=17)] == [18, 19, 20]
        assert store.events(after=20) == ()

    def test_events_come_one_after_the_other_too(self, store: Store) -> None:
        assert list(store.in_order()) == []
        store.append(a_start())
        for number in range(1200):
            store.append(RunResumed(note=str(number)))
        store.append(RunEnded(reason="done", wall_s=1.0))
        assert tuple(store.in_order()) == store.events()
        assert [event.seq for event in store.in_order(("run_started", "run_ended"))] == [1, 1202]

    def test_clock_and_time_never_run_backwards(self, store: Store) -> None:
        clocks = [store.append(RunResumed()).clock for _ in range(5)]
        assert clocks == sorted(clocks)
        assert store.clock() >= clocks[-1]

    def test_what_was_read_does_not_change(self, store: Store) -> None:
        store.append(a_start())
        before = store.events()
        store.append(RunEnded(reason="done", wall_s=1.0))
        assert len(before) == 1
        assert store.events()[:1] == before

    def test_a_closed_store_takes_nothing(self, store: Store) -> None:
        store.append(a_start())
        store.close()
        store.close()
        with pytest.raises(PostgradError):
            store.append(RunResumed())

    def test_reopening_goes_on_where_it_stopped(self, store: Store) -> None:
        first = store.append(a_start())
        store.close()
        again = self.reopen(store)
        try:
            assert again.events() == (first,)
            assert again.clock() >= first.clock
            second = again.append(RunResumed())
            assert second.seq == 2
            assert second.clock >= first.clock
            assert again.events() == (first, second)
        finally:
            again.close()

    def test_artefacts_come_back_as_they_were(self, store: Store, tmp_path: Path) -> None:
        put = store.artifacts
        model = tmp_path / "a-model"
        (model / "deep").mkdir(parents=True)
        (model / "weights.bin").write_bytes(bytes(range(256)) * 100)
        (model / "deep" / "config.json").write_text("{}")
        plain, file, folder = put.put_bytes(b""), put.put_file(model / "weights.bin"), put.put_folder(model)
        store.close()
        again = self.reopen(store)
        try:
            kept = again.artifacts
            assert kept.read(plain) == b""
            assert kept.path(file).read_bytes() == (model / "weights.bin").read_bytes()
            kept.restore_folder(folder, tmp_path / "restored")
            assert (tmp_path / "restored/weights.bin").read_bytes() == (model / "weights.bin").read_bytes()
            assert (tmp_path / "restored/deep/config.json").read_text() == "{}"
            assert all(kept.verify(name) for name in (plain, file, folder))
        finally:
            again.close()
