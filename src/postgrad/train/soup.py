"""The soup backend: several fine-tunings of one encoder from one start, their weights averaged into one model.

Wortsman et al. 2022, "Model soups" (ICML), section 2: fine-tunings of one pretrained model often lie in one basin, so
the mean of their weights is a model too, and it answers at the cost of one. Members differ in their seed, and where the
recipe says so in learning rate, length and use of negatives. The head that was trained along is averaged with the
encoder; a head that is computed is computed from the averaged encoder. An average of answers is the ensemble backend.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal, Mapping, Sequence

from pydantic import Field, model_validator

from postgrad.errors import UserError
from postgrad.records import Dimension, Record, Row, Stage, Value
from postgrad.train.base import FitJob, Fitted
from postgrad.train.embedder import Embedder, EmbedderParams

if TYPE_CHECKING:
    from postgrad.train.heads import EmbedderModel

# A greedy soup holds back this share of the rows of every label.
HELD_BACK = 0.2
# Seeds of members lie this far apart, so that a further training of the recipe with a neighbouring seed shares none.
SEED_STEP = 1009
MOST_EPOCHS = 200
# Names that a message lists.
SHOWN = 3


class Ingredient(Record):
    """How one member differs from what they share, besides its seed.

    Attributes:
        lr_factor: times the shared learning rate.
        epochs_factor: times the shared epochs.
        negatives: what out-of-scope rows train in this member; members have one architecture, so none may have a class
            for them that the others lack.
    """

    lr_factor: float = Field(default=1.0, gt=0, le=100)
    epochs_factor: float = Field(default=1.0, gt=0, le=100)
    negatives: Literal["shared", "none", "uniform"] = "shared"


class SoupParams(EmbedderParams):
    """The embedder's settings, which the members share, and what each member has of its own.

    Attributes:
        tune: as in the embedder; weights that are not trained are nothing to average.
        members: two to four.
        average: `uniform` takes all members. `greedy` holds back a fifth of the train rows, sorts the members by their
            share of right answers there, and takes each that does not lower it.
    """

    tune: Literal["full", "partial", "lora"] = "full"
    members: tuple[Ingredient, ...] = Field((Ingredient(), Ingredient()), min_length=2, max_length=4)
    average: Literal["uniform", "greedy"] = "uniform"

    @model_validator(mode="after")
    def _has_one_architecture(self) -> SoupParams:
        if self.negatives == "class" and any(member.negatives != "shared" for member in self.members):
            raise ValueError("negatives are a class of the shared head; leave negatives of every member 'shared'")
        return self

    def member(self, index: int) -> EmbedderParams:
        """The settings of one member, as the embedder backend takes them."""
        own = self.members[index]
        shared = self.model_dump(exclude={"members", "average"})
        shared["lr"] = self.lr * own.lr_factor
        shared["epochs"] = min(MOST_EPOCHS, max(min(1, self.epochs), round(self.epochs * own.epochs_factor)))
        if own.negatives != "shared":
            shared["negatives"] = own.negatives
        return EmbedderParams.model_validate(shared)

    @property
    def each(self) -> tuple[EmbedderParams, ...]:
        """The settings of all members."""
        return tuple(self.member(index) for index in range(len(self.members)))


def shared_stage(stage: Stage) -> Stage:
    """The embedder stage that the members of a soup share."""
    params = {key: value for key, value in stage.params.items() if key not in ("members", "average")}
    return Stage(backend="embedder", params=params)


def member_seed(seed: int, index: int) -> int:
    """The seed of a member; the first has that of the job."""
    return seed + SEED_STEP * index


class Soup:
    """The backend."""

    Params = SoupParams

    def space(self, params: Mapping[str, Value]) -> dict[str, Dimension]:
        """The numbers that the members share; their factors stay."""
        return Embedder().space(SoupParams.model_validate(dict(params)).model_dump(exclude={"members", "average"}))

    def nominal_cost(self, params: Mapping[str, Value], rows: int, texts: int) -> float:
        members = SoupParams.model_validate(dict(params)).each
        return sum(Embedder().nominal_cost(member.model_dump(), rows, texts) for member in members)

    def fit(self, job: FitJob) -> Fitted:
        return fit_soup(job, SoupParams.model_validate(job.params.model_dump()))

    def load(self, folder: Path) -> Fitted:
        from postgrad.train.heads import load_embedder

        return load_embedder(folder)


@dataclass(frozen=True)
class Weights:
    """What one training leaves: the encoder's tensors by name, and the arrays of the head trained along."""

    encoder: Mapping[str, Any]
    head: Mapping[str, Any]


def fit_soup(job: FitJob, params: SoupParams) -> EmbedderModel:
    """Train the members one after the other, each with checkpoints of its own, and average them.

    Raises:
        TrainingDiverged: a loss or a weight is not finite.
        UserError: the recipe names no base model.
    """
    if job.base_model is None:
        raise UserError("A soup trains a base model, and the recipe names none. Set its base_model.")
    kept, held = held_back(job) if params.average == "greedy" else (job.rows, ())
    found = []
    for index, member in enumerate(params.each):
        own = replace(job, rows=kept, params=member, seed=member_seed(job.seed, index))
        found.append(_trained(replace(own, checkpoint=job.checkpoint / str(index)), member))
    if held:
        found = _greedy(replace(job, rows=kept), params, found, held)
    return _model(job, params, mean(found))


def held_back(job: FitJob) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """(rows to train on, in-scope rows held back): a fifth of every label, drawn with the job's seed. A label with too
    few rows keeps all of them."""
    rng = Random(job.seed)
    held: set[int] = set()
    for label in job.labels:
        own = [number for number, row in enumerate(job.rows) if row.label == label]
        held.update(rng.sample(own, int(HELD_BACK * len(own))))
    kept = tuple(row for number, row in enumerate(job.rows) if number not in held)
    return kept, tuple(row for number, row in enumerate(job.rows) if number in held)


def mean(found: Sequence[Weights]) -> Weights:
    """The mean of every floating-point tensor and array, summed in double precision; other tensors are the first's.

    Raises:
        UserError: they are not of one architecture.
    """
    import numpy as np
    import torch

    shapes = [_shapes(weights) for weights in found]
    for number, other in enumerate(shapes[1:], 2):
        if wrong := sorted(dict(shapes[0].items() ^ other.items())):
            raise UserError(
                f"Members 1 and {number} of the soup are not of one architecture: {', '.join(wrong[:SHOWN])} of the "
                "one is not in the other, or has another shape. Only trainings of one model can be averaged."
            )
    encoder = {}
    for name, first in found[0].encoder.items():
        own = torch.stack([weights.encoder[name].double() for weights in found]).mean(0)
        encoder[name] = own.to(first.dtype) if first.is_floating_point() else first
    head = {}
    for name, array in found[0].head.items():
        both = np.stack([weights.head[name] for weights in found]).mean(0, dtype=np.float64)
        head[name] = both.astype(array.dtype)
    return Weights(encoder, head)


def _shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    both = {**weights.encoder, **{f"head {name}": array for name, array in weights.head.items()}}
    return {name: tuple(array.shape) for name, array in both.items()}


def _trained(job: FitJob, params: EmbedderParams) -> Weights:
    """One member, trained as the embedder backend trains it."""
    from postgrad.train.heads import embed
    from postgrad.train.rows import training_set
    from postgrad.train.tuning import Tuner, repeatable

    data = training_set(job.rows, job.labels, job.out_of_scope, params.negatives)
    with repeatable(job.seed, job.threads):
        encoder = _encoder(job, params)
        tuned, head = Tuner(job, params, data, encoder, embed(encoder, data.texts)).run()
    return Weights({name: tensor.detach().clone() for name, tensor in tuned.state_dict().items()}, dict(head))


def _model(job: FitJob, params: SoupParams, weights: Weights) -> EmbedderModel:
    """The model of some weights, its head over the job's rows."""
    from postgrad.train.heads import EmbedderModel, embed
    from postgrad.train.rows import finished_head, training_set
    from postgrad.train.tuning import repeatable

    data = training_set(job.rows, job.labels, job.out_of_scope, params.negatives)
    with repeatable(job.seed, job.threads):
        encoder = _encoder(job, params)
        encoder.load_state_dict(weights.encoder)
        head = finished_head(job, params, data, embed(encoder, data.texts), dict(weights.head))
    return EmbedderModel(encoder, head, params.max_length)


def _greedy(job: FitJob, params: SoupParams, found: Sequence[Weights], held: Sequence[Row]) -> list[Weights]:
    """The members of a greedy soup (Wortsman et al. 2022, recipe 1)."""
    import numpy as np

    truth = np.array([job.labels.index(row.label) for row in held])

    def right(chosen: Sequence[Weights]) -> float:
        answers = _model(job, params, mean(chosen)).predict([row.text for row in held])
        return float((answers.probs.argmax(1) == truth).mean())

    alone = [right([weights]) for weights in found]
    order = sorted(range(len(found)), key=lambda index: (-alone[index], index))
    chosen, best = [found[order[0]]], alone[order[0]]
    for index in order[1:]:
        if (together := right([*chosen, found[index]])) >= best:
            chosen, best = [*chosen, found[index]], together
    return chosen


def _encoder(job: FitJob, params: EmbedderParams) -> Any:
    from postgrad.train.heads import load_encoder

    assert job.base_model is not None, "fit_soup has checked that"
    return load_encoder(job.base_model, params.max_length)
