"""The researcher of a task file: a name, or a mapping that says which models or which program propose."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any, Iterator, Mapping

from pydantic import ValidationError

from postgrad.errors import near_miss
from postgrad.llm import PROVIDERS
from postgrad.llm.presets import PRESETS
from postgrad.records import ModelSpec, Rates, ResearcherSpec
from postgrad.research import RESEARCHERS

KINDS = ("language_model", "command", "outside")
EXAMPLES = {
    "language_model": "researcher: {models: [{provider: ollama, model: qwen3}]}",
    "command": "researcher: {command: [python, agent.py]}",
    "outside": "researcher: {kind: outside, wait_s: 600}",
}
# The keys that say nothing of a researcher outside.
INNER = (
    "env",
    "notes",
    "alone",
    "context_tokens",
    "examples",
    "form",
    "proposals",
    "bad_cases",
    "max_tokens",
    "temperature",
    "timeout_s",
)
# Key -> the least and the most that is taken.
BOUNDS = {
    "context_tokens": (1500, 200_000),
    "examples": (0, 50),
    "proposals": (1, 5),
    "max_tokens": (64, 100_000),
    "temperature": (0, 2),
    "timeout_s": (0.1, 3600),
    "wait_s": (0, 604_800),
}
LONGEST_PROMPT = 8000
LONGEST_NOTES = 20_000
# Key -> what it is for, in the schema.
RESEARCHER_HELP = {
    "kind": "Follows from `models` or `command`.",
    "models": "Language models, each with provider and model; base_url, key_env, price, prompt, name, path, stream.",
    "command": "A program that reads the context as JSON and prints proposals as JSON.",
    "env": "Environment variables that the program is given beside PATH, HOME and the like.",
    "alone": "true: the playbook only fills in. Default: false for models, true for a command.",
    "notes": "A text file with notes on the literature; what is in it is quoted to whoever proposes.",
    "context_tokens": "Tokens of what is told about the run, however large it is.",
    "examples": "Train rows that are quoted in it; 0 sends none.",
    "form": "moves: a proposal is one open move with its reasons; for small models.",
    "proposals": "How many are asked for at once, 1 to 5.",
    "bad_cases": "false: no model is asked for words on the bad cases at the end of the search.",
    "max_tokens": "The longest reply.",
    "temperature": "Of the models; theirs where it is not set.",
    "timeout_s": "Seconds for one reply; at most a twentieth of a budget of time.",
    "wait_s": "kind: outside: seconds that an idea is waited for; they cost no budget.",
}


def read_researcher(value: Any, root: Path, problems: list[str]) -> ResearcherSpec | str | None:
    """The researcher of a task file, None where it has problems.

    Args:
        root: where relative paths start.
    """
    if isinstance(value, str):
        return _named(value, problems)
    if not isinstance(value, Mapping):
        problems.append(f"researcher: a name or keys were expected, as {EXAMPLES['command']}")
        return None
    fields = {str(key): each for key, each in value.items() if each is not None}
    if "notes" in fields and (notes := _notes(fields["notes"], root, problems)) is not None:
        fields["notes"] = notes
    given = [key for key in ("models", "command") if key in fields]
    if fields.get("kind") == "outside" and not given:
        return _outside(fields, problems)
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        problems.append(
            f"researcher: one of models and command was expected, found {found}. {' Or '.join(EXAMPLES.values())}"
        )
        return None
    kind = "command" if given == ["command"] else "language_model"
    if isinstance(fields.get("command"), str):
        problems.append(f"researcher.command: a list of words was expected, as {EXAMPLES['command']}")
        return None
    try:
        spec = ResearcherSpec.model_validate({"kind": kind, "alone": kind == "command", **fields})
    except ValidationError as wrong:
        problems += dict.fromkeys(_message(error) for error in wrong.errors())
        return None
    before = len(problems)
    if spec.kind != kind:
        problems.append(f"researcher.kind is {spec.kind}, and {given[0]} are those of {kind}. Leave the kind out.")
    problems += _number_problems(spec)
    problems += _model_problems(spec)
    if "wait_s" in fields:
        problems.append("researcher.wait_s is of kind outside. Leave it out, or set timeout_s.")
    if kind == "command" and not (spec.command and spec.command[0].strip()):
        problems.append(f"researcher.command is empty. Write it as {EXAMPLES['command']}")
    return _with_paths(spec, root) if len(problems) == before else None


def _notes(value: Any, root: Path, problems: list[str]) -> str | None:
    """What is in the file of notes. The log keeps it, so a run that goes on reads the same."""
    said = "a text file of at most 20,000 characters was expected, such as notes.md."
    if not isinstance(value, str):
        problems.append(f"researcher.notes: {said}")
        return None
    path = root / Path(value).expanduser()
    try:
        with path.open("rb") as file:
            text = file.read(4 * LONGEST_NOTES + 1).decode("utf-8")
    except OSError as wrong:
        problems.append(f"researcher.notes: {path} cannot be read ({wrong.strerror}); {said}")
        return None
    except UnicodeDecodeError:
        problems.append(f"researcher.notes: {path} is not UTF-8; {said}")
        return None
    if len(text) > LONGEST_NOTES:
        problems.append(f"researcher.notes: {path} is longer than {LONGEST_NOTES:,} characters; {said}")
        return None
    return text


def _outside(fields: Mapping[str, Any], problems: list[str]) -> ResearcherSpec | None:
    """Somebody who puts ideas in while the run waits for them."""
    before = len(problems)
    problems += [f"researcher.{key} is not of kind outside. Leave it out." for key in fields if key in INNER]
    try:
        spec = ResearcherSpec.model_validate(fields)
    except ValidationError as wrong:
        problems += dict.fromkeys(_message(error) for error in wrong.errors())
        return None
    problems += _number_problems(spec)
    return spec if len(problems) == before else None


def _named(name: str, problems: list[str]) -> str | None:
    if name in RESEARCHERS.names():
        return name
    if name in KINDS:
        problems.append(f"researcher: '{name}' needs to know more. Write it as {EXAMPLES[name]}")
    else:
        known = (*RESEARCHERS.names(), *KINDS)
        problems.append(f"researcher: unknown researcher '{name}'.{near_miss(name, known)} Known: {', '.join(known)}.")
    return None


def _number_problems(spec: ResearcherSpec) -> Iterator[str]:
    for key, (low, high) in BOUNDS.items():
        value = getattr(spec, key)
        if value is not None and not low <= value <= high:
            yield f"researcher.{key} is {value}, and {low:g} to {high:,} was expected."


def _model_problems(spec: ResearcherSpec) -> list[str]:
    found = []
    known = sorted({*PROVIDERS.names(), *PRESETS})
    if spec.kind == "language_model" and not spec.models:
        found.append(f"researcher.models is empty. Write it as {EXAMPLES['language_model']}")
    for number, model in enumerate(spec.models):
        if model.provider not in known:
            hint = near_miss(model.provider, known)
            found.append(
                f"researcher.models.{number}: unknown provider '{model.provider}'.{hint} Known: {', '.join(known)}."
            )
        rates = model.price.model_dump().values() if model.price else ()
        if any(rate is not None and not 0 <= rate < inf for rate in rates):
            found.append(f"researcher.models.{number}.price: 0 or more dollars per million tokens were expected.")
        if len(model.prompt) > LONGEST_PROMPT:
            found.append(
                f"researcher.models.{number}.prompt has more than {LONGEST_PROMPT:,} characters. Say it shorter."
            )
    names = [model.called for model in spec.models]
    for name in sorted({name for name in names if names.count(name) > 1 or name in RESEARCHERS.names()}):
        found.append(f"researcher.models: '{name}' names more than one proposer. Give each a name of its own.")
    return found


def _message(error: Any) -> str:
    """One problem in words of the task file."""
    place = ".".join(["researcher", *map(str, error["loc"])])
    if error["type"] == "extra_forbidden":
        inside = Rates if "price" in error["loc"][:-1] else ModelSpec if error["loc"][0] == "models" else ResearcherSpec
        known = tuple(inside.model_fields)
        return f"Unknown key '{place}'.{near_miss(str(error['loc'][-1]), known)} Known: {', '.join(known)}."
    if error["type"] == "missing":
        return f"{place} is missing."
    return f"{place}: {error['msg'][0].lower()}{error['msg'][1:]}."


def _with_paths(spec: ResearcherSpec, root: Path) -> ResearcherSpec:
    """The same with every file that lies beside the task file by its whole path."""
    models = tuple(
        model
        if model.path is None
        else model.model_copy(update={"path": str((root / Path(model.path).expanduser()).absolute())})
        for model in spec.models
    )
    command = tuple(str((root / word).absolute()) if _is_file(root / word) else word for word in spec.command)
    return spec.model_copy(update={"models": models, "command": command})


def _is_file(path: Path) -> bool:
    """False too for what is too long to be a name, such as a program in a word."""
    try:
        return path.is_file()
    except OSError:
        return False
