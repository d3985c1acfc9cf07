"""A coding agent that edits a checkout of the files: whatever it changed in the editable ones is what it proposes.

It runs with the person's rights, as every program that proposes does, in a folder of its own and with an environment
of a few names. What it leaves running is ended. The folder is compared with the commit, so nothing that it says decides
what it changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Iterator

from postgrad.errors import PostgradError
from postgrad.execute.files import Refused, read_regular
from postgrad.llm.base import Reply, Request
from postgrad.llm.errors import BadReply, Outage
from postgrad.llm.structured import found_json
from postgrad.metrics.reading import read_json
from postgrad.removing import remove_tree
from postgrad.research.command import Program
from postgrad.scripts.protect import Rules
from postgrad.scripts.session import ScriptSession

CHECKOUT = "checkout"
SAID = ("hypothesis", "expected_effect", "refuted_by")
# Of a folder that is looked through; of what was changed in it, together.
MOST_FILES, MOST_BYTES, LARGEST_FILE = 20_000, 120_000, 4 << 20
# What programs leave beside files, and no edit.
LITTER = {".git", "__pycache__"}


@dataclass(frozen=True)
class Agent(Program):
    """The program, in a checkout.

    Attributes:
        rules: which files it may change.
    """

    inside: str = CHECKOUT
    silent: bool = True
    _: KW_ONLY
    session: ScriptSession
    rules: Rules

    def complete(self, request: Request) -> Reply:
        """Run it once in a checkout of the parent's files. With what was wrong it finds the editable files as it left
        them, and the others as they are.

        Raises:
            ProviderError: it took too long, failed, or left more than is read.
        """
        commit = str(json.loads(request.messages[0].text)["parent"]["commit"])
        work = self.folder / CHECKOUT
        try:
            remove_tree(work)
            self.session.workspace.checkout(commit, work)
            if len(request.messages) > 1:
                self._again(work, request.messages[-2].text)
        except (OSError, PostgradError) as error:  # What an agent of an earlier question left is no end of a run.
            raise Outage("connection", f"The agent's checkout cannot be made: {error}") from None
        reply = super().complete(request)
        left = {**_said(reply.text), **self._left(work, commit)}
        return Reply(text=json.dumps(left), usage=reply.usage, model="", finish="stop", latency_s=reply.latency_s)

    def _again(self, work: Path, before: str) -> None:
        """Put its edits back."""
        told = read_json(before)
        files = told.get("files", []) if isinstance(told, dict) else []
        for one in files:
            path = work / one["path"]
            if not self.rules.allowed(one["path"]):
                continue
            if one["content"] is None:
                path.unlink(missing_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(one["content"].encode())

    def _left(self, work: Path, commit: str) -> dict[str, Any]:
        """What differs from the commit: new contents of editable files, and names of others that were there before."""
        before = self.session.workspace.files(commit)
        found = dict(_hashed(work))
        files: list[dict[str, str | None]] = []
        refused: list[str] = []
        room = MOST_BYTES
        for path in sorted(before.keys() | found.keys()):
            if before.get(path) == found.get(path):
                continue
            if not self.rules.allowed(path):
                refused += [path] if path in before else []
                continue
            content = None if path not in found else _text(work / path)
            room -= len(json.dumps(content))
            if room < 0:
                raise BadReply("too_large", f"The agent changed more than {MOST_BYTES:,} bytes of files.")
            files.append({"path": path, "content": content})
        return {"files": files, "refused": refused[:100]}


def _said(output: str) -> dict[str, Any]:
    """The reasons in the last line of what it printed, where that is a JSON object."""
    lines = output.strip().splitlines()
    said = found_json(lines[-1]) if lines else None
    return {key: said[key] for key in SAID if key in said} if isinstance(said, dict) else {}


def _hashed(work: Path) -> Iterator[tuple[str, str]]:
    """Path -> git's name for the content, of every file and link below a folder. No link is followed.

    Raises:
        BadReply: there are too many.
    """
    count = 0
    for above, folders, names in os.walk(work):
        links = [name for name in folders if (Path(above) / name).is_symlink()]
        folders[:] = sorted(name for name in folders if name not in LITTER and name not in links)
        for name in [*names, *links]:
            count += 1
            if count > MOST_FILES:
                raise BadReply("too_large", f"The agent left more than {MOST_FILES:,} files.")
            path = Path(above) / name
            yield str(path.relative_to(work)), _blob(path)


def _blob(path: Path) -> str:
    """Git's name for what is there; what is no file and no link, or cannot be read, has one of its own."""
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            data = os.fsencode(os.readlink(path))
            return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        if not stat.S_ISREG(status.st_mode):
            return "no file"
        made = hashlib.sha1(b"blob %d\0" % status.st_size, usedforsecurity=False)
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                made.update(part)
        return made.hexdigest()
    except OSError:
        return "unreadable"


def _text(path: Path) -> str:
    """The content of an edited file.

    Raises:
        BadReply: it is none, or no text.
    """
    try:
        return read_regular(path, LARGEST_FILE).decode("utf-8")
    except (OSError, Refused, UnicodeDecodeError) as wrong:
        raise BadReply("shape", f"The agent left {path.name} as no readable text: {wrong}.") from None
