"""Slurm, by its own commands: sbatch, squeue, scancel, sinfo, scontrol. No library, and no accounting is needed.

One job for each attempt, known by its name. It is never requeued by Slurm (`--no-requeue`): its lease is taken, so the
same job would find that it was delivered twice; the engine asks for the next attempt, which goes on from the last one.
Nothing of a person's reaches a shell: the script that Slurm gets is three kinds of words, each quoted.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import subprocess
import time
from contextlib import suppress
from typing import Iterable, Iterator, Mapping, Sequence

from postgrad.engines.local import WORKER
from postgrad.engines.remote.cluster import Capacity, Request, Status, Unreachable
from postgrad.engines.remote.engine import RemoteEngine
from postgrad.engines.slurm_words import COLUMNS, Found, advice, capacity, jobs, last, minutes, told
from postgrad.errors import UserError, near_miss
from postgrad.records import EngineSpec

PATIENCE_S = 30.0
# Slurm sends the signal up to a minute early: it looks at time limits every half minute.
SIGNAL = "B:TERM@30"
# For the program that watches over a job, so that the job's own limit is what ends it.
SPARE_MB = 512
LOG_BYTES = 1 << 16
HELD_AGAIN_S = 30.0
# A job that was asked to end has so long before Slurm ends it. Its node needs 2 s where it does not count any more.
POLITE_S = 8.0
# All that `sbatch`, and with it the job, sees of the environment here: no key of the person.
KEPT = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LD_LIBRARY_PATH", "SLURM_CONF")
# Options of sbatch that a task may set. Those that name a job, its files or its signals are the engine's.
OPTIONS = (
    "account", "begin", "comment", "constraint", "core-spec", "cpu-freq", "exclude", "exclusive", "gpu-bind",
    "gpu-freq", "gpus", "gpus-per-node", "gres", "gres-flags", "hint", "licenses", "mail-type", "mail-user", "mem",
    "mem-per-cpu", "mem-per-gpu", "mincpus", "network", "nice", "nodelist", "prefer", "priority", "qos", "reservation",
    "sockets-per-node", "switches", "threads-per-core", "time", "tmp", "wckey",
)  # fmt: skip
OURS = {
    "partition": "engine.partition", "nodes": "engine.nodes", "cpus-per-task": "engine.threads",
    "job-name": "the engine", "requeue": "the engine", "no-requeue": "the engine", "signal": "the engine",
    "output": "the engine", "error": "the engine", "chdir": "the engine", "export": "the engine",
    "array": "the engine", "wrap": "the engine", "ntasks": "the engine",
}  # fmt: skip
BARE = ("", "yes", "true")
NAME = re.compile(r"[A-Za-z0-9._-]{1,120}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
TOO_MANY = "MaxSubmit"
PASSING = (
    "Unable to contact", "timed out", "Timed out", "Connection refused", "temporarily", "Zero Bytes", "communication",
    "Unexpected message received", "controller not responding", "Protocol authentication error", "backup controller",
)  # fmt: skip


class SlurmCluster:
    """The cluster of the machine that this runs on: a login node, or any other that has Slurm's commands."""

    def __init__(self) -> None:
        self._spec = EngineSpec()
        self._longest_min: float | None = None
        self._logs: dict[str, str] = {}
        self._held: dict[str, tuple[Request, float]] = {}
        self._ending: dict[str, float] = {}

    def open(self, spec: EngineSpec) -> Capacity:
        if wrong := complaints(spec):
            raise UserError("\n".join(wrong))
        self._spec = spec
        try:
            lines = list(self._sinfo("%R|%l|%N|%c|%m|%G|%T", spec.partition))
            known = sorted({line[0] for line in self._sinfo("%R", None)})
        except Unreachable as silent:
            raise UserError(f"{silent} Run Postgrad where `sinfo` answers, or wait until it does.") from silent
        wanted = spec.partition.split(",") if spec.partition else []
        if strange := [name for name in wanted if name not in known]:
            hint = near_miss(strange[0], known)
            raise UserError(
                f"engine.partition is '{strange[0]}', which Slurm does not know.{hint} Known: {', '.join(known)}."
            )
        limits = [found for line in lines if (found := minutes(line[1])) is not None]
        self._longest_min = min(limits, default=None)
        return capacity([line[2:] for line in lines])

    def submit(self, request: Request) -> None:
        self._logs[request.name] = request.log
        known = self._found([request.name])
        if known and (request.name not in self._held or any(found.stands != "ended" for found in known)):
            self._held.pop(request.name, None)
            return
        code, said, wrong = self._run(self.command(request), script(request))
        if code == 0:
            self._held.pop(request.name, None)
        elif TOO_MANY in wrong:
            self._held[request.name] = (request, time.monotonic())
        elif any(words in wrong for words in PASSING):
            raise Unreachable(f"Slurm did not take the job: {last(wrong)}")
        else:
            raise UserError(f"Slurm refuses the job: {told(wrong)}. {advice(wrong)}")

    def statuses(self, names: Sequence[str]) -> Mapping[str, Status]:
        self._try_held()
        now = time.monotonic()
        if late := [name for name, asked in self._ending.items() if now - asked > POLITE_S]:
            self._end_at_once(late)
            self._ending = {name: asked for name, asked in self._ending.items() if name not in late}
        statuses = {name: Status("gone") for name in names}
        order = ("gone", "ended", "waiting", "running")
        for found in self._found(names):
            status = found.status()
            if order.index(status.state) >= order.index(statuses[found.name].state):
                statuses[found.name] = status
        for name in self._held:
            statuses[name] = Status("waiting", said="Slurm takes no more jobs of yours at a time.")
        return statuses

    def logs(self, name: str) -> str:
        path = self._logs.get(name)
        if path is None and (found := self._found([name])):
            _, text, _ = self._run(["scontrol", "--oneliner", "show", "job", found[-1].number])
            match = re.search(r" StdOut=(.*?)(?: Power=| \w+=|$)", text)
            path = match.group(1).strip() if match else None
        try:
            with open(path or os.devnull, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - LOG_BYTES))
                return file.read(LOG_BYTES).decode(errors="replace")
        except OSError:
            return ""

    def cancel(self, name: str) -> None:
        """Ask the program on the node to end its job. A plain scancel signals everything of a job at once, the watcher
        of a sandbox as well, and it would be gone before it could keep what it has; that comes later."""
        self._held.pop(name, None)
        self._scancel(name, "--state=PENDING")
        self._scancel(name, "--batch", "--signal=TERM")
        self._ending.setdefault(name, time.monotonic())

    def close(self) -> None:
        if self._ending:
            with suppress(Unreachable):
                self._end_at_once(self._ending)
        self._ending.clear()

    # --- the commands -------------------------------------------------------------------------------------------------

    def command(self, request: Request) -> list[str]:
        """The call of sbatch. What its file names stand for is taken literally."""
        needs, options = request.resources, self._spec.options
        words = [
            "sbatch", "--parsable", f"--job-name={checked(request.name)}", f"--chdir={request.folder}",
            f"--output={request.log.replace('%', '%%')}", "--open-mode=append", "--input=/dev/null", "--export=ALL",
            "--no-requeue", f"--signal={SIGNAL}", f"--nodes={needs.nodes}", "--ntasks-per-node=1",
            f"--cpus-per-task={needs.cores}", f"--time={self._minutes(request.limit_s)}",
        ]  # fmt: skip
        words += [f"--partition={self._spec.partition}"] if self._spec.partition else []
        if not any(name.startswith("mem") for name in options):
            words.append(f"--mem={needs.memory_mb + SPARE_MB}M")
        if needs.gpus and not {"gres", "gpus", "gpus-per-node"} & set(options):
            words.append(f"--gres=gpu:{math.ceil(needs.gpus)}")
        avoided = [*filter(None, [options.get("exclude")]), *(() if "nodelist" in options else request.avoid)]
        if avoided:
            words.append(f"--exclude={','.join(avoided)}")
        for name, value in options.items():
            if name not in ("time", "exclude"):
                words.append(f"--{name}" if name == "exclusive" and value in BARE else f"--{name}={value}")
        return words

    def _minutes(self, limit_s: float) -> int:
        """What is asked for, in Slurm's minutes: no more than the task or the partition allows. A job that is ended by
        it goes on in the next attempt."""
        allowed = [limit_s / 60, self._longest_min, minutes(self._spec.options.get("time", ""))]
        return max(1, math.ceil(min(each for each in allowed if each is not None)))

    def _scancel(self, name: str, *words: str) -> None:
        code, _, wrong = self._run(["scancel", "--quiet", *words, f"--user={os.getuid()}", f"--name={checked(name)}"])
        if code != 0 and any(words in wrong for words in PASSING):
            raise Unreachable(f"Slurm did not cancel the job: {last(wrong)}")

    def _end_at_once(self, names: Iterable[str]) -> None:
        """Free the nodes of jobs that were asked to end and have not."""
        for found in self._found(list(names)):
            if found.stands != "ended" and found.state != "COMPLETING":
                self._scancel(found.name)

    def _try_held(self) -> None:
        """Submit again what Slurm had no room for: the oldest one, now and then."""
        now = time.monotonic()
        for request, tried in list(self._held.values())[:1]:
            if now - tried >= HELD_AGAIN_S:
                self.submit(request)

    def _found(self, names: Sequence[str]) -> list[Found]:
        """Jobs of these names, the finished ones as well while Slurm remembers them (MinJobAge)."""
        wanted = ",".join(checked(name) for name in names)
        if not wanted:
            return []
        columns = ",".join(f"{name}:{width}" for name, width in COLUMNS.items())
        command = ["squeue", "--noheader", "--states=all", f"--user={os.getuid()}", f"--name={wanted}", f"-O{columns}"]
        code, text, wrong = self._run(command)
        if code != 0:
            raise Unreachable(f"Slurm did not say how jobs stand: {last(wrong)}")
        return [found for found in jobs(text) if found.name in names]

    def _sinfo(self, form: str, partition: str | None) -> Iterator[list[str]]:
        where = [f"--partition={partition}"] if partition else []
        code, text, wrong = self._run(["sinfo", "--noheader", "--Node", *where, f"--format={form}"])
        if code != 0:
            raise Unreachable(f"Slurm did not answer: {last(wrong)}.")
        return (line.split("|") for line in text.splitlines() if line.strip())

    def _run(self, command: Sequence[str], given: str = "") -> tuple[int, str, str]:
        """The exit code of a command, and what it printed to both places.

        Raises:
            Unreachable: it gave no answer in time.
            UserError: it is not here.
        """
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        try:
            done = subprocess.run(
                command, input=given, capture_output=True, text=True, errors="replace", env=kept, timeout=PATIENCE_S
            )
        except FileNotFoundError as missing:
            raise UserError(
                f"There is no `{command[0]}` on this machine. The engine slurm needs Slurm's commands: run Postgrad on "
                "a login node of the cluster, or install slurm-client and its slurm.conf."
            ) from missing
        except subprocess.TimeoutExpired as late:
            raise Unreachable(f"`{command[0]}` gave no answer for {PATIENCE_S:.0f} s.") from late
        return done.returncode, done.stdout, done.stderr


class SlurmEngine(RemoteEngine):
    """Jobs of a run on Slurm.

    Args:
        command: what a job is; the folder of the job follows.
    """

    def __init__(self, command: Sequence[str] = WORKER) -> None:
        super().__init__(SlurmCluster(), command)

    @staticmethod
    def complaints(spec: EngineSpec) -> list[str]:
        """What is wrong with the settings, as far as it is known without a cluster."""
        return complaints(spec)


# --- words ------------------------------------------------------------------------------------------------------------


def complaints(spec: EngineSpec) -> list[str]:
    """What is wrong with the settings, as far as it is known without a cluster."""
    found = []
    if spec.address:
        found.append("engine.address is set, and Slurm has none: its commands find it by slurm.conf. Remove it.")
    if spec.gpus != int(spec.gpus):
        found.append(
            f"engine.gpus is {spec.gpus:g}, and Slurm gives whole devices. Set a whole number, or 0 and "
            "engine.options.gres to a share as your cluster names it, such as 'shard:1' or 'mps:50'."
        )
    if spec.nodes > 1 and spec.sandbox != "none":
        found.append(
            f"engine.nodes is {spec.nodes}: parts of a job on several nodes meet over the cluster's network, and a "
            "sandbox has none. Set engine.sandbox: none, where you trust what runs, or engine.nodes: 1."
        )
    if spec.partition is not None and not re.fullmatch(r"[\w.+@-]+(,[\w.+@-]+)*", spec.partition):
        found.append(f"engine.partition is {spec.partition!r}, and names of partitions were expected, as `sinfo` says.")
    for name, value in spec.options.items():
        if name in OURS:
            found.append(f"engine.options: '{name}' is set by {OURS[name]}. Remove it.")
        elif name not in OPTIONS:
            hint = near_miss(name, OPTIONS)
            found.append(f"engine.options: '{name}' is no option for Slurm.{hint} Known: {', '.join(OPTIONS)}.")
        elif not value.isprintable():
            found.append(f"engine.options.{name} holds characters that cannot be printed. Remove them.")
    if (limit := spec.options.get("time")) is not None and not minutes(limit):
        found.append(f"engine.options.time is '{limit}', and a time was expected, such as '90' minutes or '12:00:00'.")
    return found


def checked(name: str) -> str:
    """A name of a job that means only itself."""
    assert NAME.fullmatch(name), f"{name!r} is no name of a job"
    return name


def script(request: Request) -> str:
    """What Slurm runs. The program takes the place of the shell, so that it is what signals reach first."""
    assert all(VARIABLE.fullmatch(name) for name in request.environment), "names of variables"
    told = [f"export {name}={shlex.quote(value)}" for name, value in request.environment.items()]
    return "\n".join(["#!/bin/sh", *told, f"exec {shlex.join(request.command)}", ""])
