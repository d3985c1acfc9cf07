"""The documentation says what the code does: commands, options, task keys, plug-ins, links and examples."""

from __future__ import annotations

import json
import re
import shlex
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Iterator

import pytest
import typer
import yaml

from postgrad.cli.main import COMMANDS, LazyCommands
from postgrad.records import (
    ApproveSpec,
    Budget,
    DataSpec,
    EngineSpec,
    Generation,
    Guard,
    JudgeSpec,
    ModelSpec,
    ResearcherSpec,
    SearchSpec,
    Slice,
    TaskSpec,
)
from postgrad.registry import Registry
from postgrad.spec import load_task, task_schema

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
FRONT = [ROOT / "README.md", ROOT / "CHANGELOG.md"]
PLUG_FOLDERS = ("search", "research", "data", "train", "metrics", "engines", "llm", "bench")
# Shell commands that a page may show beside `postgrad` and `make`.
OTHER_TOOLS = {"pip", "python", "cd", "export", "git", "docker", "ray", "kubectl", "ssh"}


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _table_words(text: str) -> set[str]:
    """The code words in the first cells of all tables."""
    return {word for line in text.splitlines() for word in re.findall(r"^\| `([^`]+)`", line)}


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", _text(page), flags=re.DOTALL)


@cache
def _options(name: str) -> dict[str, bool]:
    """Option -> whether it takes a value, of one command."""
    found: dict[str, bool] = {"--help": False, "-h": False}
    for parameter in LazyCommands()[name].params:
        for option in (*parameter.opts, *parameter.secondary_opts):
            found[option] = not getattr(parameter, "is_flag", False)
    return found


# --- commands -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    page = _text(ROOT / "docs" / "commands.md")
    assert f"\n## {name}\n" in page
    section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
    assert f"postgrad {name}" in section
    assert f"postgrad {name}" in _text(ROOT / "README.md"), f"the table of the README leaves out `postgrad {name}`"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help(name: str) -> None:
    command = LazyCommands()[name]
    assert command.help and len(command.help.split()) > 5
    without = [p.name for p in command.params if not getattr(p, "help", None)]
    assert not without


def test_no_command_is_documented_that_is_not_there() -> None:
    headings = re.findall(r"^## (\S+)$", _text(ROOT / "docs" / "commands.md"), flags=re.MULTILINE)
    assert sorted(headings) == sorted(COMMANDS)


# --- examples -------------------------------------------------------------------------------------------------------


def _shell_lines() -> Iterator[tuple[str, str]]:
    for page in [*PAGES, *FRONT, *sorted((ROOT / "examples").rglob("*.md"))]:
        for block in _blocks(page, "bash"):
            for line in block.splitlines():
                if line.strip() and not line.startswith("#"):
                    yield str(page.relative_to(ROOT)), line.strip()


def _make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", _text(ROOT / "Makefile"), flags=re.MULTILINE))


@pytest.mark.parametrize(("page", "line"), [pytest.param(*pair, id=pair[1]) for pair in _shell_lines()])
def test_examples_use_what_is_there(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    tool = Path(words[0]).name
    if tool == "make":
        goals = {word for word in words[1:] if "=" not in word and word != "&&" and word != "make"}
        assert goals <= _make_targets(), page
    elif tool == "postgrad":
        _check_call(page, words[1:])
    else:
        assert tool in OTHER_TOOLS, f"{page}: {line}"


def _check_call(page: str, words: list[str]) -> None:
    if words[0] in ("--help", "--version"):
        return
    assert words[0] in COMMANDS, f"{page}: there is no command {words[0]}"
    known = _options(words[0])
    used = [word.split("=")[0] for word in words[1:] if word.startswith("--")]
    if words[0] == "bench":
        from postgrad.bench import BENCHMARKS

        known = {**known, **{f"--{key.replace('_', '-')}": True for key in BENCHMARKS.get(words[1]).options}}
    assert set(used) <= set(known), f"{page}: {words[0]} has no option {set(used) - set(known)}"


# --- the task file --------------------------------------------------------------------------------------------------


def test_every_task_key_is_documented() -> None:
    page = _text(ROOT / "docs" / "task-file.md")
    named = _table_words(page) | set(re.findall(r"`(\w+)`", page))
    for record in (TaskSpec, DataSpec, Generation, JudgeSpec, Guard, Slice, ApproveSpec, SearchSpec, EngineSpec):
        assert set(record.model_fields) <= named, f"{record.__name__}: {set(record.model_fields) - named}"
    assert {"wall", "disk", *Budget.model_fields} - {"wall_s", "disk_gb"} <= named


def test_every_key_of_a_researcher_is_documented() -> None:
    words = set(re.findall(r"`(\w+)`", _text(ROOT / "docs" / "researcher.md")))
    for record in (ResearcherSpec, ModelSpec):
        assert set(record.model_fields) <= words, f"{record.__name__}: {set(record.model_fields) - words}"


def test_task_keys_that_are_documented_exist() -> None:
    records = (TaskSpec, DataSpec, Generation, JudgeSpec, Guard, ApproveSpec, SearchSpec, EngineSpec, Budget)
    known = {key for record in records for key in record.model_fields} | {"wall", "disk"}
    assert _table_words(_text(ROOT / "docs" / "task-file.md")) <= known


def test_defaults_that_are_documented_are_the_defaults() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", _text(ROOT / "docs" / "task-file.md"), flags=re.MULTILINE)
    defaults: dict[str, Any] = {}
    for record in (EngineSpec, ApproveSpec, SearchSpec, DataSpec, Generation, JudgeSpec, TaskSpec):
        defaults |= {key: field.default for key, field in record.model_fields.items()}
    defaults |= {"approve": ApproveSpec().when, "search": SearchSpec().policy, "engine": EngineSpec().kind}
    documented = [(key, value) for key, value in rows if key in defaults and not value.startswith("package:")]
    assert len(documented) >= 8
    for key, value in documented:
        if key == "kind" and value == "local":
            continue
        if key == "budget":
            assert value == "20m"
            continue
        assert str(defaults[key]) == value or float(defaults[key]) == float(value), key


def test_the_published_schema_is_the_schema() -> None:
    """`make schema` writes it."""
    assert json.loads(_text(ROOT / "docs" / "task.schema.json")) == task_schema()


def test_the_example_task_loads(tmp_path: Path) -> None:
    block = next(block for block in _blocks(ROOT / "docs" / "task-file.md", "yaml") if "objective" in block)
    fields = yaml.safe_load(block)
    for name in (fields["data"]["train"], fields["data"]["test"]):
        (tmp_path / name).write_text("text,label\na,b\n", encoding="utf-8")
    (tmp_path / "task.yaml").write_text(block, encoding="utf-8")
    assert load_task(tmp_path / "task.yaml", {"base_models": []}).name == fields["name"]


# --- plug-ins -------------------------------------------------------------------------------------------------------


def _registries() -> list[Registry[Any]]:
    found = []
    for folder in PLUG_FOLDERS:
        module = import_module(f"postgrad.{folder}")
        found += [value for value in vars(module).values() if isinstance(value, Registry)]
    return found


def test_every_plug_in_is_documented() -> None:
    registries = _registries()
    assert len(registries) == len(PLUG_FOLDERS) + 1, "metrics have two tables"
    page = _text(ROOT / "docs" / "plugins.md")
    named = _table_words(page)
    for registry in registries:
        assert set(registry.names()) <= named, f"{registry.kind}: {set(registry.names()) - named}"
        assert f"| {registry.kind} | `{registry.group}` |" in page
    assert named <= {name for registry in registries for name in registry.names()}


def test_contracts_that_are_named_exist() -> None:
    page = _text(ROOT / "docs" / "plugins.md")
    paths = re.findall(r"\| `(postgrad(?:\.\w+)+)` \|$", page, flags=re.MULTILINE)
    assert len(paths) == len(PLUG_FOLDERS) + 1
    for path in paths:
        module, _, name = path.rpartition(".")
        assert hasattr(import_module(module), name), path


# --- links ----------------------------------------------------------------------------------------------------------


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _text(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *FRONT], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _text(page)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        place, _, anchor = target.partition("#")
        file = (page.parent / place).resolve() if place else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in _anchors(file), f"{page.name}: {target}"


def test_every_page_is_in_the_index() -> None:
    index = _text(ROOT / "docs" / "index.md")
    assert all(f"({page.name})" in index for page in PAGES if page.name != "index.md")


def test_commands_are_typer_commands() -> None:
    """What the tests above read options from."""
    assert all(isinstance(LazyCommands()[name], typer.core.TyperCommand) for name in COMMANDS)
