"""Soups: trainings of one encoder with their weights averaged, as a backend and as a move."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from postgrad.bench.landscapes_families import Additive
from postgrad.bench.landscapes_features import features
from postgrad.errors import UserError
from postgrad.events import Event, SearchEnded
from postgrad.export import export_champion, predict, requirements
from postgrad.records import (
    Budget,
    Choice,
    DataSpec,
    EngineSpec,
    Failure,
    Move,
    Proposal,
    Recipe,
    Row,
    SearchSpec,
    Stage,
    TaskSpec,
    Value,
)
from postgrad.replay import replay_champion
from postgrad.report.wording import recipe_lines
from postgrad.research import edit
from postgrad.research.base import Context
from postgrad.research.moves import PLAYS
from postgrad.research.play import TUNED
from postgrad.research.repairs import repaired
from postgrad.research.space import RecipeSpace
from postgrad.runner import drive, opened, start_run
from postgrad.store.sqlite import SqliteStore
from postgrad.testing.backend import LABELS, OUTSIDE, WORDS, BackendContract, example_rows
from postgrad.testing.encoder import make_tiny_encoder
from postgrad.testing.researcher import REJECTING
from postgrad.train import lineage
from postgrad.train.base import labelled
from postgrad.train.embedder import Embedder
from postgrad.train.soup import Soup, SoupParams, Weights, held_back, mean, member_seed

SMALL: dict[str, Any] = {"batch_size": 8, "lr": 2e-3, "head_lr": 2e-2, "epochs": 8, "precision": "fp32"}
BASE = REJECTING.base_models[0]
ALONE = Recipe(base_model=BASE, stage=TUNED)
PLAY = {play.kind: play for play in PLAYS}
SEEDS, RATES = PLAY["soup.seeds"], PLAY["soup.rates"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = {word for phrases in WORDS.values() for phrase in phrases for word in phrase.split()}
    return make_tiny_encoder(tmp_path_factory.mktemp("tiny"), sorted(words))


class TestSoup(BackendContract):
    backend = Soup()
    cases = (
        SMALL,
        {**SMALL, "head": "logistic", "members": [{}, {"lr_factor": 0.5, "epochs_factor": 0.5}], "average": "greedy"},
        {**SMALL, "tune": "lora", "lora_r": 4, "score": "blend", "members": [{}, {"negatives": "uniform"}]},
    )

    @pytest.fixture(autouse=True)
    def _encoder(self, tiny: Path) -> None:
        self.encoder = tiny

    def base_model(self, folder: Path) -> Path:
        return self.encoder

    @pytest.mark.parametrize("tune", ["full", "partial", "lora"])
    def test_its_weights_are_the_mean_of_its_members(self, tune: str, tmp_path: Path) -> None:
        params = {**SMALL, "tune": tune, "members": [{}, {"lr_factor": 0.5}]}
        job = self.job(params, tmp_path)
        soup: Any = self.backend.fit(job)
        alone: list[Any] = []
        for index, lr in enumerate((2e-3, 1e-3)):
            own = Embedder.Params.model_validate({**SMALL, "tune": tune, "lr": lr})
            seed = member_seed(job.seed, index)
            where = tmp_path / f"alone-{index}"
            alone.append(Embedder().fit(replace(job, params=own, seed=seed, checkpoint=where)))
        states = [model.encoder.state_dict() for model in alone]
        moved = 0
        for name, tensor in soup.encoder.state_dict().items():
            both = [state[name].numpy() for state in states]
            assert np.allclose(tensor.numpy(), (both[0] + both[1]) / 2, rtol=0, atol=1e-7), name
            moved += not np.array_equal(*both)
        assert moved > 5, "the members differ, so that a mean is not either of them"
        for name, array in soup.head.arrays.items():
            assert np.allclose(array, (alone[0].head.arrays[name] + alone[1].head.arrays[name]) / 2, atol=1e-7), name

    def test_a_greedy_soup_leaves_out_what_harms(self, tmp_path: Path) -> None:
        good = {**SMALL, "tune": "partial", "layers": 1, "members": [{}, {"lr_factor": 100, "epochs_factor": 0.2}]}
        job = self.job({**good, "average": "greedy"}, tmp_path)
        greedy: Any = self.backend.fit(job)
        own = Embedder.Params.model_validate({**SMALL, "tune": "partial", "layers": 1})
        best: Any = Embedder().fit(replace(job, rows=held_back(job)[0], params=own, checkpoint=tmp_path / "best"))
        for name, tensor in greedy.encoder.state_dict().items():
            assert np.array_equal(tensor.numpy(), best.encoder.state_dict()[name].numpy()), name

    def test_what_is_held_back(self, tmp_path: Path) -> None:
        job = replace(self.job(SMALL, tmp_path), rows=(*example_rows(10), Row("x", "the only one", "unused")))
        kept, held = held_back(job)
        assert len(held) == 8 and set(kept) | set(held) == set(job.rows) and not set(kept) & set(held)
        assert {row.label for row in kept} == set(LABELS), "a label with one row keeps it"
        assert held != held_back(replace(job, seed=4))[1]

    def test_a_recipe_without_base_model(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="base_model"):
            self.backend.fit(replace(self.job(SMALL, tmp_path), base_model=None))

    def test_it_costs_what_its_members_cost(self) -> None:
        alone = Embedder().nominal_cost(SMALL, 100, 50)
        assert self.backend.nominal_cost(SMALL, 100, 50) == pytest.approx(2 * alone)
        longer = self.backend.nominal_cost({**SMALL, "members": ({}, {"epochs_factor": 2.0}, {})}, 100, 50)
        assert 3 * alone < longer < 4 * alone

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"tune": "frozen"}, "tune"),
            ({"members": [{}]}, "at least 2"),
            ({"members": [{}] * 5}, "at most 4"),
            ({"members": [{}, {"lr": 0.1}]}, "lr"),
            ({"negatives": "class", "members": [{}, {"negatives": "none"}]}, "shared head"),
        ],
    )
    def test_what_is_no_soup_is_refused(self, wrong: dict[str, Any], message: str) -> None:
        with pytest.raises(ValidationError, match=message):
            self.backend.Params.model_validate(wrong)

    def test_the_exported_reader_and_the_lineage_know_it(self, tmp_path: Path) -> None:
        stage = Stage.model_validate({"backend": "soup", "params": {**SMALL, "members": ({}, {"lr_factor": 0.5})}})
        model = self.backend.fit(self.job(stage.params, tmp_path))
        model.save(tmp_path / "model")
        probs, score = predict.load_stage("soup", tmp_path / "model")(OUTSIDE)
        expected = labelled(model.predict(OUTSIDE))
        assert np.allclose(probs, expected.probs, atol=1e-4) and np.allclose(score, expected.score, atol=1e-4)
        assert any("sentence-transformers" in line for line in requirements(stage.model_dump(mode="json")))
        (found,) = lineage.encoders(stage, tmp_path / "model")
        assert found.tune == "full"
        moved = lineage.distance(self.encoder, found.folder, found.tune)
        assert not moved.problems(found.tune) and moved.moved > 0


def test_numbers_of_members() -> None:
    params = SoupParams.model_validate(
        {"lr": 1e-4, "epochs": 3, "members": [{}, {"lr_factor": 0.5, "epochs_factor": 0.1}, {"epochs_factor": 100}]}
    )
    assert [member.lr for member in params.each] == [1e-4, 5e-5, 1e-4]
    assert [member.epochs for member in params.each] == [3, 1, 200]
    contrastive = params.model_copy(update={"epochs": 0})
    assert [member.epochs for member in contrastive.each] == [0, 0, 0]


def test_a_mean_of_halves_and_counts() -> None:
    import torch

    first = Weights({"w": torch.tensor([1.0, 2.0]).half(), "n": torch.tensor([3])}, {"b": np.array([1.0], np.float32)})
    second = Weights({"w": torch.tensor([2.0, 4.0]).half(), "n": torch.tensor([5])}, {"b": np.array([2.0], np.float32)})
    both = mean([first, second])
    assert both.encoder["w"].dtype == torch.float16 and both.encoder["w"].tolist() == [1.5, 3.0]
    assert both.encoder["n"].tolist() == [3], "a count is not averaged"
    assert both.head["b"].dtype == np.float32 and both.head["b"].tolist() == [1.5]


def test_weights_of_two_architectures_are_not_averaged() -> None:
    import torch

    def weights(width: int, name: str = "w", labels: int = 2) -> Weights:
        return Weights({name: torch.ones(width)}, {"b": np.ones(labels, np.float32)})

    for other, named in ((weights(3), "w"), (weights(2, "v"), "v, w"), (weights(2, labels=3), "head b")):
        with pytest.raises(UserError, match=f"Members 1 and 3 of the soup are not of one architecture: {named} "):
            mean([weights(2), weights(2), other])


# --- in a run ---------------------------------------------------------------------------------------------------------

WORDS_OF = {
    "animal": "cat dog horse cow sheep tiger rabbit goat monkey elephant",
    "food": "bread rice cheese soup pasta apple salad butter potato chocolate",
    "vehicle": "car bus train bicycle truck tram motorbike taxi van lorry",
}


class OneSoup:
    """A researcher that proposes one recipe."""

    def propose(self, task: TaskSpec, choice: Choice, context: Context) -> Proposal:
        params: dict[str, Value] = {"epochs": 2, "lr": 2e-4, "batch_size": 8, "tune": "partial"}
        return Proposal(
            recipe=edit.with_soup(Recipe(base_model=BASE, stage=Stage(backend="embedder", params=params)), {}, {}),
            kind="draft.soup",
            hypothesis="words of one meaning lie close together",
            change="a soup",
            expected_effect=0.3,
            refuted_by="no gain",
            proposer="test",
            seed=task.seed,
            carried_out=Choice(parent=None, move=Move.DRAFT),
        )


class Analysed(Exception):
    """The soup has its score."""


@pytest.mark.slow
def test_a_soup_of_the_small_encoder_is_certified_exported_and_replayed(tmp_path: Path) -> None:
    lines = [f"a {word},{label}" for label, words in WORDS_OF.items() for word in words.split()]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    task = TaskSpec(
        name="soup",
        objective="tell what a word means",
        data=DataSpec(train=str(tmp_path / "train.csv"), out_of_scope=None),
        metric="accuracy",
        base_models=(BASE,),
        budget=Budget(experiments=9),
        search=SearchSpec(policy="sequential"),
        engine=EngineSpec(workers=1, threads=1),
    )
    store = start_run(task, tmp_path / "runs")

    def listen(event: Event) -> None:
        if event.body.type == "analysed" and event.body.experiment == "e0003":
            raise Analysed

    with pytest.raises(Analysed), opened(store, listen) as session:
        drive(session, researcher=OneSoup())
    with opened(SqliteStore.open(store.folder, write=True)) as session:
        soup = session.tree["e0003"]
        assert soup.proposed.proposal.recipe.stage.backend == "soup"
        assert soup.score is not None and soup.score > 0.7, "chance is a third"
        session.append(SearchEnded(reason="there is one to certify", finalists=(soup.id,)))
        drive(session)
        assert session.sealed is not None and session.sealed.read.scores[0].experiment == soup.id
        found = replay_champion(session)
        assert found.reproduced and found.same_answer == 1.0
    with SqliteStore.open(store.folder, write=False) as finished:
        export_champion(finished, tmp_path / "exported")
    program = "import sys; sys.path.insert(0, 'exported')\nfrom predict import load\nprint(load()(['a lion'])[0])"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "animal" in done.stdout


# --- as a move --------------------------------------------------------------------------------------------------------


def test_a_soup_is_made_of_one_tuned_encoder_only() -> None:
    frozen = edit.with_main(ALONE, tune="frozen", head="logistic")
    ensemble = PLAY["ensemble.classic"].apply(ALONE, REJECTING)
    for play in (SEEDS, RATES):
        soup = play.apply(ALONE, REJECTING)
        assert play.applies(ALONE, REJECTING) and edit.valid(soup)
        assert not any(play.applies(recipe, REJECTING) for recipe in (frozen, ensemble, soup))
    members = edit.ingredients(edit.main_stage(RATES.apply(ALONE, REJECTING)))
    assert [member.lr_factor for member in members] == [1.0, 0.5], "1e-4 lies above the middle of the range"
    slow = edit.with_main(ALONE, lr=3e-5)
    assert edit.ingredients(edit.main_stage(RATES.apply(slow, REJECTING)))[1].lr_factor == 2.0


def test_edits_treat_a_soup_as_what_its_members_are() -> None:
    soup = SEEDS.apply(ALONE, REJECTING)
    assert len(edit.members(soup)) == 1 and edit.main_stage(soup).backend == "soup"
    assert edit.without_soup(soup) == edit.checked(ALONE)
    assert set(edit.space_of(soup)) == set(edit.space_of(ALONE))
    tuned = edit.with_numbers(soup, {"lr": 5e-5})
    assert edit.structure_of(tuned) == edit.structure_of(soup) != edit.structure_of(ALONE)
    lora = PLAY["method.lora"].apply(soup, REJECTING)
    assert edit.valid(lora) and edit.is_soup(edit.main_stage(lora))
    both = PLAY["ensemble.classic"].apply(soup, REJECTING)
    assert edit.valid(both) and edit.is_soup(edit.main_stage(both)) and len(edit.members(both)) == 2
    assert not PLAY["ensemble.seeds"].applies(soup, REJECTING) and not PLAY["ensemble.tuned"].applies(soup, REJECTING)
    assert any("member 2" in name for name, _ in recipe_lines(soup))


def test_a_soup_that_takes_too_long_is_trained_once() -> None:
    found = repaired(SEEDS.apply(ALONE, REJECTING), Failure(boundary="resource", kind="timeout", message="late"))
    assert found is not None and found[1] == edit.checked(ALONE)


def test_soups_are_points_of_the_recipe_space() -> None:
    space = RecipeSpace(REJECTING)
    for play in (SEEDS, RATES):
        point = space.encode(play.apply(ALONE, REJECTING))
        assert point is not None and edit.is_soup(edit.main_stage(space.decode(point)))


def test_a_planted_landscape_gives_it_less_than_a_member() -> None:
    soup, second = SEEDS.apply(ALONE, REJECTING), PLAY["ensemble.seeds"].apply(ALONE, REJECTING)
    assert features(soup).method == features(ALONE).method
    weight = dict(features(soup).parts)["member.soup"]
    assert weight == pytest.approx(0.4) and dict(features(second).parts)["member.again"] == 1.0
    gains = []
    for seed in range(200):
        land = Additive(seed)
        gains.append(land.latent(soup) - land.latent(ALONE))
        assert gains[-1] == pytest.approx(weight * land.effect("member.soup"))
        assert land.cost_s(soup) == pytest.approx(2 * land.cost_s(ALONE))
    assert 0.03 < np.mean(gains) < 0.07
    three = edit.with_soup(ALONE, {}, {}, {})
    assert weight < dict(features(three).parts)["member.soup"] < 1.0
    assert "member.soup_mixed" in dict(features(RATES.apply(ALONE, REJECTING)).parts)
