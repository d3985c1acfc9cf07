"""Hostile recipes, proposals, task files and base models: each is refused or flagged, and the controller goes on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from random import Random
from typing import Any, Callable

import pytest
import yaml

from postgrad.admission import recordable, refusal
from postgrad.bench.overhead import SimulatedEngine, simulated_task
from postgrad.certify import references
from postgrad.data import OPERATORS
from postgrad.errors import UserError
from postgrad.evaluate.guards.patterns import matches
from postgrad.records import Asked, Choice, Guard, Move, Proposal, Recipe, Row, SearchSpec, Stage, Step, TaskSpec, Value
from postgrad.report import read_view
from postgrad.report.html import html_report
from postgrad.research import RESEARCHERS
from postgrad.research.base import Context
from postgrad.runner import drive, opened, start_run
from postgrad.session import Session
from postgrad.spec import load_task
from postgrad.store.sqlite import SqliteStore
from postgrad.train.models import absolute_reference

CLASSIC = Stage(backend="classic")
NESTED: Value = "x"
for _ in range(30):
    NESTED = {"members": (NESTED,)}


def embedder(**params: Value) -> Recipe:
    return Recipe(stage=Stage(backend="embedder", params=params))


def ensemble(**member: Value) -> Recipe:
    return Recipe(stage=Stage(backend="ensemble", params={"members": (member, member)}))


# It asks the researcher for every recipe.
GREEDY = SearchSpec(policy="greedy")

HOSTILE: dict[str, tuple[Recipe, str, str]] = {
    "unknown backend": (Recipe(stage=Stage(backend="shell", params={"run": "rm -rf /"})), "invalid", "Unknown backend"),
    "unknown step": (Recipe(data=(Step(op="exec", params={"code": "1"}),), stage=CLASSIC), "invalid", "Unknown"),
    "backend by its path": (Recipe(stage=Stage(backend="os:system")), "invalid", "Unknown backend"),
    "text for a number": (embedder(epochs="many"), "invalid", "epochs"),
    "list for a number": (embedder(lr=(1.0, 2.0)), "invalid", "lr"),
    "a billion epochs": (embedder(epochs=10**9), "invalid", "epochs"),
    "no batch": (embedder(batch_size=0), "invalid", "batch_size"),
    "negative rate": (embedder(lr=-1e-4), "invalid", "lr"),
    "rate that is no number": (embedder(lr=float("nan")), "invalid", "no number"),
    "endless rate": (embedder(lr=float("inf")), "invalid", "no number"),
    "a number of 5,000 digits": (embedder(epochs=10**5000), "invalid", "2^63"),
    "unknown parameter": (embedder(trust_remote_code=True), "invalid", "trust_remote_code"),
    "evaluation split as data": (
        Recipe(data=(Step(op="background", params={"file": "sealed.jsonl"}),), stage=CLASSIC),
        "invalid",
        "file",
    ),
    "evaluation split as a step": (Recipe(data=(Step(op="sealed"),), stage=CLASSIC), "invalid", "Unknown"),
    "model outside the task": (Recipe(base_model="path:../../etc", stage=CLASSIC), "scope", "none of the task's"),
    "model of another run": (Recipe(base_model="path:/runs/a-001/model", stage=CLASSIC), "scope", "none of the task's"),
    "unknown rule": (
        Recipe(stage=CLASSIC, inference={"threshold": "read_labels"}),
        "invalid",
        "Unknown threshold rule",
    ),
    "share over one": (
        Recipe(stage=CLASSIC, inference={"threshold": "percentile", "q": 7.0}),
        "invalid",
        "from 0 to 1",
    ),
    "share that is a list": (Recipe(stage=CLASSIC, inference={"prior": (1,)}), "invalid", "from 0 to 1"),
    "a threshold of its own": (
        Recipe(stage=CLASSIC, inference={"value": -1.0}),
        "invalid",
        "Unknown inference setting",
    ),
    "thousands of steps": (Recipe(data=(Step(op="typos"),) * 5000, stage=CLASSIC), "invalid", "5000 data steps"),
    "nested without end": (Recipe(stage=Stage(backend="ensemble", params={"x": NESTED})), "invalid", "nested deeper"),
    "a novel as a parameter": (embedder(tune="x" * 100_000), "invalid", "longer than"),
    "unknown member": (ensemble(stage={"backend": "shell"}), "invalid", "Unknown backend"),
    "infinite member weight": (ensemble(stage={"backend": "classic"}, weight=float("inf")), "invalid", "no number"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_recipe_is_a_failure_with_its_reason(tmp_path: Path, name: str) -> None:
    recipe, kind, said = HOSTILE[name]
    found = refusal(recipe, simulated_task(tmp_path, 1))
    assert found is not None and (found.boundary, found.kind) == ("recipe", kind)
    assert said in found.message and len(found.message) < 2000


def test_recipes_of_the_references_are_admitted(tmp_path: Path) -> None:
    from postgrad.research.references import reference_recipes

    task = simulated_task(tmp_path, 1)
    assert all(refusal(proposal.recipe, task) is None for proposal in reference_recipes(task))


class Hostile:
    """A researcher that proposes one attack after the other, and claims what would do it good."""

    recipes = tuple(recipe for recipe, _, _ in HOSTILE.values())

    def propose(self, task: TaskSpec, choice: Choice, context: Context) -> Proposal:
        me = f"e{context.index:04d}"
        attack = context.index % (len(self.recipes) + 3)
        recipe, kind, carried = self.recipes[attack % len(self.recipes)], "draft.attack", None
        if attack == len(self.recipes):
            recipe, kind = Recipe(stage=CLASSIC, inference={"threshold": "reject_all"}), "reference.classic"
        elif attack == len(self.recipes) + 1:
            recipe, carried = Recipe(stage=CLASSIC), Choice(parent=me, move=Move.IMPROVE)
        elif attack == len(self.recipes) + 2:
            recipe = Recipe(stage=Stage(backend="classic", params={"C": 2.0}))
            carried = Choice(parent="e9999", other="../../etc", move=Move.COMBINE)
        return Proposal(
            recipe=recipe,
            kind=kind,
            hypothesis="<script>alert(1)</script>",
            change="attack",
            expected_effect=float("nan"),
            refuted_by="nothing",
            proposer="reference",
            seed=-1,
            carried_out=carried,
        )


class Unwritable(Hostile):
    """Proposals that would make the log unreadable, if it took them as they are."""

    asked: Asked | None = None

    def propose(self, task: TaskSpec, choice: Choice, context: Context) -> Proposal:
        plain = super().propose(task, choice, context).model_copy(update={"recipe": Recipe(stage=CLASSIC)})
        deep: Value = 1
        for _ in range(500):
            deep = (deep,)
        changes: tuple[dict[str, Any], ...] = (
            {"seed": 10**5000},
            {"hypothesis": "half a pair \ud800"},
            {"change": "x" * 1_000_000},
            {"recipe": Recipe.model_construct(stage=Stage.model_construct(backend="classic", params={"x": deep}))},
        )
        return plain.model_copy(update={**changes[context.index % len(changes)], "asked": self.asked})


LONG_ANSWER = Asked(
    proposer="somebody",
    model="half a pair \ud800",
    tokens_in=1000,
    tokens_out=100,
    usd=0.25,
    notes=("half a pair \ud800", "x" * 300_000),
)


class Dear(Unwritable):
    """The same, and they cost something to ask for."""

    asked = LONG_ANSWER


def test_a_run_of_attacks_ends_with_a_champion_and_every_attack_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real loop with a researcher that only attacks: no attack has a score, none takes a reference's place."""
    monkeypatch.setitem(RESEARCHERS._table, "hostile", f"{__name__}:Hostile")
    # One more, because the referee takes an experiment to train the first leader again.
    count = len(HOSTILE) + 7
    task = simulated_task(tmp_path, count).model_copy(update={"researcher": "hostile", "search": GREEDY})
    with opened(start_run(task, tmp_path / "runs"), engine=SimulatedEngine()) as session:
        drive(session)
        _checked(session, count)
        folder = session.store.folder
    with SqliteStore.open(folder, write=False) as store:
        assert "<script>alert" not in html_report(read_view(store))


def _checked(session: Session, count: int) -> None:
    tree = session.tree
    assert len(tree) == count and not tree.pending()
    attacks = tree.failed()
    assert (
        len(attacks)
        == sum(node.proposed.proposal.kind in ("draft.attack", "draft.unreadable") for node in tree.all()) - 2
    )
    assert len(attacks) >= len(HOSTILE)
    for node in attacks:
        assert node.failure is not None and node.failure.boundary == "recipe"
        assert node.score is None and not node.started, "nothing was run"
    assert all(node.parent is None or node.parent in tree.experiments for node in tree.all())
    assert all(len(tree.path(node.id)) <= count for node in tree.all())
    assert references(session)["baseline"].id == "e0001"
    assert session.sealed is not None and session.sealed.read.scores[0].experiment not in {a.id for a in attacks}


def test_a_proposal_that_cannot_be_recorded_does_not_damage_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RESEARCHERS._table, "hostile", f"{__name__}:Unwritable")
    task = simulated_task(tmp_path, 8).model_copy(update={"researcher": "hostile", "search": GREEDY})
    with opened(start_run(task, tmp_path / "runs"), engine=SimulatedEngine()) as session:
        drive(session)
        folder = session.store.folder
    with SqliteStore.open(folder, write=False) as store:
        view = read_view(store)
    assert len(view.failures) == 5
    assert all(node.failure is not None and node.failure.kind == "invalid" for node in view.failures)
    assert view.sealed is not None


def test_what_it_cost_to_ask_stays_on_the_account_whatever_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RESEARCHERS._table, "hostile", f"{__name__}:Dear")
    task = simulated_task(tmp_path, 8).model_copy(update={"researcher": "hostile", "search": GREEDY})
    with opened(start_run(task, tmp_path / "runs"), engine=SimulatedEngine()) as session:
        drive(session)
        tree, spent = session.tree, session.ledger.spent
    asked = [node.proposed.proposal.asked for node in tree.failed() if node.proposed.proposal.asked]
    assert len(asked) == 5 and all(one.failed and not one.notes and "\ud800" not in one.model for one in asked)
    assert (spent.asked, spent.tokens_in, spent.tokens_out) == (5, 5000, 500)
    assert spent.usd == pytest.approx(1.25)


def test_the_figures_of_an_answer_that_can_be_recorded_are_kept_as_they_are() -> None:
    asked = LONG_ANSWER.model_copy(update={"model": "m", "notes": ("a note",)})
    proposal = Proposal(
        recipe=Recipe(stage=CLASSIC),
        kind="draft.attack",
        hypothesis="half a pair \ud800",
        change="attack",
        expected_effect=0.0,
        refuted_by="nothing",
        proposer="somebody",
        seed=0,
        asked=asked,
    )
    kept = recordable(proposal)
    assert kept.recipe.stage.backend == "unreadable" and kept.asked == asked
    endless = recordable(proposal.model_copy(update={"asked": asked.model_copy(update={"tokens_in": 10**5000})}))
    assert endless.asked is None, "nothing of it could be summed up"


def test_a_rule_that_rejects_everything_is_not_kept(tmp_path: Path) -> None:
    """It is a legal rule: that of the constant answer. What it scores is what a constant scores."""
    task = simulated_task(tmp_path, 4)
    with opened(start_run(task, tmp_path / "runs"), engine=SimulatedEngine()) as session:
        drive(session)
        constant = session.tree["e0000"]
        assert constant.proposed.proposal.recipe.inference == {"threshold": "reject_all"}
        assert constant.score == 0.0 and session.tree.champion not in (None, "e0000")


def test_no_data_step_turns_every_label_into_out_of_scope() -> None:
    """Training on negatives alone would make a model that rejects everything and is right on what is out of scope."""
    rows = tuple(Row(f"r{i}", f"text {i}", f"L{i % 2}") for i in range(20))
    operator = OPERATORS.get("held_out_intents")
    params = operator.Params.model_validate({"share": 0.5})
    kept, _ = operator.apply(rows, params, Random(0), out_of_scope="none", base_model=None)
    assert {row.label for row in kept} >= {"L0", "L1"}


# --- task files -------------------------------------------------------------------------------------------------------


def task_file(folder: Path, **changes: Any) -> Path:
    (folder / "train.csv").write_text("text,label,language\n" + "".join(f"row {i},L{i % 3},en\n" for i in range(60)))
    fields = {"objective": "Route.", "data": {"train": "train.csv"}, "base_models": [], **changes}
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path


BOMB = "(a+)+$"


@pytest.mark.parametrize(
    ("guard", "said"),
    [
        ({"metric": "f2", "min": 0.5}, "guards.0: unknown metric 'f2'"),
        ({"metric": "accuracy", "min": 60}, "nothing could hold it. For 60 % write 0.6"),
        ({"metric": "accuracy", "min": float("nan")}, "min is nan"),
        ({"metric": "accuracy", "max": float("-inf")}, "max is -inf"),
        ({"metric": "accuracy"}, "needs a min or a max"),
        ({"min": 0.5}, "one of metric, measure, forbidden, required was expected, found none of them"),
        ({"metric": "accuracy", "forbidden": ["x"], "max": 0}, "found metric and forbidden"),
        ({"measure": "latency", "max": 20}, "unknown measure 'latency'. Did you mean 'latency_p95_ms'?"),
        ({"measure": "metric", "max": 20}, "unknown measure 'metric'"),
        ({"measure": "model_mb", "max": 20, "data": "side.csv"}, "takes no data"),
        ({"measure": "model_mb", "max": -1}, "max is -1, and the value is at least 0"),
        ({"forbidden": [r"(a)\1"], "max": 0}, "guards.0: forbidden.0 is no pattern that can be matched safely"),
        ({"forbidden": ["("], "max": 0}, "forbidden.0 is no pattern"),
        ({"forbidden": ["(?=a)b"], "max": 0}, "no look-around"),
        ({"forbidden": ["((a{1000}){1000}){1000}"], "max": 0}, "forbidden.0 is no pattern"),
        ({"forbidden": ["x" * 2000], "max": 0}, "has 2000 characters"),
        ({"forbidden": [""], "max": 0}, "has 0 characters"),
        ({"forbidden": ["x"] * 500, "max": 0}, "500 patterns"),
        ({"forbidden": "x", "max": 0}, "guards.0.forbidden: input should be a valid tuple"),
        ({"required": ["x"], "min": 0.5, "target": "label", "data": "side.csv"}, "reads no labels"),
        ({"metric": "accuracy", "min": 0.5, "input": "text"}, "input is a column of the guard's own data"),
        ({"metric": "accuracy", "min": 0.5, "data": "sid.csv"}, "Did you mean 'side.csv'"),
        ({"metric": "accuracy", "min": 0.5, "data": "train.csv"}, "data is data.train"),
        ({"metric": "accuracy", "min": 0.5, "data": "hint3:sofmattress/v2"}, "is no file"),
        ({"forbidden": ["x"], "max": 0, "data": "prompts.txt"}, "There is no file"),
        ({"metric": "accuracy", "min": 0.5, "slice": {"colum": "a", "equals": "b"}}, "'guards.0.slice.colum'"),
        ({"metric": "accuracy", "min": 0.5, "slice": "german"}, "expected keys (column, equals)"),
        ({"metric": "accuracy", "min": 0.5, "slice": {"column": "label"}}, "guards.0.slice.equals is missing"),
        ({"metric": "out_of_scope_recall", "min": 0.5}, "needs an out-of-scope label"),
        ({"name": "a\x1b[31m", "metric": "accuracy", "min": 0.5}, "that can be printed"),
    ],
)
def test_a_guard_that_means_nothing_is_named(tmp_path: Path, guard: dict[str, Any], said: str) -> None:
    (tmp_path / "side.csv").write_text("text,label\nside,L0\n")
    with pytest.raises(UserError) as caught:
        load_task(task_file(tmp_path, guards=[guard]))
    assert said in str(caught.value), caught.value


def test_all_problems_of_guards_come_at_once(tmp_path: Path) -> None:
    guards = [{"name": "a", "metric": "f2", "min": 2}, {"name": "a", "measure": "x", "max": 1}, {"metric": "mcc"}]
    with pytest.raises(UserError) as caught:
        load_task(task_file(tmp_path, guards=guards))
    for said in (
        "guards.0: unknown metric",
        "guards.1: the name 'a'",
        "guards.1: unknown measure",
        "guards.2: a guard",
    ):
        assert said in str(caught.value)


def test_good_guards_are_read(tmp_path: Path) -> None:
    (tmp_path / "side.csv").write_text("text,label\nside,L0\n")
    guards = [
        {"name": "brand voice", "metric": "accuracy", "data": "side.csv", "min": 0.95},
        {"metric": "accuracy", "slice": {"column": "language", "equals": "en"}, "min": 0.8},
        {"measure": "latency_p95_ms", "max": 20},
        {"forbidden": [BOMB], "data": "side.csv", "max": 0},
    ]
    found = load_task(task_file(tmp_path, guards=guards)).guards
    assert found[0] == Guard(name="brand voice", metric="accuracy", data=str(tmp_path / "side.csv"), min=0.95)
    assert found[1].slice is not None and found[1].slice.column == "language"


def test_a_pattern_that_explodes_elsewhere_is_matched_in_linear_time() -> None:
    """Backtracking takes 2^50000 steps here. The limit is so wide that only an explosion reaches it."""
    started = time.monotonic()
    assert matches((BOMB, "(x+x+)+y", "([a-z]+)*[0-9]$"), ("a" * 50_000 + "!", "x" * 50_000)) == [False, False]
    assert time.monotonic() - started < 60


def test_a_slice_of_a_column_that_is_not_there_stops_before_anything_is_spent(tmp_path: Path) -> None:
    guard = {"metric": "accuracy", "min": 0.1, "slice": {"column": "langage", "equals": "en"}}
    task = load_task(task_file(tmp_path, guards=[guard]))
    with start_run(task, tmp_path / "runs") as store:
        folder = store.folder
    for _ in range(2):
        with (
            pytest.raises(UserError, match="has no column 'langage'. Did you mean 'language'?"),
            opened(SqliteStore.open(folder, write=True)) as session,
        ):
            drive(session)
    with SqliteStore.open(folder, write=False) as store:
        assert {event.body.type for event in store.events()} == {"run_started"}


BILLION = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        BILLION + "search: {policy: greedy, params: {x: *j}}\n",
        "data: &d {train: train.csv}\nobjective: *d\n",
        "base: &b {objective: x}\n<<: *b\n",
        "search: &s {params: *s}\n",
    ],
)
def test_a_task_file_with_aliases_is_refused_at_once(tmp_path: Path, text: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="aliases as"):
        load_task(path)


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.system ['true']\n", "[" * 5000, "objective: !!binary x\n", "? [a]\n: b\n"]
)
def test_a_task_file_that_is_more_than_data_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(text)
    with pytest.raises(UserError):
        load_task(path)


# --- base models ------------------------------------------------------------------------------------------------------


def model_folder(folder: Path, **files: Any) -> Path:
    folder.mkdir()
    contents: dict[str, Any] = {"config.json": {}, "model.safetensors": b"x", **files}
    for name, content in contents.items():
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / name).write_bytes(data)
    return folder


def _pickles_only(folder: Path) -> None:
    model_folder(folder, **{"pytorch_model.bin": b"cos\nsystem\n"})
    (folder / "model.safetensors").unlink()


MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickles only": (_pickles_only, "reading such a file runs code"),
    "its own class": (
        lambda f: model_folder(f, **{"config.json": {"auto_map": {"AutoModel": "evil.Model"}}}),
        "auto_map in config.json",
    ),
    "its own tokenizer": (
        lambda f: model_folder(f, **{"tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["evil.T", None]}}}),
        "auto_map in tokenizer_config.json",
    ),
    "a foreign part": (
        lambda f: model_folder(f, **{"modules.json": [{"idx": 0, "type": "evil.Module", "path": ""}]}),
        "code of its own (evil.Module)",
    ),
    "a config that is none": (lambda f: model_folder(f, **{"config.json": b"{" * 9}), "is not JSON"),
    "no folder": (lambda f: None, "there is no folder"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_base_model_that_would_run_code_is_refused(tmp_path: Path, name: str) -> None:
    make, said = MODELS[name]
    make(tmp_path / "model")
    with pytest.raises(UserError) as caught:
        absolute_reference("path:model", tmp_path)
    assert said in str(caught.value)


def test_a_plain_base_model_is_taken(tmp_path: Path) -> None:
    parts = [{"idx": 0, "type": "sentence_transformers.models.Transformer", "path": ""}]
    model_folder(tmp_path / "model", **{"modules.json": parts})
    assert absolute_reference("path:model", tmp_path) == f"path:{tmp_path / 'model'}"
