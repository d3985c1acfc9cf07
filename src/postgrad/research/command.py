"""A program of the user as proposer: the context as JSON on its standard input, proposals as JSON on its output.

It runs with the user's rights, in a folder of its own, without the environment of the controller but for a few names,
for a limited time and with a limited output. What it leaves running is ended with it. What it prints is checked as a
language model's reply is.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from postgrad.llm.base import Message, Price, Reply, Request, Usage
from postgrad.llm.errors import BadReply, Outage, ProviderError
from postgrad.llm.retry import Retry
from postgrad.quoting import escaped
from postgrad.records import ModelSpec, ResearcherSpec
from postgrad.research.language_model import LanguageModel
from postgrad.research.questions import Question

NAME = "command"
# Of the controller's environment, what a program gets: nothing that is a key.
PASSED = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "VIRTUAL_ENV", "SSL_CERT_FILE")
# Where it finds what it is given, for who does not read its standard input.
CONTEXT = "POSTGRAD_CONTEXT"
MOST_BYTES, TOLD_BYTES = 200_000, 2_000
# After the program has ended, a child of it that holds its output open is waited for so long.
LINGER_S = 0.2
READ = 65_536


@dataclass(frozen=True)
class Program:
    """A program as a provider of text. What it costs is for its owner to know.

    Attributes:
        folder: what it is given lies there, as `context.json`; made where it is not there.
        passed: further names of the environment.
        inside: the folder within that it works in.
        silent: it need not print anything.
    """

    command: tuple[str, ...]
    folder: Path
    timeout_s: float
    passed: tuple[str, ...] = ()
    inside: str = ""
    silent: bool = False

    @property
    def model(self) -> str:
        return ""

    @property
    def price(self) -> Price:
        return Price(input=0.0, output=0.0)

    def complete(self, request: Request) -> Reply:
        """Run it once. A request with a wrong reply in it goes in with what was wrong."""
        began = time.monotonic()
        asked = json.loads(request.messages[0].text)
        if len(request.messages) > 1:
            asked |= {"previous": request.messages[-2].text, "problems": request.messages[-1].text}
        text = self._output(json.dumps(asked, ensure_ascii=False).encode("utf-8", "replace"))
        return Reply(text=text, usage=Usage(), model="", finish="stop", latency_s=time.monotonic() - began)

    def _output(self, stdin: bytes) -> str:
        kept = {name: os.environ[name] for name in (*PASSED, *self.passed) if name in os.environ}
        given = self.folder / "context.json"
        kept |= {CONTEXT: str(given.resolve())}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            given.write_bytes(stdin)
            with given.open("rb") as file:
                process = subprocess.Popen(
                    self.command,
                    stdin=file,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    cwd=self.folder / self.inside,
                    env=kept,
                    start_new_session=True,
                )
        except OSError as refused:
            raise Outage("connection", f"{self.command[0]} cannot be started: {refused.strerror or refused}.") from None
        try:
            out, told, late = _read(process, time.monotonic() + self.timeout_s)
        finally:
            _end(process)
        return self._judged(process.returncode, out, told, late)

    def _judged(self, code: int, out: bytes, told: bytes, late: bool) -> str:
        """The output as text.

        Raises:
            ProviderError: it took too long, said too much, failed, or said nothing.
        """
        said = escaped(" ".join(told.decode("utf-8", "replace").split()))[-TOLD_BYTES // 10 :]
        because = f" It said: {said}" if said else ""
        wrong: ProviderError | None = None
        if len(out) > MOST_BYTES:
            wrong = BadReply("too_large", f"The program printed more than {MOST_BYTES:,} bytes.")
        elif late:
            wrong = Outage("timeout", f"The program had not ended after {self.timeout_s:g} s.{because}")
        elif code != 0:
            wrong = BadReply("shape", f"The program ended with code {code}.{because}")
        elif not out.strip() and not self.silent:
            wrong = BadReply("empty", f"The program printed nothing.{because}")
        if wrong is not None:
            raise wrong
        return out.decode("utf-8", "replace")


def _read(process: subprocess.Popen[bytes], end: float) -> tuple[bytes, bytes, bool]:
    """(output, the end of the errors, whether it took too long); stops where the output is too long."""
    assert process.stdout is not None and process.stderr is not None
    out, told, quiet = b"", b"", None
    with selectors.DefaultSelector() as watched:
        watched.register(process.stdout, selectors.EVENT_READ)
        watched.register(process.stderr, selectors.EVENT_READ)
        while watched.get_map() and len(out) <= MOST_BYTES:
            now = time.monotonic()
            if now >= end:
                return out, told, True
            ready = watched.select(min(LINGER_S / 4, end - now))
            if process.poll() is not None and not ready:
                quiet = quiet or now
                if now - quiet > LINGER_S:
                    break
            for key, _ in ready:
                found = os.read(key.fd, READ)
                if not found:
                    watched.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    out += found
                else:
                    told = (told + found)[-TOLD_BYTES:]
    while process.poll() is None and time.monotonic() < end and len(out) <= MOST_BYTES:
        time.sleep(0.01)
    return out, told, process.poll() is None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program and whatever it has started in its session."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


class Command(LanguageModel):
    """The proposer."""

    def __init__(self, spec: ResearcherSpec, program: Program, record: Path) -> None:
        told = ModelSpec(name=NAME, provider=NAME)
        super().__init__(told, spec, program, record, Retry(attempts=1, bad_replies=1), repairs=1)

    def _request(self, question: Question) -> Request:
        """The context as JSON, in one message."""
        return Request(messages=(Message("user", json.dumps(question.context(self._spec), ensure_ascii=False)),))
