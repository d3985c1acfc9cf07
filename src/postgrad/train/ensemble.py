"""The ensemble backend: several models on the same rows, answers averaged. One confidence cannot serve both routing and
rejection, so each member has a weight for its probabilities and another for its in-scope score."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Mapping, Sequence

from pydantic import Field, field_validator, model_validator

from postgrad.records import Dimension, Record, Stage, Value
from postgrad.registry import Registry
from postgrad.train.base import Backend, FitJob, Fitted, Outputs, labelled


class Member(Record):
    """One model of an ensemble. Scores of different kinds have about the same spread, see `scores.py`."""

    stage: Stage
    weight: float = Field(1.0, ge=0)
    score_weight: float = Field(1.0, ge=0)

    @field_validator("stage")
    @classmethod
    def _is_known(cls, stage: Stage) -> Stage:
        backend_of(stage).Params.model_validate(stage.params)
        return stage


class EnsembleParams(Record):
    """The members, at least two."""

    members: tuple[Member, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _weighs_something(self) -> EnsembleParams:
        for name in ("weight", "score_weight"):
            if not any(getattr(member, name) for member in self.members):
                raise ValueError(f"every member has {name} 0; give at least one a positive {name}")
        return self


def backend_of(stage: Stage) -> Backend:
    """The backend of a stage.

    Raises:
        UserError: there is none of that name.
    """
    from postgrad.train import BACKENDS

    backends: Registry[Backend] = BACKENDS
    return backends.get(stage.backend)


@dataclass(frozen=True)
class EnsembleModel:
    """Trained members with their backends' names."""

    members: tuple[Member, ...]
    models: tuple[Fitted, ...]

    def predict(self, texts: Sequence[str]) -> Outputs:
        import numpy as np

        answers = [labelled(model.predict(texts)) for model in self.models]
        weights = np.array([member.weight for member in self.members])
        score_weights = np.array([member.score_weight for member in self.members])
        probs = np.tensordot(weights / weights.sum(), np.stack([a.probs for a in answers]), axes=1)
        score = np.tensordot(score_weights / score_weights.sum(), np.stack([a.score for a in answers]), axes=1)
        return Outputs(probs.astype(np.float32), score.astype(np.float32))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for i, model in enumerate(self.models):
            model.save(folder / f"member-{i}")
        facts = [member.model_dump(mode="json") for member in self.members]
        (folder / "ensemble.json").write_text(json.dumps(facts, indent=1))


class Ensemble:
    """The backend."""

    Params = EnsembleParams

    def space(self, params: Mapping[str, Value]) -> dict[str, Dimension]:
        """The numbers of every member as `members.I.NAME`, and the weights."""
        found: dict[str, Dimension] = {}
        for i, member in enumerate(EnsembleParams.model_validate(dict(params)).members):
            own = backend_of(member.stage).space(member.stage.params)
            found |= {f"members.{i}.stage.params.{name}": dimension for name, dimension in own.items()}
            found[f"members.{i}.weight"] = Dimension(low=0.25, high=4.0, log=True)
            found[f"members.{i}.score_weight"] = Dimension(low=0.25, high=4.0, log=True)
        return found

    def nominal_cost(self, params: Mapping[str, Value], rows: int, texts: int) -> float:
        members = EnsembleParams.model_validate(dict(params)).members
        return sum(backend_of(m.stage).nominal_cost(m.stage.params, rows, texts) for m in members)

    def fit(self, job: FitJob) -> Fitted:
        params = EnsembleParams.model_validate(job.params.model_dump())
        models = []
        for i, member in enumerate(params.members):
            backend = backend_of(member.stage)
            own: Any = backend.Params.model_validate(member.stage.params)
            models.append(backend.fit(replace(job, params=own, checkpoint=job.checkpoint / str(i), seed=job.seed + i)))
        return EnsembleModel(params.members, tuple(models))

    def load(self, folder: Path) -> Fitted:
        members = tuple(Member.model_validate(m) for m in json.loads((folder / "ensemble.json").read_text()))
        models = tuple(backend_of(member.stage).load(folder / f"member-{i}") for i, member in enumerate(members))
        return EnsembleModel(members, models)
