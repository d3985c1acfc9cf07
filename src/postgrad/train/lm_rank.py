"""One of several processes that train a language model together: torchrun starts it with the folder that `lm_ranks`
wrote. It trains as a single process does; the first one reports, and writes what was trained."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator

from postgrad.train.base import CheckFailed, FitJob, TrainingDiverged, is_out_of_memory
from postgrad.train.lm_checks import Tokens
from postgrad.train.lm_model import load_tokenizer
from postgrad.train.lm_ranks import FAILED, FOR_THE_JOB, ROWS, TOLD, TRAINED, WEIGHTS, Told, fill, is_first, save
from postgrad.train.lm_train import tune, with_adapters
from postgrad.train.lm_tuning import Tuning
from postgrad.train.tuning import repeatable

_PR_SET_PDEATHSIG = 1
# Of a job of several nodes: the folder in which each process says its CPU seconds, and how often it does.
CPU, TELL_S = "POSTGRAD_CPU", 5.0


def tell(name: int | str, value: float) -> None:
    """Tell the job something. In one piece: torchrun starts Python unbuffered, and `print` would write the end of the
    line by itself."""
    sys.stdout.write(f"{FOR_THE_JOB}{json.dumps([name, value])}\n")
    sys.stdout.flush()


def cpu_s() -> float:
    """CPU seconds of this process and of those that it waited for; the first one of a node adds those of its parent,
    torchrun."""
    own = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    seconds = sum(used.ru_utime + used.ru_stime for used in own)
    if os.environ.get("LOCAL_RANK") == "0":
        import psutil

        with suppress(psutil.Error):
            times = psutil.Process(os.getppid()).cpu_times()
            seconds += times.user + times.system
    return seconds


@contextmanager
def counted(every_s: float = TELL_S) -> Iterator[None]:
    """Say meanwhile, and at the end, how much CPU time this process has used, where that is asked for: whoever watches
    over the job sees the processes of its own node only."""
    folder = os.environ.get(CPU)
    if folder is None:
        yield
        return
    place = Path(folder) / f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}"
    ended = threading.Event()

    def say() -> None:
        with suppress(OSError):  # A number that is missing fails no training.
            unfinished = place.with_name(f".{place.name}.part")
            unfinished.write_text(f"{cpu_s():.3f}", encoding="ascii")
            unfinished.replace(place)

    def go_on() -> None:
        while not ended.wait(every_s):
            say()

    teller = threading.Thread(target=go_on, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
        say()


def model_of(folder: Path, params: Tuning) -> Any:
    """The model of the job, on this process's device; weights that are to be divided stay in main memory until then."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    blank: Any = AutoModelForCausalLM
    model = blank.from_config(config, dtype=torch.float32)
    if params.adapters:
        model = with_adapters(model, params)
    fill(model, folder / WEIGHTS)
    if torch.cuda.is_available():
        own = int(os.environ["LOCAL_RANK"])
        torch.cuda.set_device(own)
        model = model if params.shard else model.to(f"cuda:{own}")
    return model.train()


def train(folder: Path, told: Told) -> None:
    """Train, and write the weights that were moved."""
    params, base, first = Tuning.model_validate(told.params), Path(told.base), is_first()
    job = FitJob(
        rows=(),
        labels=("labels",) if told.labelled else (),
        out_of_scope=None,
        params=params,
        base_model=base,
        seed=told.seed,
        threads=told.threads,
        checkpoint=folder,
        report=tell if first else lambda step, loss: None,
        calibration=told.calibration,
        most_s=told.most_s,
        measure=tell if first else None,
    )
    rows = [Tokens(tuple(ids), tuple(labels)) for ids, labels in json.loads((folder / ROWS).read_text("utf-8"))]
    with repeatable(told.seed, told.threads):
        model = model_of(folder, params)
        tune(job, params, model, load_tokenizer(base), rows, told.bf16, told.packing, told.in_order)
        trained = {name: _whole(weight) for name, weight in model.named_parameters() if weight.requires_grad}
    if first:
        save(trained, folder / TRAINED)


def _whole(weight: Any) -> Any:
    """All of a weight of which this process may hold a part."""
    return weight.full_tensor() if hasattr(weight, "full_tensor") else weight


def main(arguments: list[str]) -> int:
    """Run one of the processes."""
    if sys.platform == "linux":  # torchrun starts it in a session of its own, which nobody ends.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    folder = Path(arguments[0])
    if not is_first():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the process ends
    try:
        with counted():
            train(folder, Told.model_validate_json((folder / TOLD).read_text("utf-8")))
    except (TrainingDiverged, CheckFailed, RuntimeError, MemoryError, OSError) as error:
        kind = MemoryError.__name__ if is_out_of_memory(error) else type(error).__name__
        of = error.kind if isinstance(error, CheckFailed) else ""
        found = [kind, of, str(error)]
        (folder / f"{FAILED}-{os.environ.get('RANK', '0')}").write_text(json.dumps(found), encoding="utf-8")
        if isinstance(error, TrainingDiverged | CheckFailed):
            return 1
        raise  # With its traceback, for the log.
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
