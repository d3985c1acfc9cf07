"""Artefacts: what is put comes back as it was, or a message names the hash of what does not."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postgrad.errors import PostgradError, UserError
from postgrad.store.artifacts import Artifacts


@pytest.fixture
def kept(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "run" / "artifacts")


def harm(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


@given(st.binary(max_size=2000))
@settings(deadline=None, database=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_come_back_under_the_name_of_their_hash(kept: Artifacts, data: bytes) -> None:
    name = kept.put_bytes(data)
    assert kept.put_bytes(data) == name
    assert kept.read(name) == data
    assert kept.verify(name)
    assert kept.path(name) == kept.folder / name[:2] / name[2:]
    assert not list((kept.folder / "unfinished").iterdir())


def test_the_name_is_the_sha256(kept: Artifacts, tmp_path: Path) -> None:
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "abc").write_bytes(b"abc")
    assert kept.put_bytes(b"abc") == kept.put_file(tmp_path / "abc") == known
    assert (tmp_path / "abc").exists()


def test_a_file_of_many_chunks(kept: Artifacts, tmp_path: Path) -> None:
    data = random.Random(0).randbytes(3_000_001)
    (tmp_path / "big").write_bytes(data)
    assert kept.read(kept.put_file(tmp_path / "big")) == data


def test_damage_is_found_and_putting_again_heals_it(kept: Artifacts) -> None:
    name = kept.put_bytes(b"precious")
    for harmed in (b"", b"precious ", b"Precious"):
        harm(kept.path(name), harmed)
        assert not kept.verify(name)
        with pytest.raises(PostgradError, match=f"{name} is damaged"):
            kept.read(name)
    assert kept.put_bytes(b"precious") == name
    assert kept.read(name) == b"precious"


def test_a_missing_artefact_gets_a_message_with_its_hash(kept: Artifacts) -> None:
    for name in ("0" * 64, kept.put_bytes(b"gone")):
        shutil.rmtree(kept.folder / name[:2], ignore_errors=True)
        assert not kept.verify(name)
        for ask in (kept.path, kept.read):
            with pytest.raises(PostgradError, match=f"{name} is missing"):
                ask(name)


@pytest.mark.parametrize("name", ["", "abc", "../../etc/passwd", "A" * 64, "0" * 63 + "\n"])
def test_what_is_no_hash_is_refused(kept: Artifacts, name: str) -> None:
    assert not kept.verify(name)
    with pytest.raises(PostgradError, match="no artefact hash"):
        kept.path(name)


def a_model(folder: Path, names: tuple[str, ...] = ("weights.bin", "deep/er/config.json", "ü.txt")) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * 10)
    return folder


def test_a_folder_has_one_hash_whatever_the_order_of_its_files(kept: Artifacts, tmp_path: Path) -> None:
    one = a_model(tmp_path / "one")
    two = a_model(tmp_path / "two", ("ü.txt", "deep/er/config.json", "weights.bin"))
    (two / "nothing-in-here").mkdir()
    name = kept.put_folder(one)
    assert kept.put_folder(two) == name
    (two / "weights.bin").rename(two / "other.bin")
    assert kept.put_folder(two) != name
    (tmp_path / "none").mkdir()
    assert kept.put_folder(tmp_path / "none") not in (name, kept.put_folder(two))


def test_a_folder_comes_back_and_can_be_written(kept: Artifacts, tmp_path: Path) -> None:
    model = a_model(tmp_path / "model")
    (model / "link.bin").symlink_to(model / "weights.bin")
    name = kept.put_folder(model)
    kept.restore_folder(name, tmp_path / "new" / "place")
    back = {path.relative_to(tmp_path / "new/place").as_posix() for path in (tmp_path / "new/place").rglob("*.*")}
    assert back == {"weights.bin", "deep/er/config.json", "ü.txt", "link.bin"}
    assert (tmp_path / "new/place/link.bin").read_bytes() == (model / "weights.bin").read_bytes()
    assert not (tmp_path / "new/place/link.bin").is_symlink()
    assert os.stat(tmp_path / "new/place/weights.bin").st_mode & 0o200
    with pytest.raises(UserError, match="is not empty"):
        kept.restore_folder(name, tmp_path / "new" / "place")


def test_a_folder_with_a_damaged_file_is_not_restored(kept: Artifacts, tmp_path: Path) -> None:
    name = kept.put_folder(a_model(tmp_path / "model"))
    weights = kept.put_bytes(b"weights.bin" * 10)
    assert kept.verify(name)
    harm(kept.path(weights), b"other")
    assert not kept.verify(name)
    with pytest.raises(PostgradError, match=f"{weights} is damaged"):
        kept.restore_folder(name, tmp_path / "back")
    kept.path(weights).unlink()
    assert not kept.verify(name)
    with pytest.raises(PostgradError, match=f"{weights} is missing"):
        kept.restore_folder(name, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_what_cannot_be_stored_gets_a_message(kept: Artifacts, tmp_path: Path) -> None:
    with pytest.raises(PostgradError, match="Cannot store the file none.*No such file"):
        kept.put_file(tmp_path / "none")
    with pytest.raises(PostgradError, match="there is none"):
        kept.put_folder(tmp_path / "none")
    os.mkfifo(a_model(tmp_path / "model") / "pipe")
    with pytest.raises(PostgradError, match="pipe is neither a file nor a plain folder"):
        kept.put_folder(tmp_path / "model")
    with pytest.raises(PostgradError, match="is a file, not a folder"):
        kept.restore_folder(kept.put_bytes(b"{}"), tmp_path / "back")


def test_a_manifest_cannot_name_a_file_outside(kept: Artifacts, tmp_path: Path) -> None:
    content = kept.put_bytes(b"evil")
    for path in ("../evil", "/tmp/evil", "a/../../evil"):
        name = kept.put_bytes(b'{"postgrad_folder":1,"files":{"%s":"%s"}}' % (path.encode(), content.encode()))
        with pytest.raises(PostgradError, match="outside its folder"):
            kept.restore_folder(name, tmp_path / "back" / "here")
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("rest", [b"", b"}", b"[]}", b'{"a":1}}', b'{"a":"b"}}', b"\xff}", b"{}}}"])
def test_bytes_that_begin_like_a_manifest_are_bytes(kept: Artifacts, tmp_path: Path, rest: bytes) -> None:
    name = kept.put_bytes(b'{"postgrad_folder":1,"files":' + rest)
    assert kept.verify(name)
    with pytest.raises(PostgradError, match="is a file, not a folder"):
        kept.restore_folder(name, tmp_path / "back")
