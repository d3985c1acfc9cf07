"""The folder `final_model`: a copy of the base first, the champion's weights in its place at the end.

At no moment is there half a model under that name: a model is written beside it and takes its place in one step.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path

from postgrad.contest.evaluator import environment, run_program
from postgrad.contest.folder import Contest
from postgrad.errors import UserError
from postgrad.store.artifacts import sync_folder
from postgrad.train.models import WANTED

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
AT_FDCWD, RENAME_EXCHANGE = -100, 2
CHECK = Path(__file__).with_name("loads.py")


def put_base(base: Path, final: Path) -> None:
    """Make `final` a copy of the base: weights, configuration, tokenizer, chat template."""
    part = _fresh(final)
    _copy(base, part, leave_out=())
    _publish(part, final)


def put_champion(base: Path, tuned: Path, final: Path) -> None:
    """Make `final` the base with the weights of `tuned`.

    All but the weights is the base's own, so that tokenizer, chat template and processors are those that the evaluator
    knows. In the configuration only the number format is that of the weights.

    Raises:
        UserError: `tuned` holds no weights.
    """
    weights = [path for pattern in WEIGHTS for path in sorted(tuned.glob(pattern))]
    if not weights:
        raise UserError(f"{tuned} holds no weights in safetensors.")
    part = _fresh(final)
    _copy(base, part, leave_out=WEIGHTS)
    for path in weights:
        _copy_file(path, part / path.name)
    config, own = (json.loads((folder / "config.json").read_text(encoding="utf-8")) for folder in (base, tuned))
    key = "torch_dtype" if "torch_dtype" in config else "dtype"
    config[key] = own.get("dtype", own.get("torch_dtype"))
    (part / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf-8")
    _publish(part, final)


def recover(final: Path) -> None:
    """Put right what a kill left: half a model goes, and a whole one that was moved aside comes back."""
    aside = _aside(final)
    if not final.exists() and aside.is_dir():
        aside.rename(final)
    for left in (_part(final), aside):
        shutil.rmtree(left, ignore_errors=True)


def problems_of(contest: Contest, base: Path, final: Path, seconds: float) -> list[str]:
    """Load `final` with plain transformers in a fresh process and compare it with the base; what is wrong, in words."""
    log = contest.work / "loads.log"
    command = [sys.executable, "-P", str(CHECK), str(base), str(final)]
    env = environment(contest.work) | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    code = run_program(command, contest.work, env, log, seconds)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    if code is None:
        return [f"it did not load in {seconds:.0f} s"]
    try:
        return [str(each) for each in json.loads(lines[-1])["problems"]]
    except (IndexError, ValueError, KeyError, TypeError):
        return [f"the process that loads it ended with exit code {code}: {(lines or ['it said nothing'])[-1][:300]}"]


def _part(final: Path) -> Path:
    return final.with_name(f".{final.name}.part")


def _aside(final: Path) -> Path:
    return final.with_name(f".{final.name}.aside")


def _fresh(final: Path) -> Path:
    part = _part(final)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    return part


def _copy(source: Path, to: Path, leave_out: tuple[str, ...]) -> None:
    for path in sorted(source.iterdir()):
        taken = any(fnmatch(path.name, pattern) for pattern in WANTED)
        if taken and path.is_file() and not any(fnmatch(path.name, pattern) for pattern in leave_out):
            _copy_file(path, to / path.name)


def _copy_file(source: Path, to: Path) -> None:
    with source.open("rb") as read, to.open("wb") as write:
        shutil.copyfileobj(read, write, 1 << 20)
        write.flush()
        os.fsync(write.fileno())


def _publish(part: Path, final: Path) -> None:
    sync_folder(part)
    if not final.exists():
        part.rename(final)
    elif not _exchanged(part, final):
        aside = _aside(final)
        shutil.rmtree(aside, ignore_errors=True)
        final.rename(aside)
        part.rename(final)
        shutil.rmtree(aside)
    sync_folder(final.parent)
    shutil.rmtree(part, ignore_errors=True)


def _exchanged(part: Path, final: Path) -> bool:
    """Let two folders change names in one step, where the system can (Linux, renameat2)."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "renameat2"):
        return False
    done = library.renameat2(AT_FDCWD, os.fsencode(part), AT_FDCWD, os.fsencode(final), RENAME_EXCHANGE)
    return int(done) == 0
