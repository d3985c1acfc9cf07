"""Runs a script's experiment: the command in a checkout of its commit, then the referee on what it left.

Two jobs of one engine. The first sees its own files and nothing hidden; the second sees the untouched files of the
baseline, what the first left, and the hidden file of the split. What is stored are the referee's numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Mapping, Sequence

from postgrad.engines.base import Engine, Exit, Handle
from postgrad.execute.collect import REFUSED, TAIL_BYTES, TAIL_LINES, bad_end, isolation
from postgrad.execute.executor import Executor, Inputs, RunningJob, explained, killed_from_outside
from postgrad.execute.files import Refused, plain_text, read_regular, read_tail
from postgrad.records import Failure, JobResult, JobSpec, Race, ScriptSpec, UnitResult, Usage
from postgrad.removing import remove_tree
from postgrad.scripts.curve import Curve
from postgrad.scripts.left import hand_over
from postgrad.scripts.scores import BadScore, printed, stored, written
from postgrad.scripts.settings import setting_of
from postgrad.scripts.worker import CHECKOUT, PLACE
from postgrad.scripts.workspace import Workspace
from postgrad.store.artifacts import Artifacts

COMMAND = (sys.executable, "-P", "-m", "postgrad.scripts.worker")
SCORE, SCORE_BYTES, LOG_BYTES = "score.json", 32 << 20, 4 << 20
REFEREE_S = 600.0
READ_ONLY = "Read-only file system"
_FILE = re.compile(rf"(?P<what>{READ_ONLY}|No such file or directory): '(?P<name>[^']+)'")
# A sandbox that counts processes itself refuses the next one, and the script's own traceback is all that says so.
_NO_MORE = re.compile(r"fork.*^BlockingIOError: \[Errno 11\]", re.DOTALL | re.MULTILINE)


class RunningScript(RunningJob):
    """An experiment of a script under way: the script, and after it the referee."""

    def __init__(self, spec: JobSpec, executor: ScriptExecutor) -> None:
        self.spec = spec
        self._of = executor
        self._folder = executor.scratch / spec.job
        self._tree = str(spec.recipe.stage.params.get("tree", "")) or executor.workspace.baseline
        self._result: JobResult | None = None
        self._ran: Exit | None = None
        self._used, self._again = Usage(), False
        self._known: Mapping[str, tuple[int, str]] = {}
        # What else the machine did: within a fixed time, a busy machine trains less.
        self._beside = {"load_at_start": round(os.getloadavg()[0], 2)}
        with explained(spec.job):
            self._handle: Handle = self._begin()

    def poll(self, timeout: float) -> JobResult | None:
        """The result once both have ended, None while one runs after `timeout` seconds."""
        with explained(self.spec.job):
            if self._result is None:
                ended = self._handle.wait(timeout)
                if ended is None and self._ran is None and self._of.watched:
                    self.curve.look()
                if ended is not None and not self._begun_again(ended):
                    self._used = self._used.plus(ended.usage)
                    self._result = self._measured(ended) if self._ran else self._ended(ended)
                if self._result is not None:
                    remove_tree(self._folder)
        return self._result

    def _begun_again(self, ended: Exit) -> bool:
        """Let a script, or its referee, that was killed from outside begin anew, once."""
        if self._again or not killed_from_outside(ended, self.spec.limits):
            return False
        self._again = True
        if self._ran is None:
            self._handle = self._begin()
        else:
            remove_tree(self._folder / "referee")
            if self._judge(self._folder / "run" / CHECKOUT) is not None:
                return False
        self._used = self._used.plus(ended.usage)
        return True

    def stop(self) -> None:
        """End what runs. Idempotent."""
        with explained(self.spec.job):
            self._handle.stop()

    def cut(self, race: Race) -> JobResult:
        """End the script on its way: what it used, and what it would have come to."""
        with explained(self.spec.job):
            self._handle.stop()
            ended = self._handle.wait(0.0)
            usage = self._used.plus(ended.usage if ended else Usage(wall_s=time.monotonic() - self._begun))
            log = self._folder / "run" / "log.txt"
            self._result = JobResult(job=self.spec.job, usage=usage, log_tail=_tail(log), race=race)
            remove_tree(self._folder)
        return self._result

    def used(self) -> Usage:
        """What script and referee have used, once they have ended or were stopped."""
        ended = self._handle.wait(0) if self._result is None else None
        return self._used if ended is None else self._used.plus(ended.usage)

    def progress(self) -> str:
        """What the script said last, for a person."""
        if self._ran is not None:
            return "the referee measures"
        lines = read_tail(self._folder / "run" / "log.txt", 2_000).strip().splitlines()
        return plain_text(lines[-1].rpartition("\r")[2], 100) if lines else "starting"

    # --- the script -----------------------------------------------------------------------------------------------

    def _begin(self) -> Handle:
        self._of.remove(self._folder)
        folder = self._folder / "run"
        work, script = folder / CHECKOUT, self._of.script
        self._of.workspace.checkout(self._tree, work)
        for leaf in script.leaves:  # A result of an earlier run that lies in the source is no result of this one.
            _remove(work / leaf)
        self._known = _hashes(work, self._of.protected)
        setting = setting_of(script, self.spec.units[0].name)
        told = {"POSTGRAD_SEED": str(self.spec.units[0].seed), "POSTGRAD_TIME_S": f"{setting.time_s:g}"}
        self._begun = time.monotonic()
        self.curve = Curve(folder / "log.txt", setting.time_s, self._begun)
        return self._start(folder, setting.command, told, list(self._known))

    def _ended(self, ended: Exit) -> JobResult | None:
        """What is wrong with how the script ended; None where the referee is asked now."""
        self._ran = ended
        self._beside["load_at_end"] = round(os.getloadavg()[0], 2)
        folder = self._folder / "run"
        failure = self._wrong(ended, folder / "log.txt")
        if failure is not None and failure.kind == "crash":
            failure = self._named(failure)
        if failure is None and (changed := _changed(folder / CHECKOUT, self._known)):
            failure = isolation("changed_protected", f"The script changed {changed}, which is protected")
        if failure is None and not self._of.script.trusted:
            return self._said(folder / "log.txt")
        if failure is None:
            failure = self._judge(folder / CHECKOUT)
        return None if failure is None else self._done(failure=failure)

    def _named(self, crash: Failure) -> Failure:
        """A crash that is no fault of the training: the script wanted what is kept from it."""
        if _NO_MORE.search(crash.evidence):
            said = "The script wanted to start more processes than it may."
            return crash.model_copy(update={"boundary": "resource", "kind": "flood", "message": said})
        found = _FILE.search(crash.evidence)
        if found is None:
            return crash
        name = found["name"].removeprefix("./").removeprefix(f"{(self._folder / 'run' / CHECKOUT).resolve()}/")
        if found["what"] == READ_ONLY and name in self._known:
            said = f"The script wanted to change {name}, which is protected"
            return isolation("changed_protected", said).model_copy(update={"evidence": crash.evidence})
        if found["what"] != READ_ONLY and name in self._of.script.hidden.values():
            said = f"The script wanted to read {name}, which only the referee sees"
            return isolation("hidden_file", said).model_copy(update={"evidence": crash.evidence})
        return crash

    def _said(self, log: Path) -> JobResult:
        """The script's own word for its number."""
        script = self._of.script
        try:
            return self._done(printed(read_tail(log, LOG_BYTES), script.printed, self._of.sign))
        except BadScore as wrong:
            return self._done(failure=Failure(boundary="predict", kind="no_score", message=f"In the output {wrong}."))

    # --- the referee ----------------------------------------------------------------------------------------------

    def _judge(self, left: Path) -> Failure | None:
        """Start the referee on what was left; what is wrong with that, if anything."""
        folder = self._folder / "referee"
        work, script = folder / CHECKOUT, self._of.script
        split = setting_of(script, self.spec.units[0].name).split
        self._of.workspace.checkout(self._of.workspace.baseline, work)
        for leaf in script.leaves:
            _remove(work / leaf)
        _remove(work / SCORE)
        if (wrong := hand_over(left, script.leaves, work)) is not None:
            return wrong
        hidden = folder / "hidden"
        if script.hidden:
            shutil.copytree(self._of.hidden(split), hidden)
        told = {"POSTGRAD_SPLIT": split, PLACE + "POSTGRAD_HIDDEN": hidden.name}
        self._handle = self._start(folder, script.referee, told, [], limit_s=REFEREE_S)
        return None

    def _measured(self, ended: Exit) -> JobResult:
        """The referee's number, or why there is none."""
        folder = self._folder / "referee"
        wrong = self._wrong(ended, folder / "log.txt")
        if wrong is not None:
            said = f"The referee gave no number: {wrong.message}"
            kind = wrong.kind if wrong.boundary == "controller" else "referee"
            return self._done(failure=wrong.model_copy(update={"boundary": "evaluate", "kind": kind, "message": said}))
        try:
            return self._done(written(read_regular(folder / CHECKOUT / SCORE, SCORE_BYTES), self._of.sign))
        except (OSError, Refused, BadScore) as error:
            said = f"The referee gave no number: {error if isinstance(error, BadScore) else 'it wrote no score.json'}."
            return self._done(failure=Failure(boundary="evaluate", kind="no_score", message=said))

    # --- both -----------------------------------------------------------------------------------------------------

    def _start(
        self, folder: Path, command: Sequence[str], told: Mapping[str, str], inputs: Sequence[str], limit_s: float = 0.0
    ) -> Handle:
        facts = {
            "units": [],
            "command": list(command),
            "environment": dict(told),
            "inputs": [f"{CHECKOUT}/{name}" for name in inputs],
        }
        (folder / "job.json").write_text(json.dumps(facts), encoding="utf-8")
        limits = self.spec.limits.model_copy(update={"wall_s": limit_s}) if limit_s else self.spec.limits
        if limits.allowed is not None:  # What the script has used is not the referee's any more.
            limits = limits.model_copy(update={"allowed": limits.allowed.less(self._used)})
        return self._of.engine.start(folder.resolve(), limits)

    def _wrong(self, ended: Exit, log: Path) -> Failure | None:
        for kind, what in ended.refused:
            text = REFUSED.get(kind, "The job tried what it may not do: {}.")
            return isolation(kind if kind in REFUSED else "forbidden", text.format(plain_text(what, 400)))
        failure = bad_end(ended, self.spec.limits)
        return failure.model_copy(update={"evidence": _tail(log)}) if failure else None

    def _done(self, numbers: dict[str, float] | None = None, failure: Failure | None = None) -> JobResult:
        assert self._ran is not None
        log = self._folder / "run" / "log.txt"
        units: tuple[UnitResult, ...] = ()
        model = None
        if numbers is not None:
            unit = self.spec.units[0].name
            outputs = self._of.artifacts.put_bytes(stored(numbers))
            measured = self._beside | self.curve.measured
            units = (UnitResult(name=unit, outputs=outputs, wall_s=self._ran.usage.wall_s, measured=measured),)
            model = self._kept() if self.spec.save_model else None
        if failure is not None and not failure.evidence:
            failure = failure.model_copy(update={"evidence": _tail(log)})
        # Where the referee measured says nothing of how far the training got.
        usage = self._used.model_copy(update={"hardware": self._ran.usage.hardware})
        return JobResult(
            job=self.spec.job,
            units=units,
            model=model,
            usage=usage,
            failure=failure,
            log_tail=_tail(log),
            made_on=self._ran.made_on,
        )

    def _kept(self) -> str:
        """The artefact of the files of the experiment with what it left."""
        folder = self._folder / "kept"
        self._of.workspace.checkout(self._tree, folder)
        for leaf in self._of.script.leaves:
            _remove(folder / leaf)
        hand_over(self._folder / "run" / CHECKOUT, self._of.script.leaves, folder)
        for place in list(folder.rglob("*")):  # The store keeps files, and a link only as the file that it leads to.
            if place.is_symlink() and not place.is_file():
                place.unlink()
        return self._of.artifacts.put_folder(folder)


class ScriptExecutor(Executor):
    """Starts experiments of one script on an engine that is open.

    Args:
        protected: paths of the files that no experiment may change.
        hidden: split -> folder with what the referee measures on.
    """

    def __init__(self, engine: Engine, artifacts: Artifacts, scratch: Path, script: ScriptSpec) -> None:
        super().__init__(engine, artifacts, scratch)
        self.script = script
        self.sign = -1.0 if script.direction == "min" else 1.0
        self._workspace: Workspace | None = None
        self.protected: tuple[str, ...] = ()

    def attach(self, workspace: Workspace, protected: Sequence[str]) -> None:
        """From here on experiments are commits of this repository."""
        self._workspace, self.protected = workspace, tuple(protected)

    @property
    def workspace(self) -> Workspace:
        assert self._workspace is not None, "the repository is there before anything is run"
        return self._workspace

    @property
    def watched(self) -> bool:
        """Whether jobs run on this machine from the moment that they are started: else what they print at a moment
        cannot be compared."""
        return self.engine.memory_mb is not None

    def hidden(self, split: str) -> Path:
        """The folder with the hidden file of a split; that of the search where a split has none of its own."""
        own = self.workspace.hidden(split)
        return own if own.is_dir() else self.workspace.hidden("search")

    def start(self, spec: JobSpec, inputs: Inputs) -> RunningScript:
        """Start an experiment, from its beginning.

        Raises:
            PostgradError: the folder cannot be written, or the engine cannot start a process.
        """
        return RunningScript(spec, self)


def _tail(log: Path) -> str:
    return "\n".join(read_tail(log, TAIL_BYTES).strip().splitlines()[-TAIL_LINES:])


def _remove(place: Path) -> None:
    if place.is_symlink() or place.is_file():
        place.unlink()
    elif place.is_dir():
        remove_tree(place)


def _hashes(folder: Path, names: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Path -> size and sha256 of the protected files of a checkout."""
    there = (folder / name for name in names if (folder / name).is_file() and not (folder / name).is_symlink())
    return {path.relative_to(folder).as_posix(): (path.stat().st_size, _digest(path)) for path in there}


def _changed(folder: Path, known: Mapping[str, tuple[int, str]]) -> str:
    """The first protected file that is not what it was; "" where all are. Only one of the right size is read: a script
    can make a file of any size."""
    for name, (size, digest) in known.items():
        path = folder / name
        try:
            plain = path.is_file() and not path.is_symlink() and path.stat().st_size == size
            same = plain and _digest(path) == digest
        except OSError:
            same = False
        if not same:
            return name
    return ""


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
