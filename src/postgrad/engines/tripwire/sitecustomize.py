"""Loaded by every Python process of a job, before anything else: refuses and reports what a job has no business with.

A tripwire, not a wall: it sees what Python code does through Python, in processes that did not switch it off. Native
code gets past it, and then it is the sandbox that refuses. Imports nothing of Postgrad: it is loaded first.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

PATHS = {
    "open": 0, "os.listdir": 0, "os.scandir": 0, "os.chdir": 0, "os.mkdir": 0, "os.rmdir": 0, "os.remove": 0,
    "os.rename": 0, "os.link": 0, "os.symlink": 0, "os.truncate": 0, "os.chmod": 0, "os.chown": 0, "os.utime": 0,
    "sqlite3.connect": 0,
}  # fmt: skip
READING = ("os.listdir", "os.scandir", "os.chdir")
SECOND = ("os.rename", "os.link")
HOSTS = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname")
SIGNALS = ("os.kill", "os.killpg")
LOCAL = ("127.", "::1", "localhost")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
SECRETS = ("/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/ssh")
DEVICES = ("/dev", "/proc/self", f"/proc/{os.getpid()}")
MOST = 400


class Tripwire:
    """The audit hook.

    Args:
        reads, writes: files and folders that may be read, and written.
        lists: folders that may be listed, which Python does to find modules.
        line: the socket to the controller, or None in a process that has lost it.
    """

    def __init__(
        self, reads: tuple[str, ...], writes: tuple[str, ...], lists: tuple[str, ...], line: int | None
    ) -> None:
        self.reads = reads
        self.writes = writes
        self.lists = lists
        self.line = line
        self.busy = False
        # The parts of a job on several nodes meet over the network.
        self.meets = "POSTGRAD_NODES" in os.environ

    def __call__(self, event: str, values: tuple[Any, ...]) -> None:
        if self.busy or not (event in PATHS or event in HOSTS or event in SIGNALS):
            return
        self.busy = True  # What happens below raises events of its own.
        try:
            kind, what = self.found(event, values)
            if kind:
                self.report(kind, what)
                raise PermissionError(f"a job may not do this: {what}")
        finally:
            self.busy = False

    def found(self, event: str, values: tuple[Any, ...]) -> tuple[str, str]:
        """(kind, what happened), or two empty texts for what is allowed."""
        if event in HOSTS:
            host = address(event, values)
            far = host and not host.startswith(LOCAL) and not self.meets
            return ("network", f"{event} to {host}") if far else ("", "")
        if event in SIGNALS:
            process, number = values[0], values[1]
            # -1 is every process there is.
            outside = process in (os.getppid(), 1) if event == "os.kill" and process >= 0 else process < 0
            return ("signal", f"{event}({process}, {number})") if outside and number else ("", "")
        paths = values[:2] if event in SECOND else values[:1]
        write = writes(event, values)
        for path in paths:
            name = whole(path)
            if name in self.lists and not write:
                continue
            if name and self.outside(name, write):
                return "forbidden_file", f"{event} {name}" + (" for writing" if write else "")
        return "", ""

    def outside(self, name: str, write: bool) -> bool:
        if within(name, DEVICES):
            return False
        if write:
            return not within(name, self.writes)
        if name.startswith("/proc/"):
            return name.split("/")[2].isdigit() and name.split("/")[-1] in ("environ", "mem", "maps")
        return within(name, SECRETS) or not within(name, (*self.reads, *self.writes, "/etc", "/proc", "/sys"))

    def report(self, kind: str, what: str) -> None:
        if self.line is not None:
            try:
                os.write(self.line, f"{kind} {what[:MOST]!a}\n".encode())
            except OSError:
                self.line = None


def address(event: str, values: tuple[Any, ...]) -> str:
    """The host that is meant, or "" for an address of this machine's own files."""
    given = values[0] if event in ("socket.getaddrinfo", "socket.gethostbyname") else values[1]
    host = given[0] if isinstance(given, tuple) and given else given
    return host if isinstance(host, str) and (isinstance(given, tuple) or event.startswith("socket.get")) else ""


def writes(event: str, values: tuple[Any, ...]) -> bool:
    """True when the event changes a file."""
    if event != "open":
        return event not in READING
    mode, flags = values[1], values[2]
    return bool(mode and set(str(mode)) & set("wax+")) or bool(isinstance(flags, int) and flags & WRITING)


def whole(path: Any) -> str:
    """The absolute path, `..` taken out; "" for a file that is open already, and for a database in memory."""
    if not isinstance(path, str | bytes | os.PathLike):
        return ""
    name = os.fsdecode(path)
    try:
        return "" if name in ("", ":memory:") else os.path.abspath(name)
    except OSError:  # The current folder is gone, or lies too deep.
        return name


def within(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(place.rstrip("/") + "/") for place in places)


def line_of_job() -> int | None:
    """Standard input, where that is still the socket to the controller."""
    try:
        return 0 if str(os.fstat(0).st_ino) == os.environ.get("POSTGRAD_LINE") else None
    except OSError:
        return None


def named(variable: str) -> tuple[str, ...]:
    return tuple(name for name in os.environ.get(variable, "").split(os.pathsep) if name)


if "POSTGRAD_READS" in os.environ:
    # What watches over a sandbox is deaf to it, and a process is as deaf as the one that started it.
    if signal.getsignal(signal.SIGTERM) == signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.addaudithook(
        Tripwire(named("POSTGRAD_READS"), named("POSTGRAD_WRITES"), named("POSTGRAD_LISTS"), line_of_job())
    )
