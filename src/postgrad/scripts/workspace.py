"""The repository of a run: every experiment is a commit, and nothing is ever lost.

It lies bare in RUN/repo; the person's own repository is only read, once. An experiment's commit has its parent's commit
as parent and is kept under refs/heads/postgrad/RUN/ID, so `git clone RUN/repo` shows a run with any git tool. Author,
committer and date are fixed: equal contents, message and parent give an equal commit, on any machine, after any kill.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Iterator, Mapping, Sequence

from postgrad.errors import PostgradError, UserError
from postgrad.quoting import escaped
from postgrad.scripts.git import GitError, Repository, git_program, object_name
from postgrad.scripts.patches import as_bytes, has_prefixes
from postgrad.scripts.paths import EXECUTABLE, LINK, REGULAR, EditRefused, Entry, check_edit, fault
from postgrad.scripts.source import MOST_BYTES, find, keep_hidden, read_files, write_import

REPO, HIDDEN, BASELINE, FACTS = "repo", "hidden", "baseline", "postgrad.json"
LONGEST_MESSAGE = 10_000
_PERSON = "Postgrad <postgrad@localhost>"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_NOT_IN_REFS = re.compile(r"[^A-Za-z0-9_-]+")
_HUNK = re.compile(rb"^@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@", re.MULTILINE)


@dataclass(frozen=True)
class Workspace:
    """The git repository of a run.

    Attributes:
        folder: the folder of the run.
        baseline: the commit of the source as it was imported.
        branches: what the names of the experiments' references begin with.
        when: seconds since 1970, the date of every commit.
        left_out: what of the source was not taken, each with its reason.
    """

    folder: Path
    git: Repository
    baseline: str
    branches: str
    when: int
    left_out: tuple[str, ...]

    @classmethod
    def create(cls, folder: Path, run: str, source: Path, hidden: Mapping[str, str], when: int = 0) -> Workspace:
        """Import a source as the baseline, or open what is there already.

        Args:
            folder: the folder of the run.
            hidden: split -> file or folder, relative to the source, that goes to RUN/hidden/SPLIT and into no commit.
            when: seconds since 1970, the date of every commit of the run.

        Raises:
            UserError: git is missing, or the source cannot be taken.
        """
        if (folder / REPO / FACTS).is_file():
            return cls.open(folder, run)
        program = git_program()
        folder.mkdir(parents=True, exist_ok=True)
        made, kept = folder / f"{REPO}.unfinished", folder / f"{HIDDEN}.unfinished"
        for left in (made, kept, folder / REPO, folder / HIDDEN):
            if left.exists():
                shutil.rmtree(left)
        git = Repository.make(program, made)
        found = find(git, source, folder, hidden.values())
        known = keep_hidden(source, {_checked(split): name for split, name in hidden.items()}, kept)
        branches = f"refs/heads/postgrad/{_NOT_IN_REFS.sub('-', run)}/"
        with TemporaryFile(dir=made / "unfinished") as stream:
            _begin(stream, branches + BASELINE, None, "The source as it was imported.", when)
            write_import(stream, read_files(source.resolve(), found.modes, known))
            _end(stream)
            baseline = git.run("fast-import", "--quiet", "--done", stdin=stream).decode("ascii").strip()
        git.run("symbolic-ref", "HEAD", branches + BASELINE)
        facts = {"run": run, "baseline": baseline, "branches": branches, "when": when, "left_out": found.left_out}
        with (made / FACTS).open("w", encoding="utf-8") as file:
            json.dump(facts, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        # The repository goes last: where it is, all is.
        kept.rename(folder / HIDDEN)
        made.rename(folder / REPO)
        return cls.open(folder, run)

    @classmethod
    def open(cls, folder: Path, run: str) -> Workspace:
        """The repository of a run that has one.

        Raises:
            UserError: there is none, or git is missing.
        """
        try:
            facts = json.loads((folder / REPO / FACTS).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(f"The run '{run}' has no repository of a script: {folder / REPO} is missing.") from error
        git = Repository(git_program(), (folder / REPO).resolve())
        return cls(folder, git, facts["baseline"], facts["branches"], facts["when"], tuple(facts["left_out"]))

    def hidden(self, split: str) -> Path:
        """The folder with the hidden files of a split. For the referee alone."""
        return self.folder / HIDDEN / _checked(split)

    def commit(self, experiment: str, parent: str, files: Mapping[str, bytes | None], message: str) -> str:
        """Keep an experiment's files as a commit; the same edit again is the same commit.

        Where the experiment has another commit already, that one stays under refs/postgrad/replaced/.

        Args:
            parent: the commit that is edited.
            files: path -> new contents, None for a file that goes.
            message: any text; its control characters are escaped.

        Raises:
            EditRefused: the edit cannot be made.
        """
        if _checked(experiment) == BASELINE:
            raise PostgradError("The baseline is imported and never committed again.")
        entries = self._entries(parent)
        check_edit(entries, files)
        stream = BytesIO()
        _begin(stream, self.branches + experiment, parent, message, self.when)
        for path in sorted(path for path, data in files.items() if data is None):
            quoted = path.replace('"', '\\"')
            stream.write(f'D "{quoted}"\n'.encode())
        kept = sorted((path, data) for path, data in files.items() if data is not None)
        write_import(stream, ((path, entries.get(path, Entry(REGULAR, "")).mode, data) for path, data in kept))
        return self._kept(experiment, stream)

    def adopt(self, experiment: str, parent: str, tree: str, message: str) -> str:
        """Keep files that the repository knows already as an experiment's commit.

        Args:
            tree: what names the files, as `without` gives it.
        """
        stream = BytesIO()
        _begin(stream, self.branches + _checked(experiment), parent, message, self.when)
        stream.write(f'M 040000 {object_name(tree)} ""\n'.encode())
        return self._kept(experiment, stream)

    def _kept(self, experiment: str, stream: BytesIO) -> str:
        """Make the commit that a stream asks for."""
        _end(stream)
        asked = stream.getvalue()
        with self.git.lock(alone=False) as number:
            done = self.git.ask("fast-import", "--quiet", "--done", stdin=asked, keep_open=[number])
            if done.status and "Not updating" in done.words:
                old = self.commits()[experiment]
                self.git.run("update-ref", f"refs/postgrad/replaced/{experiment}/{old}", old, keep_open=[number])
                done = self.git.ask("fast-import", "--quiet", "--done", "--force", stdin=asked, keep_open=[number])
        if done.status:
            raise GitError("fast-import", done.words)
        return done.out.decode("ascii").strip()

    def tree_of(self, commit: str) -> str:
        """The hash of a commit's files: equal for equal paths, modes and contents."""
        return self.git.run("rev-parse", "--verify", f"{object_name(commit)}^{{tree}}").decode("ascii").strip()

    def files(self, commit: str, *, links: bool = True) -> dict[str, str]:
        """Path -> hash of the contents (git's blob hash), of every file of a commit, with or without its links."""
        return {path: entry.blob for path, entry in self._entries(commit).items() if links or entry.mode != LINK}

    def read(self, commit: str, path: str) -> bytes:
        """The contents of a file.

        Raises:
            EditRefused: the commit has no such file, or it is a link.
        """
        entry = self._entries(commit).get(path)
        if entry is None or entry.mode == LINK:
            raise EditRefused(f"There is no file {escaped(path[:200])!r} in commit {commit[:12]}.")
        return next(self.git.blobs([entry.blob], MOST_BYTES))

    def contents(self, blobs: Sequence[str]) -> Iterator[bytes]:
        """The contents of files by git's names of them, one after the other, from one process.

        Raises:
            GitError: one is not there, or they are too large together.
        """
        return self.git.blobs(blobs, 10 * MOST_BYTES) if blobs else iter(())

    def differing(self, old: str, new: str) -> dict[str, tuple[str, str]]:
        """Path -> names of the contents in two commits or trees, "" where a file is missing, of what differs."""
        asked = ("-r", "-z", "--raw", "--no-abbrev", "--no-renames", object_name(old), object_name(new))
        heads = iter(self.git.run("diff-tree", *asked).split(b"\0"))
        found = {}
        for head in filter(None, heads):
            _, _, before, after, _ = head.decode("ascii").split(" ")
            found[_path(next(heads))] = ("" if set(before) == {"0"} else before, "" if set(after) == {"0"} else after)
        return found

    def checkout(self, commit: str, folder: Path) -> None:
        """Write a commit's files into an empty folder, with nothing of git beside them.

        Raises:
            PostgradError: the folder holds something.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise PostgradError(f"{folder} is not empty, and an experiment begins in an empty folder.")
        entries = self._entries(commit)
        # Links last: no file is written through one.
        ordered = sorted(entries.items(), key=lambda item: (item[1].mode == LINK, item[0]))
        # Experiments add to the baseline's files, so a commit may have more bytes than a source.
        blobs = self.git.blobs([entry.blob for _, entry in ordered], 10 * MOST_BYTES)
        for (path, entry), data in zip(ordered, blobs, strict=True):
            if (wrong := fault(path)) is not None:
                raise PostgradError(f"The commit {commit} is not of this workspace: {wrong}.")
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            if entry.mode == LINK:
                os.symlink(os.fsdecode(data), place)
                continue
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(place, flags, 0o755 if entry.mode == EXECUTABLE else 0o644), "wb") as file:
                file.write(data)

    def diff(self, old: str, new: str, context: int = 3) -> str:
        """What changed, as a unified diff. Text from outside: quote it where it is shown."""
        return self._patch(old, new, f"-U{int(context)}").decode("utf-8", "replace")

    def size(self, old: str, new: str) -> int:
        """Changed lines: added plus deleted, in files of any kind."""
        # Not --numstat: it counts no lines of files that look binary, and an edit could hide in one.
        lines = self._patch(old, new, "--text", "-U0")
        return sum(int(count or 1) for pair in _HUNK.findall(lines) for count in pair)

    def apply(self, commit: str, patch: str) -> dict[str, bytes | None]:
        """The files that a unified diff from outside makes of a commit: path -> contents, None for one that goes.

        Wrong counts of lines in its heads are corrected; where its lines have moved and it names the contents it was
        made from, it is merged.

        Raises:
            EditRefused: it does not apply, changes nothing, or names what may not be; in git's words.
        """
        after, _ = self._patched(commit, as_bytes(patch), "-p1" if has_prefixes(patch) else "-p0")
        return self._changed(self._entries(commit), after)

    def without(self, files: str, change: tuple[str, str]) -> str | None:
        """The tree of a commit's files less what was changed between two others; None where too much of that was
        changed again, or nothing of it is left.

        Args:
            change: commits or trees (before, after).
        """
        before, after = change
        if not (patch := self._patch(after, before, "--binary")):
            return None
        try:
            entries, tree = self._patched(files, patch, "-p1")
            self._changed(self._entries(files), entries)
        except EditRefused:
            return None
        return tree

    def tree_with(self, files: str, path: str, data: bytes) -> str:
        """The tree of a commit's files with other contents of one of them."""
        mode = self._entries(files)[path].mode
        (self.git.folder / "unfinished").mkdir(exist_ok=True)
        with self.git.lock(alone=False) as number, TemporaryDirectory(dir=self.git.folder / "unfinished") as made:
            index, kept = Path(made) / "index", [number]
            blob = self.git.run("hash-object", "-w", "--stdin", stdin=data, keep_open=kept).decode("ascii").strip()
            self.git.run("read-tree", object_name(files), index=index)
            self.git.run("update-index", "--cacheinfo", f"{mode},{blob},{path}", index=index)
            return self.git.run("write-tree", index=index, keep_open=kept).decode("ascii").strip()

    def _patched(self, commit: str, patch: bytes, strip: str) -> tuple[dict[str, Entry], str]:
        """The files that a patch makes of a commit's, and their tree."""
        (self.git.folder / "unfinished").mkdir(exist_ok=True)
        with self.git.lock(alone=False) as number, TemporaryDirectory(dir=self.git.folder / "unfinished") as made:
            index = Path(made) / "index"
            self.git.run("read-tree", object_name(commit), index=index)
            words = ""
            for extra in ([], ["--recount"], ["--recount", "--3way"]):
                arguments = ["apply", "--cached", "--whitespace=nowarn", strip, *extra, "-"]
                done = self.git.ask(*arguments, stdin=patch, index=index, keep_open=[number])
                if not done.status:
                    break
                # A merge that failed speaks of its attempt, and not of the patch.
                words = words if "--3way" in extra else done.words
            else:
                raise EditRefused(f"The patch does not apply: {words}")
            after = _parsed(self.git.run("ls-files", "-s", "-z", index=index), staged=True)
            tree = self.git.run("write-tree", index=index, keep_open=[number]).decode("ascii").strip()
        return after, tree

    def _changed(self, before: Mapping[str, Entry], after: Mapping[str, Entry]) -> dict[str, bytes | None]:
        changed = {path: entry for path, entry in after.items() if before.get(path) != entry}
        gone: dict[str, bytes | None] = {path: None for path in before if path not in after}
        if not changed and not gone:
            raise EditRefused("The patch changes nothing.")
        # Before the contents are looked at: names and kinds.
        check_edit(before, {path: b"" for path in changed} | gone)
        for path, entry in changed.items():
            if entry.mode != (before[path].mode if path in before else REGULAR):
                raise EditRefused(f"The patch changes what kind of file {path} is; links and modes stay as they are.")
        try:
            contents = list(self.git.blobs([entry.blob for entry in changed.values()], MOST_BYTES))
        except GitError as error:
            raise EditRefused(f"The patch cannot be used: {error.words}.") from error
        return dict(sorted({**gone, **dict(zip(changed, contents, strict=True))}.items()))

    def commits(self) -> dict[str, str]:
        """Experiment -> commit, without the baseline."""
        lines = (
            self.git.run("for-each-ref", "--format=%(objectname) %(refname)", self.branches)
            .decode("ascii")
            .splitlines()
        )
        named = {name.removeprefix(self.branches): commit for commit, name in (line.split(" ") for line in lines)}
        return {name: commit for name, commit in named.items() if name != BASELINE}

    def trees(self) -> dict[str, str]:
        """Experiment -> hash of the files of its commit, as `tree_of` gives it; without the baseline."""
        lines = self.git.run("for-each-ref", "--format=%(tree) %(refname)", self.branches).decode("ascii").splitlines()
        named = {name.removeprefix(self.branches): tree for tree, name in (line.split(" ") for line in lines)}
        return {name: tree for name, tree in named.items() if name != BASELINE}

    def set_aside(self, experiment: str) -> None:
        """Keep an experiment's commit under refs/postgrad/replaced/ alone: it is not what the experiment became."""
        old = self.commits()[_checked(experiment)]
        told = f"update refs/postgrad/replaced/{experiment}/{old} {old}\ndelete {self.branches}{experiment} {old}\n"
        with self.git.lock(alone=False) as number:
            self.git.run("update-ref", "--stdin", stdin=told.encode(), keep_open=[number])

    def repair(self) -> None:
        """Remove what killed processes left half done: locks, temporary files. Commits and references stay."""
        with self.git.lock(alone=True):
            root = self.git.folder
            patterns = (
                "unfinished/*",
                "*.lock",
                "refs/**/*.lock",
                "objects/**/tmp_*",
                "objects/**/*.lock",
                "fast_import_crash_*",
            )
            for left in [file for pattern in patterns for file in root.glob(pattern)]:
                with suppress(FileNotFoundError):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()

    def _patch(self, old: str, new: str, *switches: str) -> bytes:
        plain = ["--no-color", "--no-renames", "--no-ext-diff", "--no-textconv"]
        return self.git.run("diff-tree", "-r", "-p", *plain, *switches, object_name(old), object_name(new))

    def _entries(self, commit: str) -> dict[str, Entry]:
        return _parsed(self.git.run("ls-tree", "-r", "-z", "--full-tree", object_name(commit)), staged=False)


def _parsed(listed: bytes, *, staged: bool) -> dict[str, Entry]:
    """The lines of `ls-files -s -z` (mode, blob, stage) or `ls-tree -r -z` (mode, kind, blob)."""
    entries = {}
    for line in filter(None, listed.split(b"\0")):
        head, _, path = line.partition(b"\t")
        mode, *others = head.decode("ascii").split(" ")
        entries[_path(path)] = Entry(mode, others[0 if staged else 1])
    return entries


def _path(name: bytes) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError as error:
        raise EditRefused(f"The file name {name!r} is not UTF-8.") from error


def _begin(stream: IO[bytes], ref: str, parent: str | None, message: str, when: int) -> None:
    """Write the head of a commit in the language of `git fast-import`."""
    text = "\n".join(escaped(line) for line in message[:LONGEST_MESSAGE].splitlines()).strip() or "No message."
    data = f"{text}\n".encode()
    people = f"author {_PERSON} {when} +0000\ncommitter {_PERSON} {when} +0000\n"
    stream.write(f"commit {ref}\nmark :1\n{people}data {len(data)}\n".encode() + data + b"\n")
    if parent is not None:
        stream.write(f"from {object_name(parent)}\n".encode())


def _end(stream: IO[bytes]) -> None:
    """A stream that was cut off has no `done`, and makes no commit."""
    stream.write(b"get-mark :1\ndone\n")
    stream.seek(0)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise PostgradError(
            f"{escaped(name[:100])!r} cannot name a branch or a folder: letters, digits, '-' and '_' can."
        )
    return name
