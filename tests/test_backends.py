"""Every backend keeps the contract, and what each does of its own."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from postgrad.errors import UserError
from postgrad.testing.backend import LABELS, OUTSIDE, WORDS, BackendContract, example_rows, negative_rows
from postgrad.testing.encoder import make_tiny_encoder
from postgrad.train import BACKENDS, scores
from postgrad.train.base import FitJob, TrainingDiverged, labelled
from postgrad.train.classic import Classic
from postgrad.train.constant import Constant
from postgrad.train.embedder import Embedder
from postgrad.train.ensemble import Ensemble
from postgrad.train.tuning import has_bf16

SMALL: dict[str, Any] = {"batch_size": 8, "lr": 2e-3, "head_lr": 2e-2, "epochs": 10, "precision": "fp32"}
FROZEN: dict[str, Any] = {**SMALL, "tune": "frozen"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = {word for phrases in WORDS.values() for phrase in phrases for word in phrase.split()}
    return make_tiny_encoder(tmp_path_factory.mktemp("tiny"), sorted(words))


class WithEncoder(BackendContract):
    @pytest.fixture(autouse=True)
    def _encoder(self, tiny: Path) -> None:
        self.encoder = tiny

    def base_model(self, folder: Path) -> Path:
        return self.encoder


class TestConstant(BackendContract):
    backend = Constant()
    learns = False

    def test_the_most_frequent_label_wins(self, tmp_path: Path) -> None:
        rows = (*example_rows(), *(row for row in example_rows() if row.label == "hours"))
        outputs = labelled(self.backend.fit(replace(self.job({}, tmp_path), rows=rows)).predict(["anything"]))
        assert LABELS[int(outputs.probs.argmax())] == "hours"


class TestClassic(BackendContract):
    backend = Classic()
    cases = (
        {},
        {"head": "svm", "score": "knn"},
        {"head": "nb", "score": "log_prob"},
        {"word_max": 0, "negatives": "none"},
        {"char_max": 0, "class_weight": "none", "sublinear": False},
    )

    def test_nothing_to_count(self) -> None:
        with pytest.raises(ValidationError, match="word_max"):
            self.backend.Params.model_validate({"word_max": 0, "char_max": 0})


class TestEmbedder(WithEncoder):
    backend = Embedder()
    cases = (
        SMALL,
        {**SMALL, "tune": "partial", "layers": 1, "head": "cosine", "score": "energy", "negatives": "class"},
        {**SMALL, "tune": "lora", "lora_r": 4, "score": "blend", "negatives": "uniform"},
        {
            **SMALL,
            "contrastive_epochs": 2,
            "epochs": 10,
            "lr": 1e-3,
            "batch_size": 16,
            "head": "prototype",
            "score": "knn",
        },
        {**SMALL, "contrastive_epochs": 2, "epochs": 0, "contrastive_loss": "pairs", "head": "logistic"},
        {**FROZEN, "epochs": 40, "score": "max_prob", "negatives": "uniform"},
        {**FROZEN, "head": "logistic", "score": "mahalanobis", "negatives": "class"},
        {**FROZEN, "head": "knn", "score": "knn", "knn_k": 3, "negatives": "class"},
    )

    def test_every_layer_learns_that_should(self, tmp_path: Path) -> None:
        import torch

        def moved(params: dict[str, Any]) -> set[str]:
            job = self.job({**SMALL, **params}, tmp_path)
            fitted: Any = self.backend.fit(replace(job, checkpoint=tmp_path / str(sorted(params.items()))))
            before: Any = self.backend.fit(self.job({**FROZEN, "head": "prototype"}, tmp_path))
            old = dict(before.encoder.named_parameters())
            changed = {n for n, p in fitted.encoder.named_parameters() if not torch.equal(p.data, old[n].data)}
            return {name.split("layer.")[1][0] if "layer." in name else "other" for name in changed}

        assert moved({"tune": "full"}) == {"0", "1"}
        assert moved({"tune": "partial", "layers": 1}) == {"1"}
        assert moved({"tune": "lora"}) == {"0", "1"}

    def test_a_huge_learning_rate_is_a_divergence(self, tmp_path: Path) -> None:
        with pytest.raises(TrainingDiverged):
            self.backend.fit(self.job({**SMALL, "lr": 1e30, "head_lr": 1e30}, tmp_path))

    def test_a_recipe_without_base_model(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="base_model"):
            self.backend.fit(replace(self.job(SMALL, tmp_path), base_model=None))

    def test_seeds_differ(self, tmp_path: Path) -> None:
        job = self.job(SMALL, tmp_path)
        first = labelled(self.backend.fit(job).predict(OUTSIDE))
        second = labelled(self.backend.fit(replace(job, seed=4)).predict(OUTSIDE))
        assert not np.array_equal(first.probs, second.probs)

    def test_losses_fall_and_are_reported(self, tmp_path: Path) -> None:
        told: list[tuple[int, float]] = []
        job = replace(self.job({**SMALL, "epochs": 6}, tmp_path), report=lambda step, loss: told.append((step, loss)))
        self.backend.fit(job)
        assert [step for step, _ in told] == [4, 8, 12, 16, 20, 24]
        assert told[-1][1] < told[0][1]

    @pytest.mark.parametrize("negatives", ["class", "uniform"])
    def test_negatives_lower_the_score_of_their_like(self, negatives: str, tmp_path: Path) -> None:
        rows = (*example_rows(), *negative_rows())
        params = {**SMALL, "epochs": 8, "score": "max_prob", "negatives": negatives, "negative_weight": 2.0}

        def outside_score(params: dict[str, Any], name: str) -> float:
            job = replace(self.job(params, tmp_path), rows=rows, checkpoint=tmp_path / name)
            return float(labelled(self.backend.fit(job).predict(OUTSIDE)).score.mean())

        assert outside_score(params, "with") < outside_score({**params, "negatives": "none"}, "without") - 0.1


class TestEnsemble(WithEncoder):
    backend = Ensemble()
    cases = (
        {
            "members": [
                {"stage": {"backend": "classic", "params": {"score": "log_prob"}}, "weight": 2.0},
                {"stage": {"backend": "embedder", "params": {**SMALL, "epochs": 2}}, "score_weight": 0.5},
            ]
        },
        {"members": [{"stage": {"backend": "classic"}}, {"stage": {"backend": "constant"}, "weight": 0.0}]},
    )

    def test_it_is_the_weighted_mean_of_its_members(self, tmp_path: Path) -> None:
        heads = ("logistic", "nb")
        params = {
            "members": [
                {"stage": {"backend": "classic", "params": {"head": heads[0]}}, "weight": 3.0, "score_weight": 1.0},
                {"stage": {"backend": "classic", "params": {"head": heads[1]}}, "weight": 1.0, "score_weight": 4.0},
            ]
        }
        job = self.job(params, tmp_path)
        whole = labelled(self.backend.fit(job).predict(OUTSIDE))
        own = [
            labelled(Classic().fit(replace(job, params=Classic.Params.model_validate({"head": head}))).predict(OUTSIDE))
            for head in heads
        ]
        assert np.allclose(whole.probs, 0.75 * own[0].probs + 0.25 * own[1].probs, atol=1e-6)
        assert np.allclose(whole.score, 0.2 * own[0].score + 0.8 * own[1].score, atol=1e-6)

    @pytest.mark.parametrize(
        ("member", "message"),
        [
            ({"stage": {"backend": "classic", "params": {"no": 1}}}, "no"),
            ({"stage": {"backend": "clasic"}}, "Did you mean 'classic'"),
            ({"stage": {"backend": "ensemble", "params": {}}}, "members"),
            ({"stage": {"backend": "classic"}, "weight": -1}, "greater than or equal to 0"),
        ],
    )
    def test_wrong_members_are_refused_before_training(self, member: dict[str, Any], message: str) -> None:
        with pytest.raises((ValidationError, UserError), match=message):
            self.backend.Params.model_validate({"members": [{"stage": {"backend": "classic"}}, member]})

    def test_weights_that_are_all_zero(self) -> None:
        members = [{"stage": {"backend": "classic"}, "weight": 0.0}, {"stage": {"backend": "constant"}, "weight": 0.0}]
        with pytest.raises(ValidationError, match="weight"):
            self.backend.Params.model_validate({"members": members})


def test_all_backends_are_covered() -> None:
    covered = {type(suite.backend).__name__ for suite in (TestConstant, TestClassic, TestEmbedder, TestEnsemble)}
    covered |= {"Soup", "CausalLM", "Nearest"}  # in test_soup.py, test_causal_lm.py and test_generation.py
    # Trains in an environment of its own, so it has tests of its own: test_training_hub.py.
    covered.add("TrainingHub")
    # Trains nothing by itself: test_scripts.py.
    covered.add("Script")
    assert {type(BACKENDS.get(name)).__name__ for name in BACKENDS.names()} == covered


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("sse avx2 avx512f avx512_bf16 amx", True),
        ("fp asimd bf16 i8mm", True),
        ("sse avx2 avx512f", False),
        (None, False),
    ],
)
def test_bf16_is_for_cpus_that_have_it(flags: str | None, expected: bool, tmp_path: Path) -> None:
    cpu = tmp_path / "cpuinfo"
    if flags is not None:
        cpu.write_text(f"processor : 0\nflags\t\t: {flags}\n\n")
    assert has_bf16(cpu) is expected


def test_scores_by_hand() -> None:
    probs = np.array([[0.5, 0.5], [0.9, 0.1]], np.float32)
    assert scores.max_prob(probs) == pytest.approx([0.5, 0.9])
    assert scores.log_prob(probs) == pytest.approx([0.3 * math.log(0.5), 0.3 * math.log(0.9)])
    logits = np.array([[0.0, math.log(3.0)]], np.float32)
    assert scores.energy(logits, 2.0) == pytest.approx([math.log(4.0) / 2])
    bank = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    asked = np.array([[0.6, 0.8]], np.float32)
    assert scores.nearest(asked, bank, 1) == pytest.approx([0.8])
    assert scores.nearest(asked, bank, 2) == pytest.approx([0.7])
    assert scores.nearest(asked, bank, 99) == pytest.approx([(0.8 + 0.6 - 0.6) / 3])
    means = np.array([[0.0, 0.0], [4.0, 0.0]], np.float32)
    precision = np.diag([0.25, 1.0]).astype(np.float32)
    found = scores.mahalanobis(np.array([[4.0, 2.0], [0.0, 0.0]], np.float32), means, precision)
    assert found == pytest.approx([-math.sqrt(4.0 / 2), 0.0])


def test_a_real_fine_tune_of_minilm(minilm: Path, tmp_path: Path) -> None:
    """A quarter of a minute on one core. The questions share hardly a word with the training rows."""
    questions = {
        "refund": ["can i get my cash returned", "give me what i paid"],
        "delivery": ["when will the package arrive", "my shipment has not come yet"],
        "size": ["is this coat tight", "i need a bigger one"],
        "hours": ["how late can i visit you", "are you there at the weekend"],
    }
    job = FitJob(
        rows=(*example_rows(14), *negative_rows()),
        labels=LABELS,
        out_of_scope="nothing of these",
        params=Embedder.Params.model_validate({"epochs": 4}),
        base_model=minilm,
        seed=1,
        threads=1,
        checkpoint=tmp_path / "checkpoint",
    )
    model = Embedder().fit(job)
    outputs = labelled(model.predict([text for texts in questions.values() for text in texts]))
    truth = [LABELS.index(label) for label, texts in questions.items() for _ in texts]
    assert (outputs.probs.argmax(1) == truth).mean() >= 0.75
    strange = labelled(model.predict(["why do cats purr", "the capital of peru", "derive the quadratic formula"]))
    assert strange.score.mean() < outputs.score.mean()
