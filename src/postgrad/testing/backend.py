"""The contract of a training backend, as tests. Give it your backend and it says whether the worker can use it.

In a test file of your own package::

    class TestMyBackend(BackendContract):
        backend = MyBackend()
        cases = ({}, {"depth": 3})

Every test runs for every entry of `cases`, a set of parameters. It needs pytest as the runner only. It does not judge
whether the backend learns well: only that it learns four words that give the label away.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Iterator, Mapping, Protocol, Sequence

import numpy as np

from postgrad.records import Dimension, Row
from postgrad.train.base import Backend, FitJob, Outputs, labelled

LABELS = ("refund", "delivery", "size", "hours", "unused")
WORDS = {
    "refund": ("money back", "return it", "refund please", "reimburse me"),
    "delivery": ("where is my parcel", "shipping time", "delivery late", "track the order"),
    "size": ("too small", "which size fits", "does it run large", "size chart"),
    "hours": ("when do you open", "closing time", "open on sunday", "shop hours"),
}
FILLERS = ("", "hello", "hi there,", "please", "for my order", "today", "thank you", "i ask because")
OUTSIDE = ("tell me a joke", "what is the weather", "sing a song", "who won the match", "write a poem")
ODD_TEXTS = ("", " ", "?!", "💶 geld zurück", "line\nbreak\u2028here\x00", "very long " * 400, "refund")
OUT_OF_SCOPE = "nothing of these"
DATA_FILES = {".json", ".jsonl", ".safetensors", ".txt", ".md", ".npz"}
PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class Metafunc(Protocol):
    """The part of pytest's hook argument that is used here."""

    fixturenames: list[str]

    def parametrize(self, argnames: str, argvalues: Sequence[Any], ids: Sequence[str]) -> None: ...


def example_rows(each: int = 8) -> tuple[Row, ...]:
    """Rows of four labels; the fifth of `LABELS` has none."""
    rng = Random(7)
    rows = []
    for label, phrases in WORDS.items():
        for number in range(each):
            text = f"{rng.choice(FILLERS)} {phrases[number % len(phrases)]} {rng.choice(FILLERS)}".strip()
            rows.append(Row(f"{label}{number}", text, label))
    rng.shuffle(rows)
    return tuple(rows)


def negative_rows() -> tuple[Row, ...]:
    """Rows out of scope."""
    return tuple(Row(f"out{i}", text, OUT_OF_SCOPE) for i, text in enumerate(OUTSIDE * 2))


class BackendContract:
    """What every backend holds to."""

    backend: ClassVar[Backend]
    cases: ClassVar[tuple[dict[str, Any], ...]] = ({},)
    learns: ClassVar[bool] = True

    def pytest_generate_tests(self, metafunc: Metafunc) -> None:
        """Run every test that takes `params` once a case."""
        if "params" in metafunc.fixturenames:
            metafunc.parametrize("params", self.cases, ids=[f"case{number}" for number in range(len(self.cases))])

    def base_model(self, folder: Path) -> Path | None:
        """Folder of a base model, for backends that need one. `folder` is the test's own."""
        return None

    def job(self, params: Mapping[str, Any], folder: Path) -> FitJob:
        """A job over the example rows."""
        return FitJob(
            rows=example_rows(),
            labels=LABELS,
            out_of_scope=OUT_OF_SCOPE,
            params=self.backend.Params.model_validate(params),
            base_model=self.base_model(folder),
            seed=3,
            threads=1,
            checkpoint=folder / "checkpoint",
        )

    # --- answers ------------------------------------------------------------------------------------------------------

    def test_outputs_have_the_right_form(self, params: dict[str, Any], tmp_path: Path) -> None:
        model = self.backend.fit(self.job(params, tmp_path))
        check_form(labelled(model.predict(ODD_TEXTS)), len(ODD_TEXTS))
        check_form(labelled(model.predict([])), 0)

    def test_it_learns(self, params: dict[str, Any], tmp_path: Path) -> None:
        job = self.job(params, tmp_path)
        outputs = labelled(self.backend.fit(job).predict([row.text for row in job.rows]))
        truth = np.array([LABELS.index(row.label) for row in job.rows])
        right = float((outputs.probs.argmax(1) == truth).mean())
        assert right > 0.6 or not self.learns, f"{right:.2f} of the train rows are answered right; chance is 0.25"
        assert (outputs.probs[:, LABELS.index("unused")] < 0.05).all(), "a label without rows is never likely"

    def test_answers_do_not_depend_on_their_neighbours(self, params: dict[str, Any], tmp_path: Path) -> None:
        job = self.job(params, tmp_path)
        texts = [row.text for row in job.rows]
        model = self.backend.fit(job)
        whole, back = labelled(model.predict(texts)), labelled(model.predict(texts[::-1]))
        alone = labelled(model.predict(texts[:1]))
        assert_close(whole, Outputs(back.probs[::-1], back.score[::-1]), "the order of the questions")
        assert_close(Outputs(whole.probs[:1], whole.score[:1]), alone, "the company of a question")

    # --- chance -------------------------------------------------------------------------------------------------------

    def test_the_same_seed_gives_the_same_bits(self, params: dict[str, Any], tmp_path: Path) -> None:
        job = self.job(params, tmp_path)
        texts = [row.text for row in job.rows]
        first = labelled(self.backend.fit(job).predict(texts))
        np.random.default_rng().random()
        second = labelled(self.backend.fit(replace(job, checkpoint=tmp_path / "other")).predict(texts))
        assert np.array_equal(first.probs, second.probs) and np.array_equal(first.score, second.score)

    def test_a_cut_off_training_gives_the_same_in_the_end(self, params: dict[str, Any], tmp_path: Path) -> None:
        job = self.job(params, tmp_path)
        texts = [row.text for row in job.rows]
        whole = labelled(self.backend.fit(job).predict(texts))
        calls = 0

        def cut(step: int, loss: float) -> None:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise KeyboardInterrupt

        again = replace(job, checkpoint=tmp_path / "again", report=cut)
        with suppress(KeyboardInterrupt):
            self.backend.fit(again)
        resumed = labelled(self.backend.fit(replace(again, report=lambda step, loss: None)).predict(texts))
        assert np.array_equal(whole.probs, resumed.probs) and np.array_equal(whole.score, resumed.score)

    def test_a_checkpoint_of_other_rows_is_not_used(self, params: dict[str, Any], tmp_path: Path) -> None:
        job = self.job(params, tmp_path)
        texts = [row.text for row in job.rows]
        self.backend.fit(job)
        fewer = replace(job, rows=job.rows[:-4])
        fresh = labelled(self.backend.fit(replace(fewer, checkpoint=tmp_path / "fresh")).predict(texts))
        assert np.array_equal(labelled(self.backend.fit(fewer).predict(texts)).probs, fresh.probs)

    # --- files --------------------------------------------------------------------------------------------------------

    def test_a_saved_model_answers_the_same(self, params: dict[str, Any], tmp_path: Path) -> None:
        job = self.job(params, tmp_path)
        model = self.backend.fit(job)
        model.save(tmp_path / "model")
        loaded = self.backend.load(tmp_path / "model")
        texts = [*(row.text for row in job.rows), *ODD_TEXTS]
        assert_close(labelled(model.predict(texts)), labelled(loaded.predict(texts)), "saving and loading")
        files = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
        assert files, "something was saved"
        for path in files:
            assert path.suffix in DATA_FILES, f"{path.name} is not a data file"
            assert path.read_bytes()[:2] not in PICKLE_STARTS, f"{path.name} is a pickle"

    # --- rows out of the ordinary -------------------------------------------------------------------------------------

    def test_negatives(self, params: dict[str, Any], tmp_path: Path) -> None:
        job = self.job(params, tmp_path)
        model = self.backend.fit(replace(job, rows=(*job.rows, *negative_rows())))
        check_form(labelled(model.predict([*OUTSIDE, *(row.text for row in job.rows)])), len(OUTSIDE) + len(job.rows))
        model.save(tmp_path / "model")
        assert_close(
            labelled(model.predict(ODD_TEXTS)),
            labelled(self.backend.load(tmp_path / "model").predict(ODD_TEXTS)),
            "saving and loading",
        )

    def test_a_task_without_out_of_scope(self, params: dict[str, Any], tmp_path: Path) -> None:
        job = replace(self.job(params, tmp_path), out_of_scope=None)
        check_form(labelled(self.backend.fit(job).predict(OUTSIDE)), len(OUTSIDE))

    def test_rare_labels(self, params: dict[str, Any], tmp_path: Path) -> None:
        job = self.job(params, tmp_path)
        one_each = tuple({row.label: row for row in job.rows}.values())
        one_label = tuple(row for row in job.rows if row.label == "size")
        two_labels = tuple(row for row in job.rows if row.label in ("size", "hours"))
        for number, rows in enumerate((one_each, one_label, (*one_label, *negative_rows()), two_labels, rows_of_one())):
            model = self.backend.fit(replace(job, rows=rows, checkpoint=tmp_path / str(number)))
            outputs = labelled(model.predict(ODD_TEXTS))
            check_form(outputs, len(ODD_TEXTS))
            used = {LABELS.index(row.label) for row in rows if row.label in LABELS}
            assert set(outputs.probs.argmax(1)) <= used, "a label without rows is never the answer"

    # --- parameters ---------------------------------------------------------------------------------------------------

    def test_unknown_parameters_are_refused(self) -> None:
        refused = False
        try:
            self.backend.Params.model_validate({"no_such_parameter": 1})
        except ValueError:
            refused = True
        assert refused

    def test_every_dimension_is_a_parameter(self, params: dict[str, Any]) -> None:
        for path, dimension in self.backend.space(params).items():
            for value in edges(dimension):
                changed = with_value(self.whole(params), path, value)
                self.backend.Params.model_validate(changed)
                assert self.backend.nominal_cost(changed, 10, 10) > 0
                assert set(self.backend.space(changed)) == set(self.backend.space(params)), "tuning keeps the structure"

    def test_nominal_cost(self, params: dict[str, Any]) -> None:
        cost = self.backend.nominal_cost
        assert 0 < cost(params, 100, 100) == cost(params, 100, 100) < float("inf")
        assert cost(params, 100, 100) <= cost(params, 1000, 100) <= cost(params, 1000, 10_000)
        assert cost(params, 0, 0) >= 0

    def whole(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters with every default filled in."""
        return self.backend.Params.model_validate(params).model_dump(mode="json")


def rows_of_one() -> tuple[Row, ...]:
    """A single row."""
    return example_rows()[:1]


def check_form(outputs: Outputs, count: int) -> None:
    """Shapes, types and ranges of `Outputs`."""
    assert outputs.probs.shape == (count, len(LABELS)) and outputs.score.shape == (count,)
    assert outputs.probs.dtype == np.float32 and outputs.score.dtype == np.float32
    assert np.isfinite(outputs.probs).all() and np.isfinite(outputs.score).all()
    assert (outputs.probs >= 0).all() and np.allclose(outputs.probs.sum(1), 1.0, atol=1e-4)


def assert_close(first: Outputs, second: Outputs, what: str) -> None:
    """Equal within floating point."""
    gap = max((float(np.abs(a - b).max()) for a, b in _pairs(first, second) if a.size), default=0.0)
    assert gap < 1e-4, f"{what} changes an answer by {gap}"


def edges(dimension: Dimension) -> tuple[Any, ...]:
    """The values at the ends of a dimension."""
    if dimension.choices:
        return dimension.choices
    assert dimension.low < dimension.high and (dimension.low > 0 or not dimension.log)
    ends = (dimension.low, dimension.high)
    return tuple(int(end) for end in ends) if dimension.integer else ends


def with_value(params: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with the value at a dotted path, `members.0.weight`, replaced."""
    changed = copy.deepcopy(dict(params))
    *steps, last = path.split(".")
    place: Any = changed
    for step in steps:
        place = place[int(step)] if isinstance(place, list | tuple) else place[step]
    place[last] = value
    return changed


def _pairs(first: Outputs, second: Outputs) -> Iterator[tuple[Any, Any]]:
    yield first.probs, second.probs
    yield first.score, second.score
