"""Several processes that train one language model together: one for each device of a job, started by torchrun.

Each holds the whole model and goes through its part of every batch (DDP), or holds a part of the weights (`shard`: FSDP
of torch, "fully_shard"). What is trained, in which order and with which gradient is the same as with one process, up to
rounding. The job itself keeps the model in main memory meanwhile, and takes the weights back at the end.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Sequence

from postgrad.records import Record
from postgrad.train.base import CheckFailed, FitJob, TrainingDiverged
from postgrad.train.lm_checks import Tokens
from postgrad.train.lm_launch import PARENT
from postgrad.train.lm_tuning import Tuning

PROGRAM, LAUNCH = "postgrad.train.lm_rank", "postgrad.train.lm_launch"
TOLD, ROWS, WEIGHTS, TRAINED, FAILED = "told.json", "rows.json", "weights.safetensors", "trained.safetensors", "failed"
#: Stands before what the first process has for the job and not for its log.
FOR_THE_JOB = "@postgrad "
LINES = 40
# Of torchrun's report: not the SIGTERM that it sends the others itself, nor the SIGABRT with which NCCL ends them.
_KILLED = re.compile(r"Signal \d+ \(SIG(?:KILL|SEGV|BUS|ILL|FPE)\)")


class Told(Record):
    """What each process is told beside rows and weights.

    Attributes:
        base: the folder of the base model, for its tokenizer.
        calibration, most_s: as of the job.
    """

    params: dict[str, Any]
    base: str
    seed: int
    threads: int
    labelled: bool
    bf16: bool
    packing: bool
    in_order: bool
    calibration: dict[str, float]
    most_s: float | None


def world() -> int:
    """How many processes train together with this one, itself included."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def nodes() -> int:
    """How many nodes the job has, itself on the first of them."""
    return int(os.environ.get("POSTGRAD_NODES", "1"))


def is_first() -> bool:
    """True for the one of them that reports and keeps."""
    return int(os.environ.get("RANK", "0")) == 0


def agreed(value: Any) -> Any:
    """What the first of the processes says. Each has to ask at the same point."""
    if world() == 1:
        return value
    import torch.distributed as dist

    said = [value]
    dist.broadcast_object_list(said, src=0)
    return said[0]


def together() -> None:
    """Wait until each of the processes is here."""
    if world() > 1:
        import torch.distributed as dist

        dist.barrier()


def count(job: FitJob, params: Tuning, batch: int, device: str) -> int:
    """How many processes train together: what the recipe says, else one for each device of the job, as many as
    divide a batch evenly.

    Raises:
        CheckFailed: so many cannot be had, or cannot train so.
    """
    if world() > 1:
        return 1  # This is one of them.
    import torch

    devices = torch.cuda.device_count() if device == "cuda" else 0
    many = nodes()
    # A job that was granted none sees all, and others may train on them.
    granted = max(1, devices) if "CUDA_VISIBLE_DEVICES" in os.environ else 1
    even = [n for n in range(1, granted + 1) if batch % (many * n) == 0] if batch % many == 0 else []
    wanted = params.ranks or (1 if params.tune == "qlora" else many * max(even, default=0)) or 1
    if params.shard and device != "cuda":
        raise CheckFailed("ranks", "shard: true divides the weights among GPUs, and this job has none. Leave it out.")
    if wanted == 1:
        return 1
    there, what = (many * devices, "GPUs") if device == "cuda" else (many * job.threads, "threads")
    if wanted > there:
        raise CheckFailed("ranks", f"ranks: {wanted} needs as many {what}, and this job has {there}. {_how(device)}")
    if batch % wanted:
        raise CheckFailed("ranks", f"ranks: {wanted} does not divide a batch of {batch} rows. Change one of them.")
    if wanted % many:
        raise CheckFailed("ranks", f"ranks: {wanted} cannot be divided evenly among {many} nodes. Change one of them.")
    if params.tune == "qlora":
        raise CheckFailed("ranks", "tune: qlora trains on one device. Set ranks: 1, or tune: lora.")
    return wanted


def _how(device: str) -> str:
    return f"Set ranks lower, or engine.{'gpus' if device == 'cuda' else 'threads'} higher."


def train_together(
    job: FitJob,
    params: Tuning,
    model: Any,
    rows: Sequence[Tokens],
    ranks: int,
    identity: str,
    told: tuple[bool, bool, bool],
) -> None:
    """Train the weights of `model` that require a gradient, in so many processes. One that was killed goes on from the
    newest checkpoint that all of them had written.

    Args:
        identity: of the training; what an earlier one left is not gone on from.
        told: bf16, packing, in_order, as `tune` has them.

    Raises:
        TrainingDiverged, CheckFailed, MemoryError: what one of the processes found.
        RuntimeError: one of them ended otherwise; with its last lines.
    """
    folder = job.checkpoint / f"ranks-{identity[:12]}"
    _prepare(folder, job, params, model, rows, ranks, told)
    device = model.device
    model.to("cpu")  # The first process has the same device.
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
    _run(folder, job, ranks)
    fill(model, folder / TRAINED)
    model.to(device)
    shutil.rmtree(folder, ignore_errors=True)


def _prepare(
    folder: Path,
    job: FitJob,
    params: Tuning,
    model: Any,
    rows: Sequence[Tokens],
    ranks: int,
    told: tuple[bool, bool, bool],
) -> None:
    """What the processes begin with. `told.json` is last: a folder that holds it is complete."""
    for other in job.checkpoint.glob("ranks-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    for left in folder.glob(f"{FAILED}-*"):
        left.unlink()
    if (folder / TOLD).exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    plain = model.get_base_model() if params.adapters else model
    plain.config.save_pretrained(str(folder))
    save(dict(model.named_parameters()), folder / WEIGHTS)
    (folder / ROWS).write_text(json.dumps([[row.ids, row.labels] for row in rows]), encoding="utf-8")
    bf16, packing, in_order = told
    facts = Told(
        params=Tuning.model_validate(
            {name: getattr(params, name) for name in Tuning.model_fields} | {"ranks": 1}
        ).model_dump(mode="json"),
        base=str(job.base_model),
        seed=job.seed,
        threads=_threads(job, ranks),
        labelled=bool(job.labels),
        bf16=bf16,
        packing=packing,
        in_order=in_order,
        calibration=dict(job.calibration),
        most_s=job.most_s,
    )
    unfinished = folder / f"{TOLD}.part"
    unfinished.write_text(facts.model_dump_json(), encoding="utf-8")
    unfinished.replace(folder / TOLD)


def _threads(job: FitJob, ranks: int) -> int:
    """Threads of each process: the job has as many on each of its nodes."""
    return max(1, job.threads * nodes() // ranks)


def _command(job: FitJob, ranks: int, name: str) -> list[str]:
    """torchrun on this machine, over its loopback; or on every node of the job, by Slurm's own start of parallel
    programs, where the nodes meet on this one.

    On one machine torchrun keeps its state in a file that only this user can read: it unpickles what it finds there,
    and a port would be open to everybody where no sandbox has a network of its own."""
    program = LAUNCH if nodes() == 1 else "torch.distributed.run"  # Slurm ends its own.
    torchrun = [sys.executable, "-m", program, f"--nproc-per-node={ranks // nodes()}"]
    torchrun += ["--max-restarts=0", "--rdzv-backend=c10d"]
    if nodes() == 1:
        return [*torchrun, "--rdzv-conf=store_type=file", "--local-addr=127.0.0.1"]
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    meeting = [f"--nnodes={nodes()}", f"--rdzv-id={name}", f"--rdzv-endpoint={socket.gethostname()}:{port}"]
    each = [f"--nodes={nodes()}", f"--ntasks={nodes()}", "--ntasks-per-node=1", f"--cpus-per-task={job.threads}"]
    return [os.environ["POSTGRAD_SRUN"], *each, "--overlap", "--kill-on-bad-exit=1", *torchrun, *meeting]


def _run(folder: Path, job: FitJob, ranks: int) -> None:
    """Train in so many processes, and wait for them."""
    threads = _threads(job, ranks)
    own = {"OMP_NUM_THREADS": str(threads)} | ({"GLOO_SOCKET_IFNAME": "lo"} if nodes() == 1 else {})
    where = f" on {nodes()} nodes" if nodes() > 1 else ""
    print(f"training in {ranks} processes{where}, {threads} threads each", flush=True)
    last: list[str] = []
    with subprocess.Popen(
        [*_command(job, ranks, folder.name), "-m", PROGRAM, str(folder)],
        env=os.environ | own | {PARENT: str(os.getpid())},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if rest := _heard(job, line):
                print(rest, end="", flush=True)
                last = [*last, rest][-LINES:]
    if process.returncode:
        _raise(folder, process.returncode, last)


def _heard(job: FitJob, line: str) -> str:
    """Pass on what a line has for the job; the rest of it, which is another process's where both wrote at once."""
    before, mark, after = line.partition(FOR_THE_JOB)
    if not mark:
        return line
    try:
        (name, value), end = json.JSONDecoder().raw_decode(after)
    except ValueError:
        return line
    if isinstance(name, int):
        job.report(name, value)
    elif job.measure is not None:
        job.measure(name, value)
    return rest if (rest := before + after[end:]).strip() else ""


def _raise(folder: Path, code: int, last: Sequence[str]) -> None:
    """What the processes found, as one process would have raised it; of several the first, for where one fails, the
    others lose their connection to it, which is no cause."""
    said = sorted(folder.glob(f"{FAILED}-*"), key=lambda path: path.stat().st_mtime_ns)
    found = [json.loads(path.read_text(encoding="utf-8")) for path in said]
    for kind, of, message in found:
        if kind == TrainingDiverged.__name__:
            raise TrainingDiverged(message)
        if kind == CheckFailed.__name__:
            raise CheckFailed(of, message)
        if kind == MemoryError.__name__:
            raise MemoryError(message)
    if (killed := _KILLED.search("".join(last))) is not None:  # That one could say nothing itself.
        raise RuntimeError(f"one of the processes that train together was ended: {killed[0]}")
    if found:
        kind, _, message = found[0]
        raise RuntimeError(f"one of the processes that train together failed: {kind}: {message}")
    raise RuntimeError(f"the processes that train together ended with code {code}:\n{''.join(last)}")


def save(tensors: dict[str, Any], path: Path) -> None:
    """Write tensors by name, whole or not at all."""
    from safetensors.torch import save_file

    unfinished = path.with_name(f"{path.name}.part")
    save_file({name: each.detach().cpu().contiguous() for name, each in tensors.items()}, str(unfinished))
    unfinished.replace(path)


def fill(model: Any, path: Path) -> None:
    """Put tensors into the weights of their names."""
    from safetensors.torch import load_file

    tensors, weights = load_file(str(path)), dict(model.named_parameters())
    for name, tensor in tensors.items():
        weights[name].data.copy_(tensor)
