"""What finished runs leave for later ones: nothing of their data, once each, and never more sure than it may be."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import stat
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from postgrad.errors import PostgradError
from postgrad.memory.book import LONGEST_LINE, MOST_BYTES, MOST_RUNS, Book, default_folder, is_switched_off
from postgrad.memory.effects import BETWEEN_PARENTS, Brought, Effect, told_apart
from postgrad.memory.entries import LABELS, ROWS, KindEntry, RunEntry, TaskType, kind_entries, task_type
from postgrad.memory.prior import LEAST_SD, MOST_EFFECT, Normal, Observation, likeness, priors, shown, shrunk
from postgrad.records import DataSpec, TaskSpec
from postgrad.research.learning import Belief, prior_of
from postgrad.research.priors import table

TYPE = TaskType(kind="classification", metric="mcc", rejects=True, rows="300 to 999", labels="10 to 29")
TABLE = Normal(0.0, 0.02)


def entry(number: int = 1, kinds: tuple[KindEntry, ...] = (), **changes: Any) -> RunEntry:
    fields: dict[str, Any] = {"run": f"{number:032x}", "month": "2026-03", "postgrad": "0.1.0", "task": TYPE}
    return RunEntry(**{**fields, "kinds": kinds, **changes})


def kind(name: str = "score.knn", mean: float = 0.03, **changes: Any) -> KindEntry:
    return KindEntry(**{"kind": name, "count": 2, "mean": mean, "variance": 0.0004, "cost_s": 3.0, **changes})


# --- the file -------------------------------------------------------------------------------------------------------


def test_what_was_put_is_read_again(tmp_path: Path) -> None:
    book = Book(tmp_path / "new" / "folder")
    assert book.read().entries == ()
    book.put(entry(1, (kind(),)))
    book.put(entry(2))
    assert book.read().entries == (entry(1, (kind(),)), entry(2))
    assert stat.S_IMODE(book.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(book.folder.stat().st_mode) == 0o700


def test_a_run_that_ends_again_counts_once(tmp_path: Path) -> None:
    book = Book(tmp_path)
    for number in (1, 2):
        book.put(entry(number, (kind(mean=0.01),)))
    book.put(entry(1, (kind(mean=0.05),)))
    assert book.read().entries == (entry(2, (kind(mean=0.01),)), entry(1, (kind(mean=0.05),)))
    assert len(book.path.read_text().splitlines()) == 2


def test_the_newest_runs_stay(tmp_path: Path) -> None:
    book = Book(tmp_path)
    lines = [entry(number).model_dump_json() for number in range(MOST_RUNS)]
    book.path.write_text("\n".join(lines) + "\n")
    book.put(entry(MOST_RUNS))
    kept = [one.run for one in book.read().entries]
    assert len(kept) == MOST_RUNS
    assert kept[0] == f"{1:032x}" and kept[-1] == f"{MOST_RUNS:032x}"


def _put_many(folder: Path, first: int) -> None:
    for number in range(first, first + 20):
        Book(folder).put(entry(number))


def test_runs_that_end_at_once_are_all_kept(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_put_many, args=(tmp_path, 100 * n)) for n in range(1, 4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len({one.run for one in Book(tmp_path).read().entries}) == 60


def _put_for_ever(folder: Path) -> None:
    for number in range(10, 10**6):
        Book(folder).put(entry(number, (kind(), kind("tune"))))


def test_a_reader_or_a_kill_in_the_middle_finds_a_whole_file(tmp_path: Path) -> None:
    for round_ in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                _put_for_ever(tmp_path)
            finally:
                os._exit(1)
        book = Book(tmp_path)
        try:
            while not book.read().entries:
                time.sleep(0.001)
            for _ in range(50 * (round_ + 1)):
                seen = book.read()
                assert seen.entries and not seen.ignored, "half a file was seen"
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        found = book.read()
        assert found.entries and not found.ignored
        book.put(entry(round_))
        assert book.read().entries[-1] == entry(round_)


def test_a_half_line_is_left_out(tmp_path: Path) -> None:
    book = Book(tmp_path)
    book.put(entry(1))
    book.path.write_text(book.path.read_text() + entry(2).model_dump_json()[:80])  # A torn last line.
    assert book.read().entries == (entry(1),) and book.read().ignored == 1
    book.put(entry(3))
    assert book.read().entries == (entry(1), entry(3)) and book.read().ignored == 0


ABSURD = {
    "nan": {"mean": math.nan},
    "infinite": {"variance": math.inf},
    "too large an effect": {"mean": 1.5},
    "no variance": {"variance": 0.0},
    "negative count": {"count": -1},
    "half an experiment": {"count": 1.5},
    "negative cost": {"cost_s": -1.0},
    "a text for a kind": {"kind": "Refund my order, please"},
    "a path for a kind": {"kind": "../../etc/passwd"},
    "an unknown key": {"note": "hello"},
}


@pytest.mark.parametrize("change", ABSURD.values(), ids=ABSURD)
def test_absurd_values_are_no_entry(tmp_path: Path, change: dict[str, Any]) -> None:
    document = entry(1, (kind(),)).model_dump(mode="json")
    document["kinds"][0] |= change
    book = Book(tmp_path)
    book.path.write_text(json.dumps(document) + "\n" + entry(2).model_dump_json() + "\n")
    assert book.read().entries == (entry(2),)
    assert book.read().ignored == 1


@pytest.mark.parametrize("text", ["[" * 50_000, '{"version":1}', "null", "\x00\xff", "x" * (LONGEST_LINE + 1)])
def test_garbage_is_no_entry(tmp_path: Path, text: str) -> None:
    book = Book(tmp_path)
    book.path.write_text(text + "\n" + entry(2).model_dump_json() + "\n")
    assert book.read().entries == (entry(2),) and book.read().ignored == 1


def test_lines_of_a_newer_version_are_kept_and_not_read(tmp_path: Path) -> None:
    book = Book(tmp_path)
    later = '{"version":3,"anything":[1,2]}'
    book.path.write_text(later + "\n")
    book.put(entry(1))
    assert book.read().entries == (entry(1),) and book.read().ignored == 0
    assert later in book.path.read_text().splitlines()


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    book = Book(tmp_path)
    os.mkfifo(book.path)
    with pytest.raises(PostgradError, match="no memory"):
        book.read()
    book.path.unlink()
    with book.path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(PostgradError, match="forget"):
        book.read()
    book.forget()
    assert book.read().entries == ()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(PostgradError, match="cannot be written"):
        Book(tmp_path / "taken").put(entry())


def test_where_it_lies_and_what_switches_it_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_folder({"XDG_DATA_HOME": str(tmp_path)}) == tmp_path / "postgrad"
    monkeypatch.setenv("HOME", str(tmp_path))
    for relative in ({}, {"XDG_DATA_HOME": ""}, {"XDG_DATA_HOME": "not/absolute"}):
        assert default_folder(relative) == tmp_path / ".local" / "share" / "postgrad"
    assert all(is_switched_off({"POSTGRAD_MEMORY": value}) for value in ("off", "OFF", "0", "no", "false"))
    assert not any(is_switched_off(one) for one in ({}, {"POSTGRAD_MEMORY": "on"}, {"POSTGRAD_MEMORY": ""}))


# --- what an entry says ---------------------------------------------------------------------------------------------


def spec(**changes: Any) -> TaskSpec:
    fields: dict[str, Any] = {"name": "n", "objective": "o", "data": DataSpec(train="t.csv"), "metric": "mcc"}
    return TaskSpec(**{**fields, **changes})


def test_sizes_are_classes() -> None:
    assert task_type(spec(), 299, 2).rows == "under 300"
    assert task_type(spec(), 300, 3) == TaskType(
        kind="classification", metric="mcc", rejects=False, rows="300 to 999", labels="3 to 9"
    )
    assert (task_type(spec(), 10**7, 1).rows, task_type(spec(), 10**7, 10**4).labels) == (ROWS[-1], LABELS[-1])
    assert (task_type(spec(), 1, 1).labels, task_type(spec(), 1, 100).labels) == ("2", "100 or more")
    assert task_type(spec(data=DataSpec(train="t", out_of_scope="x")), 1, 1).rejects


def test_a_metric_of_another_package_has_no_name_here() -> None:
    assert task_type(spec(metric="acme_churn"), 1, 1).metric == "other"


def test_only_known_kinds_are_written() -> None:
    seen = Brought(Effect(0.03, 0.00025), count=2, failures=1, costs_s=[10.0, 20.0, 33.4])
    found = kind_entries({"score.knn": seen, "score.refund_my_order": seen, "tune": Brought()}, table())
    assert [one.kind for one in found] == ["score.knn"]
    assert found[0] == KindEntry(kind="score.knn", count=2, mean=0.03, variance=0.00025, failures=1, cost_s=21.0)


def test_the_effect_of_a_kind_is_the_mean_by_precision_where_each_experiment_made_one_change() -> None:
    between = BETWEEN_PARENTS**2
    found = told_apart([(("a",), Effect(0.02, 0.0001)), (("b",), Effect(0.3, 0.01)), (("a",), Effect(0.05, 0.0009))])
    first, second = 1 / (0.0001 + between), 1 / (0.0009 + between)
    assert found["a"].value == pytest.approx((first * 0.02 + second * 0.05) / (first + second))
    assert found["a"].variance == pytest.approx(1 / (first + second))
    assert found["b"] == pytest.approx(Effect(0.3, 0.01 + between))
    assert told_apart([]) == {}


def test_changes_that_were_made_together_are_told_apart() -> None:
    rng, own = Random(2), {"a": 0.06, "b": -0.04, "c": 0.0, "d": 0.02}
    measured = []
    for _ in range(60):
        kinds = tuple(rng.sample(sorted(own), 2))
        measured.append((kinds, Effect(sum(own[kind] for kind in kinds) + rng.gauss(0, 0.01), 0.0001)))
    found = told_apart(measured)
    assert {kind: effect.value for kind, effect in found.items()} == pytest.approx(own, abs=0.015)


def test_who_of_two_brought_it_is_not_known_from_one_experiment() -> None:
    alone, both = told_apart([(("a",), Effect(0.06, 0.0001))]), told_apart([(("a", "b"), Effect(0.06, 0.0001))])
    assert both["a"] == pytest.approx(both["b"])
    assert both["a"].variance > 4 * alone["a"].variance
    assert not told_apart([(("a",), Effect(0.06, 0.5))]), "nothing can be said from so noisy a measurement"


# --- the prior ------------------------------------------------------------------------------------------------------


def test_nothing_seen_is_the_table() -> None:
    found = shrunk(TABLE, [])
    assert found.mean == TABLE.mean and found.sd == pytest.approx(TABLE.sd, rel=0.5)
    assert priors([], TYPE, {"score.knn": TABLE}) == {}


def test_many_runs_that_agree_move_the_mean_and_not_the_certainty() -> None:
    few = shrunk(TABLE, [Observation(0.03, 0.0004, 1.0)])
    many = shrunk(TABLE, [Observation(0.03, 0.0004, 1.0)] * 200)
    assert 0.0 < few.mean < 0.015 < 0.028 < many.mean <= 0.03
    assert LEAST_SD == many.sd < few.sd <= TABLE.sd


def test_runs_that_differ_leave_the_spread() -> None:
    rng = Random(0)
    seen = [Observation(rng.gauss(0.0, 0.05), 0.0001, 1.0) for _ in range(60)]
    assert shrunk(TABLE, seen).sd == TABLE.sd


def test_it_finds_mean_and_spread_that_runs_were_drawn_from() -> None:
    rng, wide = Random(1), Normal(0.0, 0.05)
    noise = 0.0004
    seen = [Observation(rng.gauss(rng.gauss(0.03, 0.02), noise**0.5), noise, 1.0) for _ in range(150)]
    found = shrunk(wide, seen)
    assert found.mean == pytest.approx(0.03, abs=0.005)
    assert found.sd == pytest.approx(0.02, abs=0.005)


def test_a_run_on_another_type_of_task_counts_for_less() -> None:
    same = shrunk(TABLE, [Observation(0.03, 0.0004, 1.0)] * 3)
    other = shrunk(TABLE, [Observation(0.03, 0.0004, 0.25)] * 3)
    assert TABLE.mean < other.mean < same.mean
    far = TYPE.model_copy(update={"metric": "accuracy", "rejects": False, "rows": ROWS[-1], "labels": LABELS[-1]})
    near = TYPE.model_copy(update={"labels": "3 to 9"})
    assert 0 < likeness(TYPE, far) < 0.2 < likeness(TYPE, near) < likeness(TYPE, TYPE) == 1.0
    assert likeness(TYPE, TYPE.model_copy(update={"kind": "generation"})) == 0.0


def test_one_line_cannot_take_over() -> None:
    """However exact an entry says it is: it is one run."""
    loud = entry(1, (kind(mean=1.0, variance=1e-12, count=10**6),))
    found = priors([loud], TYPE, {"score.knn": TABLE})["score.knn"]
    assert found.sd >= LEAST_SD
    assert Belief(found.mean, found.sd).updated(0.0, 0.02**2).mean < found.mean


def test_what_runs_say_alone_owes_the_table_no_mean() -> None:
    seen = [Observation(0.03, 0.0004, 1.0)] * 4
    low, high = shown(Normal(-0.05, 0.02), seen), shown(Normal(0.05, 0.02), seen)
    assert low == high and low.mean == pytest.approx(0.03)
    assert shown(TABLE, seen[:1]).sd > low.sd > shown(TABLE, seen * 50).sd >= LEAST_SD
    apart = [Observation(mean, 0.0004, 1.0) for mean in (-0.05, 0.11)] * 2
    assert shown(TABLE, apart).mean == pytest.approx(0.03) and shown(TABLE, apart).sd > 2 * low.sd


def test_one_line_cannot_take_over_what_runs_say_alone() -> None:
    found = shown(TABLE, [Observation(1.0, 1e-5, 1.0)])
    assert found.mean <= MOST_EFFECT and found.sd > 0.5 * TABLE.sd


def test_failures_count_against_a_kind() -> None:
    well, badly = entry(1, (kind(),)), entry(1, (kind(failures=4),))
    table_ = {"score.knn": TABLE}
    assert priors([badly], TYPE, table_)["score.knn"].mean < priors([well], TYPE, table_)["score.knn"].mean
    only = entry(1, (KindEntry(kind="score.knn", count=0, failures=2),))
    assert priors([only], TYPE, table_)["score.knn"].mean < 0


def test_a_kind_that_the_playbook_does_not_know_is_not_read() -> None:
    known = {name: Normal(belief.mean, belief.sd) for name, belief in table().items()}
    found = priors([entry(1, (kind("score.unheard_of"), kind("tune")))], TYPE, known)
    assert set(found) == {"tune"}
    own = Belief(0.1, 0.2)
    assert prior_of("score.unheard_of", own, found) == own
    assert prior_of("tune", own, found) == Belief(found["tune"].mean, found["tune"].sd)


def test_every_kind_of_the_playbook_can_be_remembered() -> None:
    """The names in the table are names that an entry takes."""
    assert len(table()) > 40
    for name in table():
        assert kind(name).kind == name
