"""Training Hub behind the backend's contract: its arguments, its refusals, its failures, and itself.

Fast tests run a stand-in: an environment whose Python is this one, with a small module `training_hub` that has the same
signature and fails as the real one was seen to fail. Slow tests run Training Hub, where its environment is built.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from postgrad.admission import refusal
from postgrad.engines.places import Places, job_reach
from postgrad.errors import UserError
from postgrad.records import Generation, Recipe, Row, Stage, TaskSpec
from postgrad.research import edit
from postgrad.research.drafts import starts_of
from postgrad.research.hub import PLAYS
from postgrad.research.moves import plays_of
from postgrad.research.repairs import repaired
from postgrad.spec import load_task
from postgrad.testing.backend import LABELS, OUT_OF_SCOPE, example_rows
from postgrad.testing.encoder import make_tiny_encoder
from postgrad.testing.language import make_tiny_lm
from postgrad.testing.researcher import REJECTING
from postgrad.train.base import CheckFailed, FitJob, Outputs, Texts, TrainingDiverged
from postgrad.train.environments import READY, Environment, build, find, interpreter
from postgrad.train.th_arguments import ALGORITHMS, SET_BY_POSTGRAD, TABLE
from postgrad.train.th_environments import base, environment_of
from postgrad.train.th_params import TrainingHubParams
from postgrad.train.th_run import TrainingHubFailed
from postgrad.train.training_hub import TrainingHub, fit_with_training_hub, gpu_problem, spec_of

SOURCE = Path(__file__).resolve().parent.parent / "src"
# The stand-in: what it does is chosen by the learning rate, an argument that reaches it unchanged.
STAND_IN = """
import json, os, shutil, sys, time
__version__ = "stand-in"

def embedding_sft(model_path, data_path, ckpt_output_dir, *, backend="sentence-transformers", loss_type="mnrl",
                  loss_fn=None, num_epochs=20, batch_size=32, learning_rate=2e-5, warmup_ratio=0.1, batch_sampler=None,
                  eval_data_path=None, text_column="text", label_column="label", seed=42, **kwargs):
    rows = [json.loads(line) for line in open(data_path)]
    assert all(isinstance(row["label"], int) and row["text"] for row in rows)
    os.makedirs(ckpt_output_dir, exist_ok=True)
    metrics = open(os.path.join(ckpt_output_dir, "training_metrics.jsonl"), "a", buffering=1)
    case = round(learning_rate * 100)
    if case == 1:
        print("FileNotFoundError: torchrun"); return None
    if case == 2:
        raise RuntimeError("the driver is gone")
    if case == 3:
        metrics.write('{"step": 1, "loss": NaN}\\n'); time.sleep(60)
    for step in range(1, num_epochs + 1) if case != 5 else ():
        metrics.write(json.dumps({"step": step, "loss": 1.0 / step, "max_steps": num_epochs}) + "\\n")
        metrics.write("no JSON at all\\n"); time.sleep(0.4)
    if case == 4:
        metrics.write('{"step": 99'); metrics.flush(); time.sleep(60)
    shutil.copytree(model_path, ckpt_output_dir, dirs_exist_ok=True)
    if case == 6:
        config = os.path.join(ckpt_output_dir, "config.json")
        facts = {**json.load(open(config)), "auto_map": {"AutoModel": "evil.Model"}}
        json.dump(facts, open(config, "w"))
    return {"status": "success"}
"""
WELL, NOTHING, CRASH, NAN, SLOW, NO_METRICS, CODE = 0.001, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_encoder(tmp_path_factory.mktemp("base") / "encoder")


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that passes for the environment of Training Hub."""
    place = tmp_path_factory.mktemp("cache") / base().folder_name
    (place / "bin").mkdir(parents=True)
    modules = place / "modules"
    modules.mkdir()
    (modules / "training_hub.py").write_text(STAND_IN, encoding="utf-8")
    python = place / "bin" / "python"
    # -I: nothing of Postgrad's path may be needed inside.
    program = f"import sys; sys.path.insert(0, {str(modules)!r}); import runpy; sys.argv = sys.argv[1:]"
    python.write_text(
        f'#!/bin/sh\nshift\nexec {shlex.quote(sys.executable)} -I -c "{program}; '
        'runpy.run_path(sys.argv[0], run_name=\'__main__\')" "$@"\n'
    )
    python.chmod(0o755)
    return place


def job_of(tmp_path: Path, base_model: Path | None, environment: Path | None, **settings: Any) -> FitJob:
    return FitJob(
        rows=tuple(example_rows()),
        labels=LABELS,
        out_of_scope=OUT_OF_SCOPE,
        params=TrainingHubParams.model_validate(settings),
        base_model=base_model,
        seed=3,
        threads=1,
        checkpoint=tmp_path / "checkpoint",
        environments=(environment,) if environment else (),
    )


def fit(job: FitJob) -> Any:
    return TrainingHub().fit(job)


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_arguments_are_passed_on_by_their_own_names(algorithm: str) -> None:
    given = TrainingHubParams.model_validate({"algorithm": algorithm, "learning_rate": 3e-5}).arguments()
    assert given["learning_rate"] == 3e-5
    assert set(given) <= set(TABLE[algorithm].defaults) | set(TABLE[algorithm].fixed or {}) | {"backend"}
    assert not set(given) & set(SET_BY_POSTGRAD)
    assert not set(given) & TABLE[algorithm].never_read(TABLE[algorithm].backends[0])


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"algorithm": "lora_sft", "max_tokens_per_gpu": 4096}, "takes max_tokens_per_gpu and never reads it"),
        ({"algorithm": "lora_sft", "save_samples": 10}, "never reads it"),
        ({"algorithm": "lora_sft", "micro_batch_size": 2}, "never reads it"),
        ({"algorithm": "lora_grpo", "enforce_eager": True}, "never reads it with its backend verl"),
        ({"algorithm": "lora_grpo", "backend": "art", "n_gpus": 2}, "never reads it with its backend art"),
        ({"algorithm": "sft", "backend": "postgrad-trl", "max_tokens_per_gpu": 4096}, "never reads it"),
        ({"algorithm": "embedding_sft", "lora_r": 8}, "embedding_sft has no argument lora_r"),
        ({"algorithm": "embedding_sft", "learing_rate": 8}, "Did you mean 'learning_rate'?"),
        ({"algorithm": "sft", "ckpt_output_dir": "/"}, "ckpt_output_dir is set by Postgrad"),
        ({"algorithm": "sft", "wandb_project": "mine"}, "from outside"),
        ({"algorithm": "lora_grpo", "reward_fn": "os.system"}, "from outside"),
        ({"algorithm": "sft", "head": "knn"}, "head is about an encoder"),
        ({"algorithm": "embedding_sft", "calibrate": True}, "calibrate is about a language model"),
        ({"algorithm": "sft", "backend": "mine"}, "sft has no backend 'mine'; it has: instructlab-training"),
        ({"algorithm": "dpo"}, "Input should be"),
    ],
)
def test_what_would_do_nothing_is_refused_before_the_job(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match="(?s)") as wrong:
        TrainingHubParams.model_validate(settings)
    assert why in str(wrong.value)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_recipe_with_everything_written_out_is_still_one(algorithm: str) -> None:
    recipe = Recipe(base_model="path:base", stage=Stage(backend="training_hub", params={"algorithm": algorithm}))
    again = edit.with_numbers(recipe, {"learning_rate": 2e-5})
    assert edit.valid(again)
    assert edit.structure_of(again) == edit.structure_of(recipe)
    assert all(edit.full_params(recipe)[name] is not None for name in edit.space_of(recipe))


# --- where it runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sft", "osft", "lora_sft", "lora_grpo", "grpo"])
def test_what_needs_a_gpu_says_so_before_the_job(algorithm: str) -> None:
    params = TrainingHubParams.model_validate({"algorithm": algorithm})
    said = gpu_problem(params, gpu=False)
    assert said is not None and f"{algorithm} needs an NVIDIA GPU" in said and "embedding_sft" in said
    assert gpu_problem(params, gpu=True) is None


def test_a_machine_without_a_gpu_turns_the_recipe_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postgrad.train.training_hub.GPU_FILES", ())
    stage = Stage(backend="training_hub", params={"algorithm": "sft"})
    failure = refusal(Recipe(base_model=REJECTING.base_models[0], stage=stage), REJECTING)
    assert failure is not None and failure.kind == "machine" and "needs an NVIDIA GPU" in failure.message
    small = TrainingHubParams.model_validate({"algorithm": "sft", "backend": "postgrad-trl"})
    assert gpu_problem(small, gpu=False) is None


def test_a_recipe_without_its_environment_is_turned_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    recipe = Recipe(base_model=REJECTING.base_models[0], stage=Stage(backend="training_hub"))
    failure = refusal(recipe, REJECTING)
    assert failure is not None and failure.kind == "environment" and "backends: [training_hub]" in failure.message


def test_algorithms_that_exclude_each_other_have_environments_of_their_own() -> None:
    assert len({environment_of(name).folder_name for name in ("sft", "lora_sft", "grpo")}) == 3
    assert environment_of("sft") == environment_of("embedding_sft")
    changed = replace(base(), constraints=())
    assert changed.folder_name != base().folder_name


# --- building an environment ------------------------------------------------------------------------------------------

EMPTY = Environment(name="empty", python=((3, 11), (4, 0)), steps=(), megabytes=1)


def test_an_environment_is_built_once_and_found(tmp_path: Path) -> None:
    said: list[str] = []
    assert find(EMPTY, tmp_path) is None
    folder = build(EMPTY, said.append, tmp_path)
    assert find(EMPTY, tmp_path) == folder == build(EMPTY, said.append, tmp_path)
    assert len(said) == 1 and "some minutes" in said[0]
    (folder / READY).unlink()
    assert find(EMPTY, tmp_path) is None, "without its mark it was not built to the end"


def test_an_environment_that_cannot_be_built_says_what_pip_said(tmp_path: Path) -> None:
    missing = replace(EMPTY, steps=(("--no-index", "--find-links", str(tmp_path), "no-such-thing==1.0"),))
    with pytest.raises(UserError, match="(?s)could not be built.*no-such-thing.*network"):
        build(missing, lambda line: None, tmp_path)
    assert find(missing, tmp_path) is None


def test_an_environment_needs_a_python_that_fits() -> None:
    assert interpreter(EMPTY) == sys.executable
    with pytest.raises(UserError, match="needs Python 3.2 or later and older than 3.3"):
        interpreter(replace(EMPTY, python=((3, 2), (3, 3))))


def test_a_job_may_read_its_environment_and_the_python_below_it(tmp_path: Path) -> None:
    folder, other = tmp_path / "environment", tmp_path / "python"
    for place in (folder, other / "bin", tmp_path / "job"):
        place.mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text(f"home = {other / 'bin'}\n")
    job = {"units": [], "environments": [str(folder)]}
    (tmp_path / "job" / "job.json").write_text(json.dumps(job))
    assert {folder, other} <= set(job_reach(Places(), tmp_path / "job", ()).reads)


# --- a training, by a stand-in ----------------------------------------------------------------------------------------


def test_an_encoder_comes_back_with_a_head(tmp_path: Path, encoder: Path, stand_in: Path) -> None:
    seen: list[tuple[int, float, float]] = []
    job = job_of(tmp_path, encoder, stand_in, learning_rate=WELL, num_epochs=4)
    model = fit(replace(job, report=lambda step, loss: seen.append((step, loss, time.monotonic()))))
    assert [(step, loss) for step, loss, _ in seen] == [(n, 1.0 / n) for n in (1, 2, 3, 4)]
    assert seen[-1][2] - seen[0][2] > 0.5, "progress is reported while it trains"
    assert not job.checkpoint.exists(), "what is left over goes"
    texts = [row.text for row in job.rows][:6]
    before = model.predict(texts)
    assert isinstance(before, Outputs) and before.probs.shape == (6, len(LABELS))
    model.save(tmp_path / "saved")
    after = TrainingHub().load(tmp_path / "saved").predict(texts)
    assert isinstance(after, Outputs)
    np.testing.assert_allclose(after.probs, before.probs, atol=1e-6)


@pytest.mark.parametrize(
    ("rate", "why"),
    [
        (NOTHING, "(?s)exit code 0 and left no model.*torchrun"),
        (CRASH, "(?s)exit code 1.*the driver is gone"),
        (NO_METRICS, "no record of a training step"),
        (CODE, "needs code of its own"),
    ],
)
def test_a_run_is_judged_by_what_it_left(tmp_path: Path, encoder: Path, stand_in: Path, rate: float, why: str) -> None:
    with pytest.raises(TrainingHubFailed, match=why):
        fit(job_of(tmp_path, encoder, stand_in, learning_rate=rate, num_epochs=1))


def test_a_loss_that_is_no_number_ends_it(tmp_path: Path, encoder: Path, stand_in: Path) -> None:
    started = time.monotonic()
    with pytest.raises(TrainingDiverged, match="nan at step 1"):
        fit(job_of(tmp_path, encoder, stand_in, learning_rate=NAN))
    assert time.monotonic() - started < 50, "it is not waited for"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_the_job(tmp_path: Path, encoder: Path, stand_in: Path, number: signal.Signals) -> None:
    program = (
        "import signal, sys\nfrom pathlib import Path\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from test_training_hub import SLOW, fit, job_of\n"
        "def stop(*_): raise SystemExit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "fit(job_of(Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), learning_rate=SLOW, num_epochs=1))\n"
    )
    folders = [str(Path(__file__).parent), str(tmp_path), str(encoder), str(stand_in)]
    around = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen([sys.executable, "-c", program, *folders], env=around, start_new_session=True) as job:
        metrics = tmp_path / "checkpoint" / "out" / "training_metrics.jsonl"
        _wait(lambda: metrics.is_file() and b'"step": 99' in metrics.read_bytes())
        spec = str(tmp_path / "checkpoint" / "spec.json")
        assert _processes(spec), "it runs"
        job.send_signal(number)
        job.wait(60)
    _wait(lambda: not _processes(spec))


def _wait(until: Any) -> None:
    deadline = time.monotonic() + 120
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _processes(word: str) -> list[int]:
    import psutil

    found = (p for p in psutil.process_iter(["cmdline", "status"]) if p.info["status"] != psutil.STATUS_ZOMBIE)
    return [p.pid for p in found if word in (p.info["cmdline"] or ())]


def test_a_job_says_what_it_lacks(tmp_path: Path, encoder: Path, stand_in: Path) -> None:
    with pytest.raises(UserError, match="names none"):
        fit(job_of(tmp_path, None, stand_in))
    with pytest.raises(CheckFailed, match=r"backends: \[training_hub\]"):
        fit(job_of(tmp_path, encoder, None))
    with pytest.raises(UserError, match="trains a language model"):
        fit(job_of(tmp_path, encoder, stand_in, algorithm="sft"))
    one = job_of(tmp_path, encoder, stand_in)
    with pytest.raises(CheckFailed, match="two labels"):
        fit(replace(one, rows=tuple(row for row in one.rows if row.label == LABELS[0])))


def test_rows_are_given_in_the_form_that_is_read(tmp_path: Path, encoder: Path) -> None:
    rows = (Row("1", "one", LABELS[1]), Row("2", "two", OUT_OF_SCOPE))
    forms = {}
    for name in ALGORITHMS:
        job = replace(
            job_of(tmp_path, encoder, None, algorithm=name), rows=rows, generation=Generation(system="Route.")
        )
        params = TrainingHubParams.model_validate(job.params.model_dump())
        spec = spec_of(job, params, tmp_path)
        forms[name] = [json.loads(line) for line in Path(spec["arguments"]["data_path"]).read_text().splitlines()]
    asked = [{"role": "system", "content": "Route."}, {"role": "user", "content": "one"}]
    answer = [{"role": "assistant", "content": LABELS[1]}]
    assert forms["embedding_sft"] == [{"text": "one", "label": 1}]
    assert forms["sft"] == forms["osft"] == [{"messages": [*asked, *answer]}]
    assert forms["lora_sft"] == [{"prompt": asked, "completion": answer}], "so that the loss is on the answer alone"
    assert forms["grpo"] == [{"question": "one", "ground_truth": LABELS[1]}]


# --- the search -------------------------------------------------------------------------------------------------------

ASKING = REJECTING.model_copy(update={"backends": ("training_hub",)})


def test_the_family_takes_part_only_where_the_task_asks_for_it() -> None:
    starts = starts_of(ASKING, ASKING.base_models[0])
    assert starts and {draft.recipe.stage.backend for draft in starts} == {"training_hub"}
    assert all(edit.valid(draft.recipe) for draft in starts)
    assert "training_hub" not in {d.recipe.stage.backend for d in starts_of(REJECTING, REJECTING.base_models[0])}
    assert set(PLAYS) <= set(plays_of(ASKING)) and not set(PLAYS) & set(plays_of(REJECTING))


def test_moves_and_repairs_make_recipes_that_are_valid() -> None:
    start = starts_of(ASKING, ASKING.base_models[0])[0].recipe
    made = [play.apply(start, ASKING) for play in plays_of(ASKING) if play.applies(start, ASKING)]
    assert len(made) > 8 and all(edit.valid(recipe) and recipe.hash != start.hash for recipe in made)
    from postgrad.records import Failure

    for kind in ("nan", "oom", "timeout"):
        found = repaired(start, Failure(boundary="train", kind=kind, message="x"))
        assert found is not None and edit.valid(found[1])


def test_a_task_names_backends_that_have_environments(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na,b\n")
    task = tmp_path / "task.yaml"
    lines = "objective: x\ndata: {train: rows.csv}\nbase_models: []\nbackends: "
    task.write_text(lines + "training_hub\n")
    assert load_task(task).backends == ("training_hub",)
    for wrong, why in (("[classic]", "it takes part wherever it fits"), ("[training_hab]", "Did you mean")):
        task.write_text(lines + wrong)
        with pytest.raises(UserError, match=why):
            load_task(task)


def test_the_example_asks_for_training_hub(shared_data: Path) -> None:
    task: TaskSpec = load_task(SOURCE.parent / "examples" / "hint3-training-hub.yaml")
    assert task.backends == ("training_hub",)


# --- Training Hub itself ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> Path:
    found = find(base())
    if found is None:
        pytest.skip("needs the environment of Training Hub: run examples/hint3-training-hub.yaml once")
    return found


@pytest.mark.slow
def test_the_table_of_arguments_is_that_of_the_installed_package(real: Path) -> None:
    program = (
        "import inspect, json, training_hub as hub\n"
        f"names = {list(ALGORITHMS)!r}\n"
        "print(json.dumps({n: list(inspect.signature(getattr(hub, n)).parameters) for n in names}))\n"
        "t = hub.LoRASFTAlgorithm.train\nprint(json.dumps(list(inspect.signature(t).parameters)))\n"
        "r = hub.AlgorithmRegistry\n"
        "print(json.dumps({n: r.list_backends(n) for n in r.list_algorithms()}))\n"
    )
    around = {**os.environ, "PATH": f"{real / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [str(real / "bin" / "python"), "-P", "-c", program], env=around, capture_output=True, text=True, check=True
    )
    functions, lora, backends = (json.loads(line) for line in done.stdout.splitlines()[-3:])
    # What lora_sft takes beside its own names goes on to its algorithm; grpo is lora_grpo without adapters.
    functions["lora_sft"] += lora
    for name, table in TABLE.items():
        passed_on = {"max_prompt_length"}
        missing = ({*table.defaults, *(table.fixed or {})} | table.ignored) - set(functions[name]) - passed_on
        assert not missing, f"{name} has no {missing}"
        if name != "grpo":
            assert set(table.backends) <= set(backends[name])


@pytest.mark.slow
def test_embedding_sft_trains_for_real(tmp_path: Path, encoder: Path, real: Path) -> None:
    seen: list[tuple[int, float]] = []
    job = job_of(tmp_path, encoder, real, num_epochs=3, batch_size=8, learning_rate=1e-3, loss_type="mnrl")
    model = fit(replace(job, report=lambda step, loss: seen.append((step, loss))))
    assert seen
    inside = [row for row in job.rows if row.label in LABELS]
    found = model.predict([row.text for row in inside])
    right = [LABELS[best] == row.label for best, row in zip(found.probs.argmax(1), inside, strict=True)]
    assert np.mean(right) > 0.7
    model.save(tmp_path / "saved")
    from safetensors.numpy import load_file

    one, two = (load_file(str(p / "model.safetensors")) for p in (encoder, tmp_path / "saved" / "encoder"))
    assert any(not np.array_equal(one[name], two[name]) for name in one), "the encoder itself was trained"


@pytest.mark.slow
def test_sft_trains_for_real_through_the_registry(tmp_path: Path, real: Path) -> None:
    rows = tuple(Row(str(i), f"say {word}", word) for i, word in enumerate(["red", "blue"] * 12))
    lm = make_tiny_lm(tmp_path / "lm", [row.text for row in rows])
    seen: list[tuple[int, float]] = []
    settings = {"algorithm": "sft", "backend": "postgrad-trl", "num_epochs": 12, "learning_rate": 1e-2}
    given = job_of(tmp_path, lm, real, **settings, effective_batch_size=8, max_seq_len=128)
    job = replace(given, rows=rows, labels=("blue", "red"), report=lambda step, loss: seen.append((step, loss)))
    model = fit_with_training_hub(job, TrainingHubParams.model_validate(job.params.model_dump()))
    assert len(seen) == 36 and seen[-1][1] < seen[0][1] / 2
    found = model.predict(["say red", "say blue"])
    assert isinstance(found, Outputs) and found.probs.argmax(1).tolist() == [1, 0]
    model.save(tmp_path / "saved")
    assert isinstance(TrainingHub().load(tmp_path / "saved").predict(["say red"]), Outputs)
    words = fit(replace(job, labels=(), out_of_scope=None, generation=Generation(max_new_tokens=8)))
    answers = words.predict(["say red"])
    assert isinstance(answers, Texts) and answers.texts[0].startswith("red")
