"""A local copy of the contract of a post-training contest: an evaluator, a timer, a tiny base model, test data."""

from __future__ import annotations

import json
import time
from pathlib import Path
from random import Random

from postgrad.testing.language import make_tiny_lm

ITEMS = ("apple", "pear", "plum", "fig", "nut", "melon", "grape", "lime")
COLOURS = ("red", "green", "blue", "black", "white")
WORDS = ("please", "today", "again", "soon", "kindly", "monday", "urgent", "later")

EVALUATOR = '''\
"""Scores a model on the test questions."""
import argparse, json, os
parser = argparse.ArgumentParser()
parser.add_argument("--model-path", default="final_model")
parser.add_argument("--limit", type=int, default=40)
parser.add_argument("--json-output-file", default=None)
args = parser.parse_args()
from transformers import AutoModelForCausalLM, AutoTokenizer
import torch
here = os.path.dirname(os.path.abspath(__file__))
rows = json.load(open(os.path.join(here, "test_data.json")))[: args.limit]
tokenizer = AutoTokenizer.from_pretrained(args.model_path)
tokenizer.chat_template = open(os.path.join(here, "templates", "tiny.jinja")).read()
model = AutoModelForCausalLM.from_pretrained(args.model_path, dtype=torch.float32).eval()
right = 0
for row in rows:
    turn = [{"role": "user", "content": row["question"]}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        said = model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    right += tokenizer.decode(said[0][ids.shape[1]:], skip_special_tokens=True).strip() == row["answer"]
keys = sorted(name for name in os.environ if name.endswith(("_KEY", "_TOKEN")))
print("keys:", keys)
json.dump({"accuracy": right / len(rows)}, open(args.json_output_file, "w"))
'''

# The same command line, without a model library: it counts what is there, for tests of what happens around it.
LIGHT = '''\
"""Scores a model folder by whether its parts are there."""
import argparse, json, os
parser = argparse.ArgumentParser()
parser.add_argument("--model-path", default="final_model")
parser.add_argument("--json-output-file", default=None)
args = parser.parse_args()
parts = ("config.json", "model.safetensors", "tokenizer.json")
found = sum(os.path.isfile(os.path.join(args.model_path, part)) for part in parts)
print("keys:", sorted(name for name in os.environ if name.endswith(("_KEY", "_TOKEN"))))
json.dump({"accuracy": found / 3}, open(args.json_output_file, "w"))
'''

TIMER = """\
#!/bin/bash
NUM_HOURS={hours}
CREATION_DATE={created}
DEADLINE=$((CREATION_DATE + NUM_HOURS * 3600))
NOW=$(date +%s)
echo "Remaining time (hours:minutes)": $(((DEADLINE - NOW) / 3600)):00
"""


def questions(count: int, seed: int) -> list[tuple[str, str]]:
    """Order lines, each with the one colour that stands in it as its answer."""
    rng, found = Random(seed), dict[str, str]()
    while len(found) < count:
        item, colour = rng.choice(ITEMS), rng.choice(COLOURS)
        extra = rng.sample(WORDS, 3)
        line = f"{rng.randint(1, 999)} {extra[0]} {colour} {item} {extra[1]} {extra[2]}"
        found.setdefault(line, colour)
    return list(found.items())


def write_contest(folder: Path, hours: int = 1, evaluator: str = LIGHT) -> Path:
    """Write a contest folder, with a base model in `base` beside it; return the folder."""
    from postgrad.testing.language import CHAT_TEMPLATE

    contest = folder / "task"
    (contest / "templates").mkdir(parents=True)
    (contest / "evaluate.py").write_text(evaluator)
    (contest / "timer.sh").write_text(TIMER.format(hours=hours, created=int(time.time())))
    template = CHAT_TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    (contest / "templates" / "tiny.jinja").write_text(template)
    asked = questions(40, seed=9)
    (contest / "test_data.json").write_text(json.dumps([{"question": q, "answer": a} for q, a in asked]))
    make_tiny_lm(folder / "base", [f"{q} {a}" for q, a in questions(200, seed=1)])
    return contest


def write_task(folder: Path, rows: int = 300, *, more: tuple[tuple[str, str], ...] = (), **changes: str) -> Path:
    """Write own train and test rows with a task file beside the contest; return the task file."""
    asked = set(line for line, _ in questions(40, seed=9))
    own = [(line, answer) for line, answer in questions(rows, seed=1) if line not in asked]
    cut = len(own) // 3
    for name, part in (("train", [*own[cut:], *more]), ("sealed", own[:cut])):
        lines = (json.dumps({"text": text, "answer": answer}) + "\n" for text, answer in part)
        (folder / f"{name}.jsonl").write_text("".join(lines))
    keys = {
        "name": "colours",
        "objective": "the colour in an order line",
        "kind": "generation",
        "data": "{train: train.jsonl, test: sealed.jsonl, input: text, target: answer}",
        "metric": "normalised_match",
        "base_models": "[path:base]",
        "generation": "{max_new_tokens: 12}",
        "engine": "{workers: 2, threads: 1}",
        "memory": "off",
        **changes,
    }
    (folder / "task.yaml").write_text("".join(f"{key}: {value}\n" for key, value in keys.items()))
    return folder / "task.yaml"
