"""How Slurm's answers are read: columns, states, times, devices, and what to do about its errors. As 22.05 prints them;
what a later version adds is left to the lease."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterator, Sequence

from postgrad.engines.remote.cluster import Capacity, State, Status

# What squeue is asked for, and the width of each column: wide ones are cut off, never wrapped.
COLUMNS = {"Name": 128, "JobID": 24, "State": 24, "RestartCnt": 12, "NodeList": 128, "Reason": 128, "exit_code": 12}
WAITING = {"PENDING", "CONFIGURING", "REQUEUE_FED", "RESV_DEL_HOLD", "SUSPENDED", "STOPPED"}
RUNNING = {"RUNNING", "COMPLETING", "SIGNALING", "RESIZING", "STAGE_OUT"}
# Slurm wanted the node back, or the time that it gives was over: no fault of the node.
TAKEN_AWAY = {"PREEMPTED", "TIMEOUT", "DEADLINE", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT"}
# A job that waits for one of these waits for ever.
NEVER = re.compile(
    r"BadConstraints|DependencyNeverSatisfied|PartitionTimeLimit|PartitionNodeLimit|AccountNotAllowed|QOSNotAllowed"
    r"|InvalidAccount|InvalidQOS|\w*Max\w+PerJob\w*"
)
# States of nodes that take jobs, now or when what they do is done.
UP = {"idle", "mixed", "allocated", "completing", "reserved", "planned", "resv", "alloc", "mix", "comp", "plnd"}
ADVICE = (
    ("partition", "Set engine.partition to one of those that `sinfo` lists."),
    ("qos", "Set engine.options.qos to one that you may use: sacctmgr show assoc user=$USER format=qos%60"),
    ("QOS", "Ask for less in `engine`, or set engine.options.qos: sacctmgr show qos"),
    ("account", "Set engine.options.account to one of yours: sacctmgr show assoc user=$USER format=account"),
    ("Memory", "No node is so large: lower engine.memory_mb, or name another partition."),
    ("node configuration", "No node is so large: lower engine.threads, memory_mb or gpus, or name another partition."),
    ("gres", "Set engine.gpus, or engine.options.gres as `sinfo -o %G` names the devices."),
    ("feature", "Set engine.options.constraint to one of those that `sinfo -o %f` lists."),
    ("reservation", "Set engine.options.reservation to one of those that `scontrol show reservation` lists."),
    ("node name", "Set engine.options.nodelist and exclude to names that `sinfo -N` lists."),
    ("time", "Set engine.options.time as '12:00:00', or lower engine.job_wall_s."),
)


@dataclass(frozen=True)
class Found:
    """One job as squeue tells it."""

    name: str
    number: str
    state: str
    restarts: int
    node: str
    reason: str
    code: str

    @property
    def stands(self) -> State:
        """The same in the contract's words. A state that is not known here is left to the lease."""
        if self.state == "PENDING" and (self.restarts > 0 or NEVER.fullmatch(self.reason)):
            return "ended"
        if self.state in WAITING:
            return "waiting"
        ended = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "REVOKED")
        return "ended" if self.state in TAKEN_AWAY or self.state in ended else "running"

    def status(self) -> Status:
        why = "" if self.reason in ("None", "") else f" ({self.reason})"
        code = f", exit code {self.code}" if self.state == "FAILED" else ""
        said = f"Slurm says of job {self.number}: {self.state}{why}{code}."
        return Status(self.stands, self.node, said, preempted=self.state in TAKEN_AWAY)


def jobs(text: str) -> Iterator[Found]:
    """The lines of squeue, cut by the widths that were asked for."""
    for line in text.splitlines():
        cells, start = [], 0
        for width in COLUMNS.values():
            cells.append(line[start : start + width].strip())
            start += width
        name, number, state, restarts, node, reason, code = cells
        if name:
            yield Found(name, number, state, int(restarts) if restarts.isdigit() else 0, node, reason, code)


def minutes(text: str) -> float | None:
    """A time as Slurm writes it: `M`, `M:S`, `H:M:S`, `D-H`, `D-H:M`, `D-H:M:S`; None for none, or no limit."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if match is None:
        return None
    days, *rest = (int(part) if part else 0 for part in match.groups())
    if match.group(1) is not None or match.group(4) is not None:
        return days * 1440 + rest[0] * 60 + rest[1] + rest[2] / 60
    return rest[0] + rest[1] / 60


def capacity(lines: Sequence[Sequence[str]]) -> Capacity:
    """What nodes have: (name, cores, memory, devices, state) of each, perhaps more than once. Those that are down are
    left out, unless all are."""
    nodes = {line[0]: line for line in lines}
    up = [line for line in nodes.values() if re.sub(r"[^a-z]", "", line[4].split("+")[0].lower()) in UP]
    counted = up or list(nodes.values())
    said = f"{len(up)} of {len(nodes)} nodes take jobs"
    return Capacity(
        nodes=len(counted),
        cores=sum(int(re.sub(r"\D.*", "", line[1]) or 0) for line in counted),
        memory_mb=sum(int(re.sub(r"\D.*", "", line[2]) or 0) for line in counted),
        gpus=float(sum(devices(line[3]) for line in counted)),
        said=(said,),
    )


def devices(text: str) -> int:
    """GPUs in a list of devices such as `gpu:a100:4(S:0-1),shard:8`."""
    return sum(int(found) for found in re.findall(r"(?:^|,)gpu(?::[^:,()]+)?:(\d+)", text))


def last(wrong: str) -> str:
    """The last line of an error in Slurm's words."""
    lines = [line for line in wrong.strip().splitlines() if line.strip()]
    return re.sub(r"^\w+: (error: |fatal: )?", "", lines[-1]).rstrip(".") if lines else "it did not say why"


def told(wrong: str) -> str:
    """All lines of an error in Slurm's words, in one."""
    lines = [last(line) for line in wrong.strip().splitlines() if line.strip() and not line.startswith("Try ")]
    return "; ".join(dict.fromkeys(lines[-4:])) or "it did not say why"


def advice(wrong: str) -> str:
    """What to do about a refusal."""
    found = [text for words, text in ADVICE if words in wrong]
    return found[0] if found else "Change `engine` in the task file, and see: man sbatch"
