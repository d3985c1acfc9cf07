"""Multiple choice by likelihood: options read from the text, the likeliest answered, the same model exported."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from postgrad.choices import answers_in, check_choices, options_in
from postgrad.errors import UserError
from postgrad.export import predict_language
from postgrad.records import Generation, Row
from postgrad.spec.load import load_task
from postgrad.testing.language import make_tiny_lm
from postgrad.train.base import FitJob
from postgrad.train.causal_lm import CausalLM
from postgrad.train.lm_score import log_likelihoods, log_likelihoods_of

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
ANIMALS, THINGS = ("cat", "dog", "horse", "cow"), ("cup", "chair", "lamp", "boat", "spoon", "table")
BY_LETTER = Generation(prompt="{input}", max_new_tokens=8, choices="letter")


def quiz(count: int, generation: Generation = BY_LETTER) -> tuple[Row, ...]:
    """Which of three words is an animal."""
    rng, found = Random(0), list[Row]()
    for number in range(count):
        words = [rng.choice(ANIMALS), *rng.sample(THINGS, 2)]
        rng.shuffle(words)
        right = next(place for place, word in enumerate(words) if word in ANIMALS)
        text = "which lives?\n" + "\n".join(f"{letter}) {word}" for letter, word in zip("ABC", words, strict=True))
        found.append(Row(f"q{number}", text, "ABC"[right] if generation.choices == "letter" else words[right]))
    return tuple(found)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_lm(tmp_path_factory.mktemp("tiny"), [row.text for row in quiz(24)])


def fitted(tiny: Path, folder: Path, generation: Generation, rows: tuple[Row, ...], **params: Any) -> Any:
    backend = CausalLM()
    job = FitJob(
        rows=rows,
        labels=(),
        out_of_scope=None,
        params=backend.Params.model_validate({"precision": "fp32", **params}),
        base_model=tiny,
        seed=0,
        threads=1,
        checkpoint=folder / "checkpoint",
        generation=generation,
    )
    return backend.fit(job)


# --- reading options --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("q?\nA) yes\nB) no", "A=yes B=no"),
        ("q?\n(A) yes\n (B)  no  ", "A=yes B=no"),
        ("q?\r\nA. yes\r\nB. no\r\n", "A=yes B=no"),
        ("q?\nA: yes\nB：no\nC、maybe", "A=yes B=no C=maybe"),
        ("A) old\nB) list\nand then\nA) new\nB) one", "A=new B=one"),
        ("q?\nA) yes\nC) no", ""),
        ("q?\nB) yes\nC) no", ""),
        ("q?\nA) only", ""),
        ("a plain question about plan B. Nothing else", ""),
        ("q?\nA) 1\nB) 2\nA) stray", "A=1 B=2"),
        ("q?\n" + "\n".join(f"{letter}) x" for letter in "ABCDEFGHIJKL"), " ".join(f"{x}=x" for x in "ABCDEFGHIJ")),
        ("", ""),
    ],
)
def test_options_are_read_from_lines(text: str, expected: str) -> None:
    assert " ".join(f"{one.letter}={one.text}" for one in options_in(text)) == expected
    assert predict_language.options_in(text) == [tuple(one) for one in options_in(text)], "the exported model's reading"


def test_rows_that_do_not_go_with_their_options_are_named() -> None:
    rows = quiz(3)
    check_choices(rows, BY_LETTER, "train")
    check_choices((rows[0]._replace(label="z"),), Generation(), "train")
    with pytest.raises(UserError, match=r"1 of 3 test rows .* answered with 'cat'; expected was one of 'A', 'B', 'C'"):
        check_choices((rows[0]._replace(label="cat"), *rows[1:]), BY_LETTER, "test")
    with pytest.raises(UserError, match=r"expected was options such as 'A\) yes'"):
        check_choices((Row("x", "no options", "A"),), BY_LETTER, "test")


def test_a_task_file_has_choices_or_a_schema_and_only_for_words(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("")
    text = (
        "name: t\nobjective: o\nkind: {kind}\ndata: {{train: train.jsonl}}\nmetric: {metric}\ngeneration: {{{keys}}}\n"
    )

    def problems(**values: str) -> str:
        (tmp_path / "task.yaml").write_text(text.format(**values))
        with pytest.raises(UserError) as caught:
            load_task(tmp_path / "task.yaml")
        return str(caught.value)

    both = "choices: letter, json_schema: {type: object}"
    assert "Keep one" in problems(kind="generation", metric="exact_match", keys=both)
    assert "generation.choices is set" in problems(kind="classification", metric="mcc", keys="choices: letter")
    assert "letter" in problems(kind="generation", metric="exact_match", keys="choices: words")


# --- answering --------------------------------------------------------------------------------------------------------


def test_each_prompt_has_answers_of_its_own(tiny: Path, tmp_path: Path) -> None:
    model = fitted(tiny, tmp_path, BY_LETTER, quiz(8), tune="none", shots=2)
    prompts = [model.renderer.prompt(row.text).ids for row in quiz(5)]
    own = [
        [model.renderer.target(word) for word in words] for words in (("A", "B"), ANIMALS, ("cup",), ("A", "B"), ("x",))
    ]
    together = log_likelihoods_of(model.model, prompts, own, model.renderer.prefix)
    for prompt, answers, found in zip(prompts, own, together, strict=True):
        np.testing.assert_allclose(found, log_likelihoods(model.model, [prompt], answers)[0], atol=1e-4)
    assert log_likelihoods_of(model.model, [], []) == []


@pytest.mark.parametrize("choices", ["letter", "text", "text_per_byte"])
def test_the_likeliest_option_is_the_answer(choices: Any, tiny: Path, tmp_path: Path) -> None:
    generation = BY_LETTER.model_copy(update={"choices": choices})
    rows = quiz(12, generation)
    model = fitted(tiny, tmp_path, generation, rows, tune="none")
    said = model.predict([row.text for row in rows])
    for row, answer, count in zip(rows, said.texts, said.tokens, strict=True):
        options = answers_in(row.text, generation)
        targets = [model.renderer.target(option) for option in options]
        likely = log_likelihoods(model.model, [model.renderer.prompt(row.text).ids], targets)[0]
        if choices == "text_per_byte":
            likely = likely / [len(option) for option in options]
        assert answer == options[int(likely.argmax())] and count == len(targets[int(likely.argmax())])


def test_which_word_lives_is_learnt_and_a_text_without_options_is_answered_freely(tiny: Path, tmp_path: Path) -> None:
    generation = BY_LETTER.model_copy(update={"choices": "text"})
    rows = quiz(96, generation)
    settings: dict[str, Any] = {"tune": "full", "lr": 3e-3, "epochs": 6, "batch_size": 8}
    model = fitted(tiny, tmp_path, generation, rows[:64], **settings)
    asked = [row.text for row in rows[64:]]
    said = model.predict([*asked, "which lives?"])
    assert np.mean([answer == row.label for answer, row in zip(said.texts, rows[64:], strict=False)]) > 0.8
    free = replace(model, generation=Generation(prompt="{input}", max_new_tokens=8)).predict(["which lives?"])
    assert said.texts[-1:] == free.texts and model.predict([]).texts == ()

    model.save(tmp_path / "model")
    loaded: Any = CausalLM().load(tmp_path / "model")
    assert loaded.predict(asked).texts == said.texts[:-1]
    write = predict_language.load_texts(tmp_path / "model")
    assert write([*asked[:8], "which lives?"]) == [*said.texts[:8], said.texts[-1]]


# --- a run ------------------------------------------------------------------------------------------------------------


def test_a_run_answers_with_options_alone(tiny: Path, tmp_path: Path) -> None:
    for part, rows in (("train", quiz(150)[:110]), ("test", quiz(150)[110:])):
        lines = [json.dumps({"text": row.text, "label": row.label}) for row in dict.fromkeys(rows)]
        (tmp_path / f"{part}.jsonl").write_text("\n".join(lines))
    (tmp_path / "task.yaml").write_text(
        "name: quiz\nobjective: o\nkind: generation\ndata: {train: train.jsonl, test: test.jsonl}\n"
        f"metric: choice_letter\nbase_models: ['path:{tiny}']\nbudget: {{experiments: 1}}\nmemory: false\n"
        "generation: {prompt: '{input}', choices: letter}\n"
    )
    command = [sys.executable, "-m", "postgrad", "run", "task.yaml", "--json", "--runs-dir", "runs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    items = [path for path in (tmp_path / "runs").rglob("*") if path.is_file() and b'"text": "' in path.read_bytes()]
    said = {json.loads(line)["text"] for path in items for line in path.read_text().splitlines() if '"tokens"' in line}
    assert said and said <= {"A", "B", "C"}
