"""Trains recipes one after the other in one process and shares what they have in common: embeddings, and members.

Same parts as the backends, in the same order with the same seeds, so that the answers are theirs; a test compares them.
A recipe's seconds are what it would have taken alone: every shared part counts with what it took when it was made, on
the clock of this process's own CPU time, which does not see other programs.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Sequence

from postgrad.bench.record_data import Asked, Ground
from postgrad.data.steps import training_rows
from postgrad.errors import PostgradError
from postgrad.records import Failure, Recipe, Row, Stage, content_hash
from postgrad.research import edit
from postgrad.train import BACKENDS
from postgrad.train.base import FitJob, Outputs, TrainingDiverged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from postgrad.train.rows import TrainingSet

REMEMBERED = 600
THREADS = 1
TRAINED_HEADS = ("linear", "cosine")
# Settings that say what is made of a trained encoder, and not how it is trained.
AFTERWARDS = ("score", "knn_k", "C")


class Failed(PostgradError):
    """A training that ended in a failure, with the seconds it took till then."""

    def __init__(self, failure: Failure, seconds: float) -> None:
        super().__init__(failure.message)
        self.failure, self.seconds = failure, seconds


@dataclass
class Meter:
    """The seconds of one training, against its limit."""

    limit_s: float
    used_s: float = 0.0
    _since: float | None = None

    def add(self, seconds: float) -> None:
        """Seconds of a part that is at hand.

        Raises:
            Failed: with them it is over the limit.
        """
        self.used_s += seconds
        self.check()

    def check(self) -> None:
        """Raise `Failed` where the limit is passed."""
        running = time.process_time() - self._since if self._since is not None else 0.0
        if self.used_s + running > self.limit_s:
            message = f"The training reached its limit of {self.limit_s:g} s."
            raise Failed(Failure(boundary="resource", kind="timeout", message=message), self.limit_s)

    def start(self) -> None:
        self._since = time.process_time()

    def stop(self) -> float:
        """Seconds since `start`; they are not counted yet."""
        assert self._since is not None
        seconds, self._since = time.process_time() - self._since, None
        return seconds


@dataclass
class Remembered:
    """What was made last, by key; the oldest go first."""

    most: int
    kept: OrderedDict[str, Any] = field(default_factory=OrderedDict)

    def get(self, key: str) -> Any:
        if key in self.kept:
            self.kept.move_to_end(key)
        return self.kept.get(key)

    def put(self, key: str, value: Any) -> None:
        self.kept[key] = value
        while len(self.kept) > self.most:
            self.kept.popitem(last=False)


class Trainer:
    """Trains on one ground.

    Args:
        folder: where tuned encoders' embeddings are kept, so that a killed recording need not tune them again.
        base: folder of the base model; None where the task has none.
        limit_s: seconds that one training of a recipe may take, all its units together.
    """

    def __init__(self, ground: Ground, folder: Path, base: Path | None, limit_s: float) -> None:
        self.ground, self.folder, self.base, self.limit_s = ground, folder, base, limit_s
        self._members, self._rows = Remembered(REMEMBERED), Remembered(REMEMBERED)
        self._texts: dict[str, NDArray[np.float32]] = {}
        self._text_s = 0.0
        self._encoder: Any = None
        self._load_s = 0.0

    def train(self, recipe: Recipe, seed: int) -> tuple[dict[str, Outputs], dict[str, float]]:
        """(outputs, seconds) of every unit, by its name.

        Raises:
            Failed: it took too long, diverged, or had no rows to learn from.
        """
        meter, outputs, seconds = Meter(self.limit_s), {}, {}
        for unit in self.ground.units:
            before = meter.used_s
            outputs[unit.name] = self._unit(recipe, unit, seed, meter)
            seconds[unit.name] = meter.used_s - before
        return outputs, seconds

    def _unit(self, recipe: Recipe, unit: Asked, seed: int, meter: Meter) -> Outputs:
        import numpy as np

        rows = self._training_rows(recipe, unit, seed, meter)
        found = edit.members(recipe)
        answers = []
        for number, member in enumerate(found):
            stage = Stage.model_validate(member["stage"])
            answers.append(self._member(recipe, stage, rows, unit, (seed, seed + number), meter))
        if len(found) == 1:
            return answers[0]
        # As `ensemble.EnsembleModel.predict`.
        weights = np.array([float(member.get("weight", 1.0)) for member in found])
        score_weights = np.array([float(member.get("score_weight", 1.0)) for member in found])
        probs = np.tensordot(weights / weights.sum(), np.stack([a.probs for a in answers]), axes=1)
        score = np.tensordot(score_weights / score_weights.sum(), np.stack([a.score for a in answers]), axes=1)
        return Outputs(probs.astype(np.float32), score.astype(np.float32))

    def _training_rows(self, recipe: Recipe, unit: Asked, seed: int, meter: Meter) -> tuple[Row, ...]:
        steps = [step.model_dump(mode="json") for step in recipe.data]
        key = content_hash([unit.name, steps, seed if steps else 0])
        if (known := self._rows.get(key)) is None:
            meter.start()
            rows, _ = training_rows(
                unit.train,
                [row.text for row in unit.rows],
                recipe.data,
                seed=seed,
                out_of_scope=self.ground.plan.out_of_scope,
                base_model=self.base,
            )
            known = rows, meter.stop()
            self._rows.put(key, known)
        meter.add(known[1])
        if not any(row.label in self.ground.plan.labels for row in known[0]):
            message = f"No train row is left after the data steps (of unit {unit.name})."
            raise Failed(Failure(boundary="data", kind="empty", message=message), meter.used_s)
        return tuple(known[0])

    def _member(
        self, recipe: Recipe, stage: Stage, rows: tuple[Row, ...], unit: Asked, seeds: tuple[int, int], meter: Meter
    ) -> Outputs:
        """What one member answers; `seeds` are the unit's and the member's."""
        backend: Any = BACKENDS.get(stage.backend)
        params = backend.Params.model_validate(stage.params)
        steps = [step.model_dump(mode="json") for step in recipe.data]
        about = [steps, seeds[0] if steps else 0, unit.name, seeds[1] if getattr(backend, "seeded", True) else 0]
        plain = params.model_dump(mode="json")
        key = content_hash([stage.backend, plain, recipe.base_model, about])
        if (known := self._members.get(key)) is None:
            job = FitJob(
                rows=rows,
                labels=self.ground.plan.labels,
                out_of_scope=self.ground.plan.out_of_scope,
                params=params,
                base_model=self.base if recipe.base_model else None,
                seed=seeds[1],
                threads=THREADS,
                checkpoint=self.folder / "checkpoint",
                report=lambda step, loss: meter.check(),
            )
            texts = [row.text for row in unit.rows]
            if stage.backend == "embedder":
                known = self._embedder(
                    job, texts, key, content_hash([_training(plain), recipe.base_model, about]), meter
                )
            else:
                meter.start()
                answer = backend.fit(job).predict(texts)
                known = answer, meter.stop()
            self._members.put(key, known)
        outputs: Outputs = known[0]
        meter.add(known[1])
        return outputs

    # --- embedders ----------------------------------------------------------------------------------------------------

    def _embedder(
        self, job: FitJob, texts: Sequence[str], key: str, training: str, meter: Meter
    ) -> tuple[Outputs, float]:
        """(answers, seconds): as `tuning.fit_embedder` and `heads.EmbedderModel.predict`, with shared embeddings."""
        from postgrad.train.rows import finished_head, training_set

        params: Any = job.params
        data = training_set(job.rows, job.labels, job.out_of_scope, params.negatives)
        arrays, inside, asked, seconds = self._encoded(job, data, texts, training, meter)
        meter.start()
        try:
            answer = finished_head(job, params, data, inside, arrays).answer(asked)
        except TrainingDiverged as wrong:
            raise Failed(_diverged(wrong), meter.used_s + seconds + meter.stop()) from wrong
        return answer, seconds + meter.stop()

    def _encoded(
        self, job: FitJob, data: TrainingSet, texts: Sequence[str], training: str, meter: Meter
    ) -> tuple[dict[str, Any], NDArray[np.float32], NDArray[np.float32], float]:
        """(head arrays, train embeddings, asked embeddings, seconds)."""
        import numpy as np

        from postgrad.train.rows import prototypes

        params: Any = job.params
        path = self.folder / f"{training}.npz"
        if params.tune == "frozen":
            embedded, asked = self._embed(data.texts), self._embed(texts)
            seconds = self._load_s + self._text_s * (len(data.texts) + len(texts))
            arrays: dict[str, Any] = prototypes(embedded, data.classes, len(data.columns))
            if params.head not in TRAINED_HEADS:
                return arrays, embedded, asked, seconds
            if not path.exists():
                arrays, _, took = self._tuned(job, data, embedded, meter)
                _kept(path, {**arrays, "seconds": np.array(took)})
            with np.load(path) as file:
                arrays = {name: file[name] for name in ("weight", "bias")}
                return arrays, embedded, asked, seconds + float(file["seconds"])
        if not path.exists():
            embedded = self._embed(data.texts)
            arrays, encoder, took = self._tuned(job, data, embedded, meter)
            meter.start()
            inside, asked = _embedded(encoder, data.texts), _embedded(encoder, texts)
            took += meter.stop() + self._load_s + self._text_s * len(data.texts)
            _kept(path, {**arrays, "inside": inside, "asked": asked, "seconds": np.array(took)})
        with np.load(path) as file:
            arrays = {name: file[name] for name in ("weight", "bias")}
            return arrays, file["inside"], file["asked"], float(file["seconds"])

    def _tuned(
        self, job: FitJob, data: TrainingSet, embedded: NDArray[np.float32], meter: Meter
    ) -> tuple[dict[str, Any], Any, float]:
        """(head arrays, encoder, seconds) of one training."""
        from postgrad.train.tuning import Tuner, repeatable

        params: Any = job.params
        meter.start()
        try:
            with repeatable(job.seed, job.threads):
                encoder, arrays = Tuner(job, params, data, deepcopy(self._base()), embedded).run()
        except TrainingDiverged as wrong:
            raise Failed(_diverged(wrong), meter.used_s + meter.stop()) from wrong
        finally:
            for left in job.checkpoint.glob("*"):
                left.unlink()
        return arrays, encoder, meter.stop()

    def _base(self) -> Any:
        from postgrad.train.heads import load_encoder

        if self._encoder is None:
            assert self.base is not None
            load_encoder(self.base, 64)
            started = time.process_time()
            self._encoder = load_encoder(self.base, 64)
            self._load_s = time.process_time() - started
        return self._encoder

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings by the base model, each text once; what a text takes is measured over all of them."""
        import numpy as np

        encoder = self._base()
        missing = list(dict.fromkeys(text for text in texts if text not in self._texts))
        if missing:
            started = time.process_time()
            found = _embedded(encoder, missing)
            took = time.process_time() - started
            known = len(self._texts)
            self._text_s = (self._text_s * known + took) / (known + len(missing))
            self._texts.update(zip(missing, found, strict=True))
        return np.stack([self._texts[text] for text in texts])


def _embedded(encoder: Any, texts: Sequence[str]) -> NDArray[np.float32]:
    from postgrad.train.heads import embed
    from postgrad.train.tuning import repeatable

    with repeatable(0, THREADS):
        return embed(encoder.eval(), texts)


def _training(params: dict[str, Any]) -> dict[str, Any]:
    """What decides how an encoder or a trained head comes out: a tuned encoder is tuned with a linear head, whichever
    head is put on it later."""
    head = params["head"] if params["head"] == "cosine" else "linear"
    return {**{key: value for key, value in params.items() if key not in AFTERWARDS}, "head": head}


def training_key(recipe: Recipe, stage: Stage) -> str | None:
    """Names the training of an encoder that a stage needs, but for seed and unit; None where it needs none."""
    if stage.backend != "embedder":
        return None
    params = BACKENDS.get("embedder").Params.model_validate(stage.params).model_dump(mode="json")
    if params["tune"] == "frozen":
        return None
    steps = [step.model_dump(mode="json") for step in recipe.data]
    return json.dumps([_training(params), steps, recipe.base_model], sort_keys=True)


def _diverged(wrong: TrainingDiverged) -> Failure:
    return Failure(boundary="train", kind="nan", message=str(wrong))


def _kept(path: Path, arrays: dict[str, Any]) -> None:
    """Write arrays at once: a file is whole or not there."""
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        np.savez(file, **arrays)
    unfinished.replace(path)
