"""What a reply says about files, checked, and made into a commit.

Everything that is wrong with an edit is named at once: git's own words for a patch that does not apply, files that may
not be changed, Python that does not parse, an edit of nothing but seeds. What is right becomes a commit, and there it
is seen whether the version was tried.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Callable, Mapping, Sequence

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from postgrad.llm.base import Provider, Request, Usage
from postgrad.llm.structured import ask
from postgrad.quoting import escaped, inlined
from postgrad.records import Recipe, Sketch, Stage
from postgrad.research.ideas import Ask
from postgrad.research.proposing import Name, Words
from postgrad.research.telling import scored, word
from postgrad.scripts.git import GitError
from postgrad.scripts.paths import EditRefused
from postgrad.scripts.protect import Rules
from postgrad.scripts.reading import PATCH
from postgrad.scripts.seeds import unseeded
from postgrad.scripts.session import ScriptSession
from postgrad.scripts.telling import Subject
from postgrad.tree import Experiment

# Characters of an edit, and of a path; files of an agent's, and what an effect may be.
LONGEST, PATH, MOST_FILES, LARGEST = 60_000, 1_000, 50, 1e9
CHANGE, NAMES, WORDS = 160, 10, 400
MENDED = "repair.crash"


def _bounded(effect: float) -> float:
    if not isfinite(effect):
        raise ValueError("a number was expected")
    return min(LARGEST, max(-LARGEST, effect))


Effect = Annotated[float, AfterValidator(_bounded)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Edit(_Part):
    """One change: a unified diff, or one file as a whole."""

    patch: str | None = Field(default=None, max_length=LONGEST, description="A unified diff, with paths a/... b/...")
    path: str | None = Field(default=None, max_length=PATH, description="Without a patch: the file to be replaced.")
    content: str | None = Field(default=None, max_length=LONGEST, description="Its whole new content.")

    @model_validator(mode="after")
    def _one_form(self) -> Edit:
        if (self.patch is None) == (self.path is None) or (self.path is None) != (self.content is None):
            raise ValueError("either `patch` was expected, or `path` and `content`")
        return self


class Reply(_Part):
    """What a model is asked for."""

    hypothesis: Words = Field(description="Why this should help, in one or two sentences.")
    expected_effect: Effect = Field(description="Expected change of the metric, in its own sign.")
    refuted_by: Words = Field(description="What would show that the hypothesis is wrong.")
    evidence: tuple[Name, ...] = Field(default=(), max_length=8, description="Experiments that speak for it: e0012.")
    edit: Edit


class File(_Part):
    """A file that an agent left. `content` is None for one that it removed."""

    path: str = Field(max_length=PATH)
    content: str | None = None


class Left(_Part):
    """What an agent left in its checkout, and what it said of it. `refused` are files that it may not change."""

    hypothesis: Words = "A coding agent changed the files and did not say why."
    expected_effect: Effect = 0.0
    refuted_by: Words = "the score is no better than before"
    files: tuple[File, ...] = Field(default=(), max_length=MOST_FILES)
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Said:
    """The reasons that come with an edit."""

    hypothesis: str
    expected_effect: float
    refuted_by: str
    evidence: Sequence[str] = ()


Files = Mapping[str, bytes | None]


class EditReading:
    """Reads replies about one subject, and keeps what can be tried.

    Args:
        of: the question that is answered.
        by_program: replies are what an agent left, and not a model's.
    """

    def __init__(self, of: Ask, subject: Subject, session: ScriptSession, by_program: bool) -> None:
        self._ask, self._subject, self._session = of, subject, session
        self._by_program = by_program
        self.sketches: list[Sketch] = []
        self.problems: Sequence[str] = ()

    def ask(self, provider: Provider, request: Request, repairs: int) -> Usage:
        """Ask for one edit, and check it."""
        if self._by_program:
            return ask(provider, request, Left, repairs, self._left).usage
        return ask(provider, request, Reply, repairs, self._replied).usage

    def _replied(self, reply: Reply) -> Sequence[str]:
        said = Said(reply.hypothesis, reply.expected_effect, reply.refuted_by, reply.evidence)
        edit = reply.edit
        unknown = [name for name in reply.evidence if name not in self._ask.tree.experiments]
        problems = [f"evidence: there is no experiment {inlined(name, CHANGE)}" for name in unknown]

        def files() -> Files:
            if edit.patch is not None:
                return self._session.workspace.apply(self._subject.commit, edit.patch)
            assert edit.path is not None and edit.content is not None, "an edit has one of two forms"
            return {edit.path: edit.content.encode("utf-8", "replace")}

        return self._judged(said, files, problems)

    def _left(self, left: Left) -> Sequence[str]:
        said = Said(left.hypothesis, left.expected_effect, left.refuted_by)
        problems = [f"edit: {inlined(path, PATH)} is protected (changed_protected)" for path in left.refused[:NAMES]]
        if not left.files and not problems:
            problems = ["edit: no editable file was changed"]
        files: Files = {one.path: one.content.encode() if one.content is not None else None for one in left.files}
        return self._judged(said, lambda: files, problems)

    # --- checks -----------------------------------------------------------------------------------------------------

    def _judged(self, said: Said, files: Callable[[], Files], problems: list[str]) -> Sequence[str]:
        """All that is wrong; what is right is kept."""
        try:
            made = files()
            problems += self._wrong(made)
            sketch = None if problems else self._sketch(said, made)
        except (EditRefused, GitError) as refused:
            problems.append(f"edit: {refused}")
            sketch = None
        if isinstance(sketch, Sketch):
            self.sketches = [sketch]
        elif sketch is not None:
            problems.append(sketch)
        self.problems = tuple(" ".join(one.split())[:WORDS] for one in problems)
        return self.problems

    def _wrong(self, files: Files) -> list[str]:
        script, workspace = self._subject.script, self._session.workspace
        rules = Rules(script.editable, script.protected)
        only = ", ".join(script.editable)
        found = [
            f"edit: {inlined(path, PATH)} is protected (changed_protected); only {only} may be changed"
            for path in files
            if not rules.allowed(path)
        ]
        there = workspace.files(self._subject.commit)
        before = {path: workspace.read(self._subject.commit, path) if path in there else None for path in files}
        found += [
            problem
            for path, data in files.items()
            if path.endswith(".py") and data is not None
            for problem in unparsed(path, data)
        ]
        if before == dict(files):
            return [*found, "edit: it changes nothing"]
        if not found and all(_same_but_seeds(path, before[path], data) for path, data in files.items()):
            found.append("edit: it changes nothing but seeds, comments or layout (only_the_seed)")
        return found

    def _sketch(self, said: Said, files: Files) -> Sketch | str:
        """The edit as a commit; what is wrong with it where it was tried, or will not be run."""
        subject, workspace, tree = self._subject, self._session.workspace, self._ask.tree
        changed = list(files)
        kind = MENDED if subject.mends else f"{PATCH}.{changed[0] if len(changed) == 1 else 'several'}"
        if self._ask.context.barred(kind):
            return f"a person ruled out {word(kind)}. Propose something else."
        name = f"e{self._ask.context.index:04d}"
        commit = workspace.commit(name, subject.commit, files, f"{kind}: {said.hypothesis}")
        version = workspace.tree_of(commit)
        recipe = Recipe(stage=Stage(backend="script", params={"tree": version}))
        same = tree.all()[0] if version == workspace.tree_of(workspace.baseline) else tree.first_with(recipe)
        if same is not None:
            return f"edit: it was tried as {same.id}: {self._outcome(same)}. Propose something else."
        if (refused := self._session.refusal(recipe)) is not None:
            return f"edit: {refused.message} ({refused.kind})"
        if self._ask.context.admit(recipe) is None:
            return "edit: it cannot be run here. Propose something else."
        return Sketch(
            parent=subject.node.id,
            recipe=recipe,
            kind=kind,
            kinds=(kind,),
            change=_summary(workspace.diff(subject.commit, commit, context=0)),
            hypothesis=said.hypothesis,
            expected_effect=subject.sign * said.expected_effect,
            refuted_by=said.refuted_by,
            evidence=tuple(dict.fromkeys(said.evidence)),
        )

    def _outcome(self, node: Experiment) -> str:
        if node.score is not None:
            return f"it scored {scored(node, self._subject.sign)}"
        failure = node.failure
        return f"it failed ({word(f'{failure.boundary}/{failure.kind}')})" if failure else f"it is {node.state.value}"


def unparsed(path: str, data: bytes) -> list[str]:
    """Why a file is no Python; nothing where it is."""
    try:
        ast.parse(data)
    except SyntaxError as error:
        return [f"edit: {inlined(path, PATH)} does not parse: line {error.lineno}: {escaped(str(error.msg))}"]
    except (ValueError, RecursionError, MemoryError) as error:
        return [f"edit: {inlined(path, PATH)} does not parse: {escaped(str(error))}"]
    return []


def _same_but_seeds(path: str, before: bytes | None, after: bytes | None) -> bool:
    if before is None or after is None or not path.endswith(".py"):
        return before == after
    texts = [unseeded(data.decode("utf-8", "replace")) for data in (before, after)]
    return texts[0] is not None and texts[0] == texts[1]


def _summary(diff: str) -> str:
    """The changed lines of a diff, in one line."""
    parts = []
    for line in diff.splitlines():
        if line.startswith("+++ "):
            parts.append(f"{line[4:].removeprefix('b/')}:")
        elif line[:1] in "+-" and line[:4] != "--- " and line[1:].strip():
            parts.append(f"{line[0]}{' '.join(line[1:].split())}")
    text = escaped(" ".join(parts))
    return text if len(text) <= CHANGE else f"{text[: CHANGE - 3]}..."
