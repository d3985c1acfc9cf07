"""The `git` program, started without a shell and without anybody's settings, hooks, signatures or network.

What a repository or a person configures for git can start programs (hooks, fsmonitor, filters, diff drivers). None of
that is followed: the environment is made anew, and switches on the command line go before what a repository says.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Iterator, Sequence

from postgrad.errors import PostgradError, UserError
from postgrad.quoting import escaped

OLDEST = (2, 32)
# What is in the log of the run is on the disk as well: objects and references are flushed before git says "done".
SETTINGS = (
    "core.fsync=committed",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.quotePath=false",
    "commit.gpgSign=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.allow=never",
    "safe.directory=*",
)
_LONGEST_WORDS = 1_000
_TIMEOUT_S = 600.0
_OBJECT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class GitError(PostgradError):
    """Git ended with an error. `words` is what it said, escaped and in English."""

    def __init__(self, command: str, words: str) -> None:
        super().__init__(f"git {command} failed: {words}")
        self.words = words


@dataclass(frozen=True)
class Done:
    """How a git command ended."""

    status: int
    out: bytes
    words: str


INSTALL = "Install it (for example `apt install git` or `brew install git`) and start again."


def git_program() -> str:
    """Where git is.

    Raises:
        UserError: it is not installed, or too old.
    """
    program = shutil.which("git")
    if program is None:
        raise UserError(f"Script tasks keep every experiment in a git repository, and git is not installed. {INSTALL}")
    said = git_version(program)
    if too_old(said):
        wanted = ".".join(map(str, OLDEST))
        raise UserError(f"Script tasks need git {wanted} or newer, and {program} is '{said}'. {INSTALL}")
    return program


def git_version(program: str) -> str:
    """What a program says of its version, escaped: "git version 2.39.5"."""
    return escaped(start([program, "version"], Path(program).parent).out.decode("utf-8", "replace").strip())


def too_old(said: str) -> bool:
    """Whether a version of git is none, or lacks what is needed."""
    found = re.search(r"(\d+)\.(\d+)", said)
    return found is None or (int(found[1]), int(found[2])) < OLDEST


def start(
    command: Sequence[str],
    folder: Path,
    *,
    stdin: bytes | IO[bytes] = b"",
    index: Path | None = None,
    keep_open: Sequence[int] = (),
) -> Done:
    """Run a command with git's environment in a folder, and wait for it.

    Args:
        stdin: what it reads: bytes, or an open file.
        index: the index file it uses in place of the repository's.
        keep_open: file descriptors that it and its children inherit.
    """
    data = stdin if isinstance(stdin, bytes) else None
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment(index),
            capture_output=True,
            input=data,
            stdin=None if isinstance(stdin, bytes) else stdin,
            pass_fds=keep_open,
            timeout=_TIMEOUT_S,
            # Ctrl-C is for us: git ends what it began.
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise GitError(command[-1], f"no end after {_TIMEOUT_S:.0f} s") from error
    return Done(done.returncode, done.stdout, _words(done.stderr))


def environment(index: Path | None = None) -> dict[str, str]:
    """The whole environment of git: where programs are, and nothing of the person's settings."""
    made = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C",
        "HOME": os.devnull,
        "XDG_CONFIG_HOME": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
    }
    return made if index is None else made | {"GIT_INDEX_FILE": str(index)}


def _words(stderr: bytes) -> str:
    text = stderr.decode("utf-8", "replace").strip()
    shown = "\n".join(escaped(line) for line in text[:_LONGEST_WORDS].splitlines())
    return shown + ("..." if len(text) > _LONGEST_WORDS else "")


def settings() -> list[str]:
    """The switches in front of every git command."""
    return [part for setting in SETTINGS for part in ("-c", setting)]


@dataclass(frozen=True)
class Repository:
    """A bare repository in `folder`, as git commands in it."""

    program: str
    folder: Path

    @classmethod
    def make(cls, program: str, folder: Path) -> Repository:
        """A new empty repository; `folder` is made."""
        command = [
            program,
            *settings(),
            "init",
            "--quiet",
            "--bare",
            "--template=",
            "--object-format=sha1",
            str(folder),
        ]
        done = start(command, folder.parent)
        if done.status:
            raise GitError("init", done.words)
        (folder / "info").mkdir(exist_ok=True)
        # Above what .gitattributes of the source say: a diff shows what was changed, whatever a file is declared to be.
        (folder / "info" / "attributes").write_text("* !diff !text !eol !merge !filter !ident !whitespace\n")
        (folder / "unfinished").mkdir()
        return cls(program, folder)

    def ask(
        self,
        *arguments: str,
        stdin: bytes | IO[bytes] = b"",
        index: Path | None = None,
        keep_open: Sequence[int] = (),
        at: Path | None = None,
    ) -> Done:
        """Run a git command on the repository, whatever its status.

        Args:
            at: the folder it runs in, taken as its work tree; none by default.
        """
        tree = [] if at is None else [f"--work-tree={at}"]
        command = [self.program, *settings(), f"--git-dir={self.folder}", *tree, *arguments]
        return start(command, at or self.folder, stdin=stdin, index=index, keep_open=keep_open)

    def run(
        self,
        *arguments: str,
        stdin: bytes | IO[bytes] = b"",
        index: Path | None = None,
        keep_open: Sequence[int] = (),
    ) -> bytes:
        """What a git command wrote.

        Raises:
            GitError: its status was not 0.
        """
        done = self.ask(*arguments, stdin=stdin, index=index, keep_open=keep_open)
        if done.status:
            raise GitError(arguments[0], done.words)
        return done.out

    def blobs(self, hashes: Sequence[str], most: int) -> Iterator[bytes]:
        """The contents of files, one after the other.

        Raises:
            GitError: one is not there, or all of them have more than `most` bytes.
        """
        command = [self.program, *settings(), f"--git-dir={self.folder}", "cat-file", "--batch"]
        with TemporaryFile() as asked:
            asked.write("".join(f"{object_name(one)}\n" for one in hashes).encode("ascii"))
            asked.seek(0)
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment(),
                stdin=asked,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                assert process.stdout is not None
                for one in hashes:
                    head = process.stdout.readline().split()
                    if len(head) != 3 or head[1] != b"blob":
                        raise GitError("cat-file", f"the file {one} is not in {self.folder}")
                    most -= int(head[2])
                    if most < 0:
                        raise GitError("cat-file", "the files are larger than is allowed together")
                    data = process.stdout.read(int(head[2]) + 1)
                    if len(data) != int(head[2]) + 1:
                        raise GitError("cat-file", f"the file {one} ended early")
                    yield data[:-1]
            finally:
                process.kill()
                process.communicate()

    @contextmanager
    def lock(self, *, alone: bool, wait_s: float = 60.0) -> Iterator[int]:
        """Hold the repository: writers together, or one alone. The descriptor is inherited by what git starts.

        A writer's git may outlive a killed writer by some milliseconds; it then holds the lock for as long.

        Raises:
            PostgradError: others held it for longer than `wait_s` seconds.
        """
        number = os.open(self.folder / "writers", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        end = time.monotonic() + wait_s
        try:
            while True:
                try:
                    fcntl.flock(number, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > end:
                        raise PostgradError(
                            f"Another process works on {self.folder} and did not end within {wait_s:.0f} s. "
                            "End it, then go on with `postgrad resume`."
                        ) from error
                    time.sleep(0.01)
            yield number
        finally:
            os.close(number)


def object_name(text: str) -> str:
    """The text, if it is the whole name of an object: 40 or 64 hexadecimal digits.

    Raises:
        PostgradError: it is something else, which git could take for an option or a revision.
    """
    if not _OBJECT.fullmatch(text):
        raise PostgradError(f"{escaped(text[:100])!r} is not the name of a commit: 40 or 64 hexadecimal digits.")
    return text
