"""What of a person's folder becomes the baseline of a script run, and what an experiment may change of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from postgrad.errors import UserError
from postgrad.scripts import source as sources
from postgrad.scripts.protect import Rules, hashes, tampered
from postgrad.scripts.workspace import Workspace
from script_sources import FILES, HIDDEN, git, write_source


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source")


def create(source: Path, folder: Path, hidden: dict[str, str] | None = None) -> Workspace:
    return Workspace.create(folder, "r1", source, HIDDEN if hidden is None else hidden)


def names(workspace: Workspace) -> set[str]:
    return set(workspace.files(workspace.baseline))


def test_of_a_repository_the_tracked_files_as_they_lie(source: Path, tmp_path: Path) -> None:
    git(source, "init", "--quiet")
    git(source, "add", ".")
    git(source, "commit", "--quiet", "-m", "x")
    (source / "train.py").write_text("print('not committed')\n")
    (source / "prepare.py").unlink()
    (source / "notes.tsv").write_text("untracked\n")
    (source / "text" / "train.txt").chmod(0o755)
    index = (source / ".git" / "index").read_bytes()
    workspace = create(source, tmp_path / "run")
    assert names(workspace) == {"train.py", "lib/model.py", "text/train.txt"}
    assert workspace.read(workspace.baseline, "train.py") == b"print('not committed')\n"
    assert set(workspace.left_out) == {"notes.tsv (not tracked)", "text/val.txt (hidden)", "text/sealed.txt (hidden)"}
    workspace.checkout(workspace.baseline, tmp_path / "out")
    assert os.access(tmp_path / "out" / "text" / "train.txt", os.X_OK)
    assert not os.access(tmp_path / "out" / "train.py", os.X_OK)
    assert (source / ".git" / "index").read_bytes() == index


def test_a_folder_within_a_repository_is_the_source(source: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "source/lib")
    assert names(create(source, tmp_path / "one", {})) == {"lib/model.py"}
    git(tmp_path, "rm", "--quiet", "--cached", "-r", "source/lib")
    assert names(create(source, tmp_path / "two", {})) == set(FILES)


def test_nothing_that_a_repository_names_is_started(source: Path, tmp_path: Path) -> None:
    """Hooks, a watcher of files, filters and a signing program are settings of the repository, and programs."""
    git(source, "init", "--quiet")
    git(source, "add", ".")
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho ran >> '{tmp_path}/ran'\ncat\n")
    program.chmod(0o755)
    hooks = {f"hooks/{name}": program for name in ("reference-transaction", "post-index-change", "pre-commit")}
    for name in hooks:
        (source / ".git" / "hooks").mkdir(exist_ok=True)
        shutil.copy(program, source / ".git" / name)
    (source / ".gitattributes").write_text("* filter=evil diff=evil\n")
    git(source, "add", ".gitattributes")
    settings = ("core.fsmonitor", "filter.evil.clean", "filter.evil.smudge", "diff.evil.textconv", "gpg.program")
    for key in settings:
        git(source, "config", key, str(program))
    git(source, "config", "commit.gpgSign", "true")
    (tmp_path / "ran").unlink(missing_ok=True)
    subprocess.run(["git", "status"], cwd=source, capture_output=True, check=True)
    assert (tmp_path / "ran").exists(), "a person's git would have started the program"
    (tmp_path / "ran").unlink()
    workspace = create(source, tmp_path / "run")
    commit = workspace.commit("e0002", workspace.baseline, {"train.py": b"x = 1\n"}, "x")
    workspace.checkout(commit, tmp_path / "out")
    assert "x = 1" in workspace.diff(workspace.baseline, commit)
    assert workspace.apply(commit, workspace.diff(commit, workspace.baseline))
    assert not (tmp_path / "ran").exists()


def test_of_a_plain_folder_what_is_not_ignored(source: Path, tmp_path: Path) -> None:
    (source / ".gitignore").write_text("*.log\n/data/\n")
    (source / "lib" / ".gitignore").write_text("!keep.log\n")
    for name in ("a.log", "lib/keep.log", "data/big", "runs/old/hidden/val.txt", "lib/runs/ours", "lib/__pycache__/x"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("x\n")
    workspace = create(source, source / "elsewhere" / "r1")
    visible = set(FILES) - set(HIDDEN.values())
    assert names(workspace) == visible | {".gitignore", "lib/.gitignore", "lib/keep.log", "lib/runs/ours"}
    assert "runs/ (the folder of runs)" in workspace.left_out


def test_links_that_leave_and_what_is_no_file_stay_out(source: Path, tmp_path: Path) -> None:
    outside = tmp_path / "secret"
    outside.write_text("keys\n")
    links = {
        "inside.py": "train.py",
        "lib/up.py": "../train.py",
        "folder": "lib",
        "absolute.py": str(source / "train.py"),
        "out.py": "../secret",
        "around.py": "../source/train.py",
        "out": "..",
        "over.py": "out/secret",
        "to-hidden.txt": "text/val.txt",
    }
    for name, target in links.items():
        (source / name).symlink_to(target)
    os.mkfifo(source / "pipe")
    workspace = create(source, tmp_path / "run")
    assert names(workspace) == (set(FILES) - set(HIDDEN.values())) | {"inside.py", "lib/up.py", "folder"}
    workspace.checkout(workspace.baseline, tmp_path / "out")
    assert os.readlink(tmp_path / "out" / "lib" / "up.py") == "../train.py"
    left = {note.partition(" (")[0] for note in workspace.left_out}
    assert left >= {"absolute.py", "out.py", "around.py", "out", "over.py", "to-hidden.txt"}


def test_a_kill_while_importing_leaves_nothing_half(source: Path, tmp_path: Path) -> None:
    whole = create(source, tmp_path / "whole")
    run = tmp_path / "run"
    for left in ("repo.unfinished/refs", "hidden.unfinished/search", "hidden/search"):
        (run / left).mkdir(parents=True)
    (run / "repo").mkdir()
    workspace = create(source, run)
    assert workspace.baseline == whole.baseline and not list(run.glob("*.unfinished"))
    commit = workspace.commit("e0002", workspace.baseline, {"train.py": b"x\n"}, "x")
    (source / "train.py").write_text("changed later\n")
    assert create(source, run) == workspace == Workspace.open(run, "r1")
    assert workspace.commits() == {"e0002": commit}


IMPORTER = """\
import sys
from pathlib import Path
from postgrad.scripts.workspace import Workspace

print("begins", flush=True)
Workspace.create(Path(sys.argv[2]), "r1", Path(sys.argv[1]), {"search": "text/val.txt", "sealed": "text/sealed.txt"})
"""


def test_an_import_that_is_killed_is_made_again(source: Path, tmp_path: Path) -> None:
    for number in range(200):
        (source / f"f{number}.py").write_text(f"x = {number}\n" * 2_000)
    whole = create(source, tmp_path / "whole")
    run = tmp_path / "run"
    for wait in (0.0, 0.02, 0.05, 0.1):
        command = [sys.executable, "-c", IMPORTER, str(source), str(run)]
        importer = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert importer.stdout is not None
        importer.stdout.readline()
        time.sleep(wait)
        importer.kill()
        importer.communicate()
        if (run / "repo").exists():
            assert Workspace.open(run, "r1").baseline == whole.baseline
    assert create(source, run).baseline == whole.baseline
    assert {path.name for path in run.iterdir()} == {"repo", "hidden"}
    assert (run / "hidden" / "search" / "val.txt").read_text() == FILES["text/val.txt"]


def test_what_cannot_be_taken_is_said(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    with pytest.raises(UserError, match="hidden file of 'search' is not there"):
        create(source, run, {"search": "text/none.txt"})
    for whole in (".", "..", "lib/.."):
        with pytest.raises(UserError, match="is the whole source"):
            create(source, run, {"search": whole})
    with pytest.raises(UserError, match="is not a folder"):
        create(source / "train.py", run, {})
    with pytest.raises(UserError, match="has no file to begin with"):
        create(source / "text", run, {"search": "val.txt", "sealed": "sealed.txt", "more": "train.txt"})
    with pytest.raises(UserError, match="no repository of a script"):
        Workspace.open(run, "r1")
    shutil.copy(source / "text" / "val.txt", source / "lib" / "copy.txt")
    with pytest.raises(UserError, match='"lib/copy.txt" is a copy of the hidden file "text/val.txt"'):
        create(source, run)
    (source / "lib" / "copy.txt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UserError, match="pointer of git LFS"):
        create(source, run)
    (source / "lib" / "copy.txt").unlink()
    (source / "bad\nname").write_text("x")
    with pytest.raises(UserError, match="control or invisible"):
        create(source, run)
    (source / "bad\nname").unlink()
    monkeypatch.setattr(sources, "MOST_BYTES", 30)
    with pytest.raises(UserError, match=r"at most .* are taken\. The largest: \"train.py\""):
        create(source, run)
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="git is not installed. Install it"):
        create(source, run)


def test_submodules_are_refused_in_words(source: Path, tmp_path: Path) -> None:
    inner = write_source(tmp_path / "inner")
    git(inner, "init", "--quiet")
    git(inner, "add", ".")
    git(inner, "commit", "--quiet", "-m", "x")
    git(source, "clone", "--quiet", str(inner), "sub")
    with pytest.raises(UserError, match='submodules.* are not supported: "sub/"'):
        create(source, tmp_path / "run")
    shutil.rmtree(source / "sub")
    git(source, "init", "--quiet")
    git(source, "submodule", "add", "--quiet", str(inner), "sub")
    with pytest.raises(UserError, match='submodules.* are not supported: "sub"'):
        create(source, tmp_path / "run")


def test_a_hidden_folder_and_a_hidden_file_outside(source: Path, tmp_path: Path) -> None:
    (tmp_path / "private.txt").write_text("elsewhere\n")
    (source / "text" / "link.txt").symlink_to("val.txt")
    hidden = {"search": "text/link.txt", "sealed": "../private.txt", "folder": "lib"}
    workspace = create(source, tmp_path / "run", hidden)
    assert names(workspace) == {"train.py", "prepare.py", "text/train.txt", "text/sealed.txt"}
    assert (workspace.hidden("search") / "link.txt").read_text() == FILES["text/val.txt"]
    assert (workspace.hidden("sealed") / "private.txt").read_text() == "elsewhere\n"
    assert (workspace.hidden("folder") / "lib" / "model.py").is_file()


@pytest.mark.parametrize(
    ("editable", "protected", "allowed", "refused"),
    [
        (["train.py"], [], ["train.py", "lib/train.py"], ["prepare.py", "train.pyc", "../train.py", "/train.py"]),
        (["/train.py"], [], ["train.py"], ["lib/train.py"]),
        (["train.py"], ["*.py"], ["train.py"], ["prepare.py", "notes.txt", "lib/train.py"]),
        (["*.py"], ["prepare.py"], ["train.py", "lib/model.py"], ["prepare.py", "lib/prepare.py", "a.txt"]),
        (["*.py", "!prepare.py"], [], ["train.py"], ["prepare.py"]),
        (
            ["lib/", "conf/**/*.yaml"],
            [],
            ["lib/a", "lib/b/c", "conf/a.yaml", "conf/b/c/a.yaml"],
            ["conf/a.py", "x/conf/a.yaml"],
        ),
        (["train.py"], ["train.py"], [], ["train.py"]),
        (["*"], [], ["train.py"], [".git/config", "a/../b", "a\\b", "a\nb"]),
    ],
)
def test_rules(editable: list[str], protected: list[str], allowed: list[str], refused: list[str]) -> None:
    rules = Rules(tuple(editable), tuple(protected))
    assert [path for path in allowed if not rules.allowed(path)] == []
    assert [path for path in refused if rules.allowed(path)] == []


def test_what_is_guarded_while_the_script_runs() -> None:
    every, some = Rules(("train.py",)), Rules(("train.py",), ("*.py",))
    assert [every.guarded(path) for path in ("train.py", "prepare.py", "log.txt")] == [False, True, True]
    assert [some.guarded(path) for path in ("train.py", "prepare.py", "log.txt")] == [False, True, False]
    with pytest.raises(UserError, match="No file is editable"):
        Rules(())
    with pytest.raises(UserError, match="cannot be read"):
        Rules(("!",))


def test_changes_that_may_not_be_are_listed(source: Path, tmp_path: Path) -> None:
    workspace = create(source, tmp_path / "run")
    edit = {"train.py": b"x\n", "prepare.py": b"VALUE = 2\n", "lib/model.py": None, "new.py": b"x\n"}
    commit = workspace.commit("e0002", workspace.baseline, edit, "x")
    assert Rules(("train.py",)).refused(workspace.differing(workspace.baseline, commit)) == [
        "lib/model.py",
        "new.py",
        "prepare.py",
    ]
    assert Rules(("*.py",)).refused(workspace.differing(workspace.baseline, commit)) == []


def test_what_was_tampered_with_is_named(source: Path, tmp_path: Path) -> None:
    for number in range(9):
        (source / f"f{number}.py").write_text(f"{number}\n")
    (source / "good-link").symlink_to("f0.py")
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "x.py").write_text("x\n")
    workspace = create(source, tmp_path / "run")
    out = tmp_path / "out"
    workspace.checkout(workspace.baseline, out)
    paths = [path for path in workspace.files(workspace.baseline)]
    before = hashes(out, paths)
    assert before["good-link"] == "a link to f0.py" and before["f0.py"].startswith("file ")
    (out / "new.py").write_text("x")
    (out / "f0.py").write_text("0\n")
    assert tampered(before, hashes(out, paths)) == []
    (out / "f1.py").write_text("changed\n")
    (out / "f2.py").unlink()
    (out / "f3.py").rename(tmp_path / "f3.py")
    (out / "f3.py").symlink_to(tmp_path / "f3.py")
    (out / "f4.py").chmod(0o755)
    (out / "f5.py").unlink()
    os.mkfifo(out / "f5.py")
    (out / "f6.py").unlink()
    (out / "f6.py").mkdir()
    (out / "deep").rename(tmp_path / "deep")
    (out / "deep").symlink_to(tmp_path / "deep")
    (out / "good-link").unlink()
    (out / "good-link").symlink_to("f1.py")
    after = hashes(out, paths)
    wrong = ["deep/er/x.py", "f1.py", "f2.py", "f3.py", "f4.py", "f5.py", "f6.py", "good-link"]
    assert tampered(before, after) == wrong
    assert [after[path].split(" to ")[0].split(" ")[0] for path in wrong[1:]] == [
        "file",
        "missing",
        "a",
        "program",
        "not",
        "not",
        "a",
    ]
