"""What is hashed once and not touched is not hashed again, and nothing that somebody changed passes for whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Callable

import pytest

from postgrad.errors import PostgradError
from postgrad.events import JobFinished, Rebuilt
from postgrad.store.artifacts import Artifacts
from postgrad.store.checked import FILE, NAME, state_of
from test_keeping import bodies_of, driven, fresh


@pytest.fixture
def kept(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "run" / "artifacts")


def again(kept: Artifacts) -> Artifacts:
    """As the next process sees it."""
    return Artifacts(kept.folder)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))


def flipped_and_dated_back(path: Path) -> None:
    before = path.stat()
    flipped(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"y" * path.stat().st_size)
    other.replace(path)


def rotten(kept: Artifacts, digest: str) -> None:
    """Other bytes under a file that looks untouched, as of a disk that fails."""
    flipped(kept.path(digest))
    with (kept.folder / NAME).open("a") as file:
        file.write(f"{digest} {FILE} {state_of(kept.path(digest))}\n")


HARM: dict[str, Callable[[Path], None]] = {
    "deleted": Path.unlink,
    "cut": cut,
    "flipped": flipped,
    "dated back": flipped_and_dated_back,
    "replaced": replaced,
}


@pytest.mark.parametrize("how", HARM)
@pytest.mark.parametrize("what", ["a file", "a list", "a file of a list"])
def test_what_somebody_changed_is_not_whole(kept: Artifacts, tmp_path: Path, how: str, what: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"w" * 5000)
    single, folder = kept.put_bytes(b"x" * 3000), kept.put_folder(tmp_path / "model")
    inner = (kept.files(folder) or {})["weights"]
    assert all(again(kept).whole(name) for name in (single, folder, inner))
    struck = {"a file": single, "a list": folder, "a file of a list": inner}[what]
    HARM[how](kept.path(struck))
    hurt = {single} if what == "a file" else {folder} if what == "a list" else {folder, inner}
    for one in (again(kept), kept):
        assert {name for name in (single, folder, inner) if not one.whole(name)} == hurt
        assert {name for name in (single, folder, inner) if not one.verify(name)} == hurt


def test_what_was_not_touched_is_not_hashed_and_reading_finds_what_the_disk_changed(kept: Artifacts) -> None:
    name = kept.put_bytes(b"x" * 3000)
    rotten(kept, name)
    assert again(kept).whole(name) and not kept.verify(name), "it was not hashed"
    with pytest.raises(PostgradError, match="damaged"):
        again(kept).read(name)
    assert not again(kept).whole(name), "what was found damaged is hashed from then on"
    assert kept.put_bytes(b"x" * 3000) == name and again(kept).whole(name), "until it is put again"


@pytest.mark.parametrize("left", ["nothing", "half a line", "no text"])
def test_without_the_list_everything_is_hashed_and_then_known(kept: Artifacts, left: str) -> None:
    names = [kept.put_bytes(bytes([number]) * 100) for number in range(3)]
    place = kept.folder / NAME
    place.write_bytes({"nothing": b"", "half a line": place.read_bytes()[:-5], "no text": b"\xff\xfe"}[left])
    flipped(kept.path(names[2]))
    for _ in range(2):
        assert [again(kept).whole(name) for name in names] == [True, True, False]
    copy = kept.folder.with_name("copy")
    shutil.copytree(kept.folder, copy)
    assert [Artifacts(copy).whole(name) for name in names] == [True, True, False], "a copy is hashed once"


def test_no_hash_is_not_whole_and_what_was_looked_up_is_let_go(kept: Artifacts) -> None:
    name = kept.put_bytes(b"x")
    assert not kept.whole("../x") and kept.whole(name)
    kept.path(name).unlink()
    kept.forget_checks()
    assert not kept.whole(name)


def test_a_run_makes_again_what_reading_found_damaged(tmp_path: Path) -> None:
    folder = fresh(tmp_path)
    champion = driven(folder)
    store = Artifacts(folder / "artifacts")
    finished: JobFinished = bodies_of(folder, JobFinished)[-1]
    digest = finished.result.units[0].outputs
    rotten(store, digest)
    with pytest.raises(PostgradError, match="damaged"):
        store.read(digest)
    assert driven(folder) == champion
    assert [body.artefacts for body in bodies_of(folder, Rebuilt)] == [(digest,)] and store.verify(digest)
