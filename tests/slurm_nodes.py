"""A real Slurm for tests: munged, slurmctld and two slurmd of Debian's packages on loopback, without systemd, cgroups
or accounting. Everything lies in one folder, and nothing is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Callable

import psutil

from free_ports import free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
NODES = ("n1", "n2")
# Devices that are always there stand for GPUs: Slurm hands out numbers, and nothing opens them.
DEVICES = ("/dev/null", "/dev/zero")
CONF = """
ClusterName=postgrad-tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
JobRequeue=1
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=1,sched_interval=5
SlurmdTimeout=20
KillWait=8
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmdPidFile={folder}/%n.pid
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=8000 Gres=gpu:2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 RealMemory=8000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE
PartitionName=one Nodes=n1 MaxTime=INFINITE
"""


def missing() -> str:
    """Why there is no Slurm for tests here; "" where there is one."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if os.geteuid() != 0:
        return "the daemons of Slurm run jobs as other users, and these tests are not run by root"
    if absent:
        return f"not installed: {', '.join(absent)} (apt-get install --no-install-recommends slurm-wlm munge)"
    return ""


class Slurm:
    """The cluster. `conf` is what SLURM_CONF has to name."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.conf = self.folder / "slurm.conf"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start everything, and wait until both nodes take jobs."""
        (self.folder / "state").mkdir()
        host = socket.gethostname().split(".")[0]
        self.conf.write_text(CONF.format(folder=self.folder, host=host, ports=free_ports(3)))
        (self.folder / "gres.conf").write_text(f"NodeName=n1 Name=gpu File={','.join(DEVICES)}\n")
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = ("--key-file=munge.key", "--pid-file=munge.pid", "--log-file=munge.log", "--seed-file=munge.seed")
        places = [f"{name}={self.folder}/{file}" for name, _, file in (each.partition("=") for each in files)]
        self._daemon("munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", *places)
        _until((self.folder / "munge.socket").exists, "munged listens")
        self._daemon("slurmctld", "-D", "-i")
        for node in NODES:
            self.start_node(node)
        self.ready()

    def start_node(self, node: str) -> None:
        """Start what takes jobs on a node."""
        self._daemon("slurmd", "-D", "-N", node, name=node)

    def ready(self) -> None:
        """Wait until all nodes take jobs."""
        listed = ("sinfo", "-hN", "-p", "main", "-t", "idle,mixed,alloc", "-o", "%N")
        _until(lambda: sorted(self.said(*listed).split()) == list(NODES), "both nodes are up")

    def lose(self, node: str) -> None:
        """Kill all of a node at once, as when it loses power."""
        self._daemons.pop(node).kill()
        for process in self.processes():
            with suppress(psutil.Error):
                own = any(file.startswith(f"{self.folder}/{node}") for file in _open_files(process))
                if own or process.environ().get("SLURMD_NODENAME") == node:
                    process.kill()

    def freeze_controller(self, number: signal.Signals = signal.SIGSTOP) -> None:
        """Let slurmctld answer nobody, or with SIGCONT let it go on."""
        self._daemons["slurmctld"].send_signal(number)

    def said(self, *command: str) -> str:
        """What a command of Slurm prints."""
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment(), timeout=60)
        return done.stdout

    def processes(self) -> list[psutil.Process]:
        """Everything of this cluster that lives: daemons, what watches over jobs, and jobs."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                # What watches over a job writes its title over its environment, and is known by its log.
                step = process.name().startswith("slurmstepd")
                own = step and any(file.startswith(f"{self.folder}/") for file in _open_files(process))
                if own or (process.environ().get("SLURM_CONF") == str(self.conf) and process.pid != os.getpid()):
                    found.append(process)
        return found

    def stop(self) -> None:
        """End everything and remove the folder."""
        self.said("scancel", "--full", "--signal=KILL", "--user=root")
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(5)
        for process in self.processes():
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        for daemon in self._daemons.values():
            daemon.wait(60)
        self._daemons.clear()
        _until(lambda: self.processes() == [], "what was killed is gone")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        return {"PATH": _path(), "SLURM_CONF": str(self.conf), "HOME": "/root", "LANG": "C.UTF-8"}

    def _daemon(self, program: str, *words: str, name: str = "") -> None:
        found = shutil.which(program, path=_path())
        assert found is not None
        with (self.folder / f"{name or program}.out").open("ab") as log:
            self._daemons[name or program] = subprocess.Popen(
                [found, *words], env=self._environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
            )


def _open_files(process: psutil.Process) -> list[str]:
    """Also those that were removed since."""
    found = []
    with suppress(OSError):
        for each in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(OSError):
                found.append(os.readlink(each))
    return found


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin", "/bin", "/sbin"])


def _until(condition: Callable[[], bool], what: str, patience_s: float = 120.0) -> None:
    patience = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < patience, f"not within {patience_s} s: {what}"
        time.sleep(0.05)
