"""What of a person's folder or repository becomes the baseline of a run, and what only the referee may see.

The person's folder and repository are only read. Of a repository the tracked files are taken, as they lie in the
folder; of a plain folder every file that its .gitignore files do not name, without caches and environments.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Iterable, Iterator, Mapping

from postgrad.errors import UserError
from postgrad.quoting import inlined
from postgrad.scripts.git import Repository, settings, start
from postgrad.scripts.paths import EXECUTABLE, LINK, REGULAR, SUBMODULE, fault

MOST_BYTES = 200_000_000
_LFS, _LFS_LONGEST = b"version https://git-lfs.github.com/spec/", 1_024
# Of a plain folder nothing says what is made anew by each start.
NEVER_TAKEN = ("/runs/", "__pycache__/", ".venv/", "node_modules/")
_SHOWN = 5


@dataclass(frozen=True)
class Found:
    """The files of a source: path -> mode, and what was left out, each with its reason."""

    modes: Mapping[str, str]
    left_out: tuple[str, ...]


def find(repository: Repository, source: Path, run: Path, hidden: Iterable[str]) -> Found:
    """The files of `source` that become the baseline.

    Args:
        run: the folder of the run; nothing in it is taken, nor in a folder `runs` of the source.
        hidden: files or folders that only the referee sees, relative to the source.

    Raises:
        UserError: the source is no folder, is empty or too large, or has names or parts that are not supported.
    """
    if not source.is_dir():
        raise UserError(
            f"The source {source} is not a folder. Name a folder or a git repository with a training script."
        )
    root = source.resolve()
    secret = {_inside(root, place) for name in hidden for place in (source / name, (source / name).resolve())}
    barred = {"runs", _inside(root, run.resolve()), *secret} - {None}
    listed, left_out = _listed(repository, root)
    modes, sizes = {}, {}
    for path in sorted(listed):
        over = next((place for place in (path, *map(str, Path(path).parents)) if place in barred), None)
        if over is not None:
            left_out.append(f"{path} (hidden)" if over in secret else f"{over}/ (the folder of runs)")
            continue
        if (wrong := fault(path)) is not None:
            raise UserError(f"The source cannot be taken: {wrong}. Rename or ignore it.")
        try:
            status = (root / path).lstat()
        except FileNotFoundError:
            continue
        mode, why = _mode(root, path, status, barred)
        if why is not None:
            left_out.append(f"{path} ({why})")
            continue
        modes[path], sizes[path] = mode, status.st_size
    _check_size(source, sizes)
    return Found(modes, tuple(dict.fromkeys(left_out)))


def _inside(root: Path, place: Path) -> str | None:
    """The place relative to the root; None where it is elsewhere, or the root itself."""
    # Without following links: the parts above a name may be links, its own may not.
    plain = Path(os.path.normpath(place.parent.resolve() / place.name))
    return plain.relative_to(root).as_posix() if plain.is_relative_to(root) and plain != root else None


def _listed(repository: Repository, root: Path) -> tuple[set[str], list[str]]:
    """Paths in the source, and notes of what is not taken."""
    own = [repository.program, *settings()]
    if start([*own, "rev-parse", "--is-inside-work-tree"], root).out.strip() == b"true":
        staged = [line for line in start([*own, "ls-files", "-s", "-z"], root).out.split(b"\0") if line]
        if staged:
            tracked = {_decoded(line.partition(b"\t")[2]): line[:6].decode("ascii") for line in staged}
            _refuse_submodules(path for path, mode in tracked.items() if mode == SUBMODULE)
            others = start([*own, "ls-files", "-z", "--others", "--exclude-standard", "--directory"], root).out
            notes = [f"{_decoded(name)} (not tracked)" for name in others.split(b"\0") if name]
            return set(tracked), notes
    never = [f"--exclude={pattern}" for pattern in NEVER_TAKEN]
    done = repository.ask("ls-files", "-z", "--others", "--exclude-per-directory=.gitignore", *never, at=root)
    if done.status:
        raise UserError(
            f"git cannot list the files of {root}: {done.words}. Make them readable, or name another folder."
        )
    paths = {_decoded(name) for name in done.out.split(b"\0") if name}
    _refuse_submodules(path for path in paths if path.endswith("/"))
    return {path for path in paths if not path.endswith("/")}, ["runs/ (the folder of runs)"] * (root / "runs").is_dir()


def _decoded(name: bytes) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"The file name {name!r} in the source is not UTF-8. Rename it.") from error


def _refuse_submodules(paths: Iterable[str]) -> None:
    if names := sorted(paths):
        raise UserError(
            f"Repositories within a repository (submodules) are not supported: {_some(names)}. "
            "Copy their files into the repository itself, or take them out."
        )


def _mode(root: Path, path: str, status: os.stat_result, barred: Iterable[str | None]) -> tuple[str, str | None]:
    """The mode of a file in git, or why it is left out."""
    if stat.S_ISREG(status.st_mode):
        return (EXECUTABLE if status.st_mode & stat.S_IXUSR else REGULAR), None
    if not stat.S_ISLNK(status.st_mode):
        return "", "neither a file nor a link"
    target = os.readlink(root / path)
    lexical = os.path.normpath(os.path.join(os.path.dirname(path), target))
    real = (root / path).resolve()
    if os.path.isabs(target) or lexical == ".." or lexical.startswith("../") or not real.is_relative_to(root):
        return "", "a link that leaves the folder"
    places = {lexical, real.relative_to(root).as_posix()}
    if any(place == bar or place.startswith(f"{bar}/") for place in places for bar in barred):
        return "", "a link to what is hidden"
    return LINK, None


def _check_size(source: Path, sizes: Mapping[str, int]) -> None:
    if not sizes:
        raise UserError(f"The source {source} has no file to begin with. Name a folder with a training script in it.")
    if (total := sum(sizes.values())) > MOST_BYTES:
        largest = sorted(sizes, key=lambda path: -sizes[path])[:_SHOWN]
        named = ", ".join(f"{inlined(path, 100)} ({sizes[path] / 1e6:,.0f} MB)" for path in largest)
        raise UserError(
            f"The source {source} has {total / 1e6:,.0f} MB, and at most {MOST_BYTES / 1e6:,.0f} MB are taken. The "
            f"largest: {named}. Keep data outside and read it from there, or name what is not needed in .gitignore."
        )


def keep_hidden(source: Path, hidden: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Copy the hidden files to `folder`/SPLIT/NAME, readable for this user alone; return SHA-256 -> path in the source.

    Raises:
        UserError: one is not there.
    """
    folder.mkdir(mode=0o700, parents=True)
    known: dict[str, str] = {}
    for split, name in hidden.items():
        place, target = source / name, folder / split / Path(name).name
        if source.resolve().is_relative_to(place.resolve()):
            raise UserError(f"What is hidden for '{split}' is the whole source: {place}. Name a file or folder in it.")
        target.parent.mkdir()
        if place.is_dir():
            shutil.copytree(place, target)
        elif place.is_file():
            shutil.copyfile(place, target)
        else:
            raise UserError(f"The hidden file of '{split}' is not there: {place}. Paths are relative to the source.")
        for file in [target] if target.is_file() else sorted(target.rglob("*")):
            if file.is_file() and file.stat().st_size:
                with file.open("rb") as opened:
                    known[hashlib.file_digest(opened, "sha256").hexdigest()] = name
                    # What measures may not come back empty after a loss of power.
                    os.fsync(opened.fileno())
    return known


def read_files(root: Path, modes: Mapping[str, str], hidden: Mapping[str, str]) -> Iterator[tuple[str, str, bytes]]:
    """Path, mode and contents of each file, a link's contents being where it leads to.

    Args:
        hidden: SHA-256 -> path of files that may not be among them under another name.

    Raises:
        UserError: a copy of a hidden file, or a file that git LFS has not fetched.
    """
    for path, mode in modes.items():
        if mode == LINK:
            yield path, mode, os.fsencode(os.readlink(root / path))
            continue
        try:
            data = (root / path).read_bytes()
        except OSError as error:
            raise UserError(
                f"{root / path} cannot be read: {error.strerror}. Make it readable, or ignore it."
            ) from error
        if (name := hidden.get(hashlib.sha256(data).hexdigest())) is not None:
            raise UserError(
                f"{inlined(path, 200)} is a copy of the hidden file {inlined(name, 200)}, so the script would see it. "
                "Take it out of the source."
            )
        if len(data) < _LFS_LONGEST and data.startswith(_LFS):
            raise UserError(
                f"{inlined(path, 200)} is a pointer of git LFS and not the file, and LFS is not supported here. "
                "Fetch the files first: git lfs pull"
            )
        yield path, mode, data


def write_import(stream: IO[bytes], files: Iterable[tuple[str, str, bytes]]) -> None:
    """Write files in the language of `git fast-import`."""
    for path, mode, data in files:
        quoted = path.replace('"', '\\"')
        stream.write(f'M {mode} inline "{quoted}"\ndata {len(data)}\n'.encode())
        stream.write(data + b"\n")


def _some(names: list[str]) -> str:
    shown = ", ".join(inlined(name, 100) for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
