"""The repository of a script run: equal contents are equal commits, nothing is lost, and no edit leaves the folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from postgrad.errors import PostgradError
from postgrad.scripts.paths import EditRefused
from postgrad.scripts.workspace import Workspace
from script_sources import FILES, HIDDEN, TRAIN, git, write_source

SLOWER = TRAIN.replace("RATE = 0.1", "RATE = 0.05")
PATCH = """\
--- a/train.py
+++ b/train.py
@@ -1,5 +1,5 @@
 import json
 
-RATE = 0.1
+RATE = 0.05
 STEPS = 10
 
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source")


@pytest.fixture
def workspace(source: Path, tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "runs" / "r1", "r1", source, HIDDEN, when=1_700_000_000)


def test_the_source_is_the_baseline_and_hidden_files_are_kept_aside(workspace: Workspace, tmp_path: Path) -> None:
    visible = {name: text for name, text in FILES.items() if name not in HIDDEN.values()}
    assert sorted(workspace.files(workspace.baseline)) == sorted(visible)
    workspace.checkout(workspace.baseline, tmp_path / "out")
    lying = {str(p.relative_to(tmp_path / "out")): p.read_text() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert lying == visible
    assert (workspace.hidden("search") / "val.txt").read_text() == FILES["text/val.txt"]
    assert (workspace.hidden("sealed") / "sealed.txt").read_text() == FILES["text/sealed.txt"]
    assert (workspace.folder / "hidden").stat().st_mode & 0o077 == 0
    objects = workspace.git.run("cat-file", "--batch-all-objects", "--batch")
    assert b"a hidden line" not in objects and b"a sealed line" not in objects and b"a line to learn from" in objects


def test_equal_contents_are_equal_commits(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, str, str]] = []
    for name in ("one", "two"):
        monkeypatch.setenv("GIT_AUTHOR_NAME", name)
        monkeypatch.setenv("GIT_COMMITTER_DATE", f"{len(name) * 1_000_000_000 + len(made)} +0100")
        workspace = Workspace.create(tmp_path / name, "r1", source, HIDDEN, when=1_700_000_000)
        commit = workspace.commit("e0002", workspace.baseline, {"train.py": SLOWER.encode()}, "slower")
        made.append((workspace.baseline, commit, workspace.tree_of(commit)))
        assert workspace.commit("e0002", workspace.baseline, {"train.py": SLOWER.encode()}, "slower") == commit
        back = workspace.commit("e0003", commit, {"train.py": TRAIN.encode()}, "back")
        assert workspace.tree_of(back) == workspace.tree_of(workspace.baseline) != workspace.tree_of(commit)
        assert workspace.commits() == {"e0002": commit, "e0003": back}
    assert made[0] == made[1]


def test_a_run_can_be_looked_at_with_any_git(workspace: Workspace, tmp_path: Path) -> None:
    commit = workspace.commit(
        "e0002", workspace.baseline, {"train.py": SLOWER.encode()}, "slower\x1b[2J\0 steps\r\nbody"
    )
    git(tmp_path, "clone", "--quiet", str(workspace.folder / "repo"), "copy")
    assert (tmp_path / "copy" / "train.py").read_text() == TRAIN
    line = git(tmp_path / "copy", "log", "-1", "--format=%H %P %an %at", "origin/postgrad/r1/e0002")
    assert line == f"{commit} {workspace.baseline} Postgrad 1700000000"
    body = git(tmp_path / "copy", "log", "-1", "--format=%B", "origin/postgrad/r1/e0002")
    assert body == "slower\\u001b[2J\\u0000 steps\nbody"
    assert git(tmp_path / "copy", "fsck", "--strict") == ""


def test_another_commit_of_an_experiment_keeps_the_first(workspace: Workspace) -> None:
    first = workspace.commit("e0002", workspace.baseline, {"train.py": b"first\n"}, "one")
    second = workspace.commit("e0002", workspace.baseline, {"train.py": b"second\n"}, "two")
    assert workspace.commits() == {"e0002": second} and first != second
    kept = workspace.git.run("for-each-ref", "--format=%(objectname)", "refs/postgrad/replaced").decode().split()
    assert kept == [first] and workspace.read(first, "train.py") == b"first\n"


def test_diff_and_size_count_lines_whatever_attributes_say(workspace: Workspace) -> None:
    files = {".gitattributes": b"*.py -diff binary\n", "prepare.py": None, "data.bin": bytes(range(256)) + b"\n"}
    hiding = workspace.commit("e0002", workspace.baseline, files, "hides")
    changed = workspace.commit("e0003", hiding, {"train.py": SLOWER.encode()}, "slower")
    assert workspace.size(hiding, changed) == 2 and workspace.size(hiding, hiding) == 0
    # The bytes 0 to 255 hold one end of a line, so the file has two lines.
    assert workspace.size(workspace.baseline, hiding) == 1 + 1 + 2
    shown = workspace.diff(hiding, changed, context=0).splitlines()
    assert shown[2:] == ["--- a/train.py", "+++ b/train.py", "@@ -3 +3 @@ import json", "-RATE = 0.1", "+RATE = 0.05"]
    assert "Binary files" not in "\n".join(shown)


def test_what_a_diff_shows_applies(workspace: Workspace) -> None:
    files = {"train.py": SLOWER.encode(), "prepare.py": None, "lib/ö new.py": "é\n".encode(), 'a"b': b"no end of line"}
    commit = workspace.commit("e0002", workspace.baseline, files, "much")
    assert workspace.apply(workspace.baseline, workspace.diff(workspace.baseline, commit)) == files


@pytest.mark.parametrize(
    "patch",
    [
        PATCH,
        PATCH.rstrip("\n "),
        PATCH.replace("a/train", "train").replace("b/train", "train"),
        PATCH.replace("-1,5 +1,5", "-1,99 +1,2"),
        f"Here is the change:\n\n{PATCH}",
        PATCH.replace("\n", "\r\n"),
    ],
    ids=["plain", "cut end", "no prefixes", "wrong counts", "words before", "ends of lines"],
)
def test_a_patch_from_outside_applies(workspace: Workspace, patch: str) -> None:
    assert workspace.apply(workspace.baseline, patch) == {"train.py": SLOWER.encode()}
    assert list((workspace.folder / "repo" / "unfinished").iterdir()) == []


def test_a_patch_made_from_an_older_commit_is_merged(workspace: Workspace) -> None:
    slower = workspace.commit("e0002", workspace.baseline, {"train.py": SLOWER.encode()}, "slower")
    patch = workspace.diff(workspace.baseline, slower)
    longer = workspace.commit("e0003", workspace.baseline, {"train.py": f"# A new head.\n{TRAIN}".encode()}, "head")
    assert workspace.apply(longer, patch) == {"train.py": f"# A new head.\n{SLOWER}".encode()}
    other = workspace.commit("e0004", workspace.baseline, {"train.py": b"RATE = 0.2\n"}, "other")
    with pytest.raises(EditRefused, match=r"does not apply: error: patch failed: train.py:1"):
        workspace.apply(other, patch)


def added(path: str, mode: str = "100644", text: str = "x") -> str:
    return (
        f"diff --git a/{path} b/{path}\nnew file mode {mode}\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+{text}\n"
        + ("\\ No newline at end of file\n" if mode == "120000" else "")
    )


ESCAPES = {
    "up": added("../out.py"),
    "up inside": added("lib/../../out.py"),
    "absolute": added("/tmp/out.py").replace("a//tmp", "/tmp").replace("b//tmp", "/tmp"),
    "git folder": added(".git/hooks/pre-commit"),
    "git folder in capitals": added("lib/.GIT/config"),
    "short name": added("GIT~1/config"),
    "backslash": added("lib\\..\\..\\out.py"),
    "escape sequence": added('"b/a\\033[2Jb.py"').replace('+++ b/"b/', '+++ "b/'),
    "invisible": added(".g\u200cit/config"),
    "link": added("out", "120000", "/etc"),
    "through a link": added("out", "120000", "/etc") + added("out/passwd"),
    "submodule": added("sub", "160000", "Subproject commit " + "1" * 40),
    "submodules": added(".gitmodules"),
    "executable": added("tool.py", "100755"),
    "mode": "diff --git a/train.py b/train.py\nold mode 100644\nnew mode 100755\n",
    "file for a folder": added("lib"),
    "file under a file": added("train.py/x.py"),
    "binary": "diff --git a/x b/x\nnew file mode 100644\nGIT binary patch\nliteral 1\nIcmZPo000310RR91\n\n",
    "nothing": "I would rather not.",
    "empty": "",
    "too long": PATCH + "#" * 1_000_000,
    "half a character": PATCH + "# \ud800",
    "not that text": PATCH.replace("RATE = 0.1", "RATE = 7"),
}


@pytest.mark.parametrize("patch", ESCAPES.values(), ids=ESCAPES.keys())
def test_a_patch_that_escapes_is_refused(workspace: Workspace, patch: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(EditRefused) as caught:
        workspace.apply(workspace.baseline, patch)
    assert str(caught.value).isprintable() or "\n" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before and not Path("/tmp/out.py").exists()
    assert workspace.commits() == {}


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("../x", "may lead out"),
        ("/x", "absolute"),
        ("a//b", "may lead out"),
        ("a/./b", "may lead out"),
        ("", "empty"),
        (".git/config", "git's own folder"),
        ("a/.Git. /x", "git's own folder"),
        ("a\nM 100644 inline b", "control or invisible"),
        ("a\\b", "backslash"),
        ("lib", "a file and the folder"),
        ("train.py/x", "a file and the folder"),
        ("x" * 300, "longer than 255"),
    ],
)
def test_a_file_that_may_not_be_is_refused(workspace: Workspace, path: str, why: str) -> None:
    with pytest.raises(EditRefused, match=why):
        workspace.commit("e0002", workspace.baseline, {path: b"x"}, "x")
    assert workspace.commits() == {}


def test_edits_that_do_not_hold_together_are_refused(workspace: Workspace) -> None:
    with pytest.raises(EditRefused, match="no file .* to delete"):
        workspace.commit("e0002", workspace.baseline, {"none.py": None}, "x")
    with pytest.raises(PostgradError, match="not the name of a commit"):
        workspace.commit("e0002", "--output=x", {"a": b""}, "x")
    with pytest.raises(PostgradError, match="cannot name a branch"):
        workspace.commit("../e0002", workspace.baseline, {"a": b""}, "x")
    with pytest.raises(PostgradError, match="never committed again"):
        workspace.commit("baseline", workspace.baseline, {"a": b""}, "x")
    with pytest.raises(PostgradError, match="failed"):
        workspace.commit("e0002", "1" * 40, {"a": b""}, "x")
    assert workspace.commit("e0002", workspace.baseline, {"lib/model.py": None, "lib": b"a file now\n"}, "x")


WRITER = """\
import sys, time
from pathlib import Path
from postgrad.scripts.workspace import Workspace

workspace = Workspace.open(Path(sys.argv[1]), "r1")
parent = workspace.baseline
for number in range(10_000):
    edit = {"train.py": b"x = %d\\n" % number * 20_000, f"lib/f{number % 50}.py": b"y = %d\\n" % number}
    parent = workspace.commit(f"e{number:04d}", parent, edit, f"number {number}")
    print(parent, flush=True)
"""


def test_kill_in_the_middle_of_commits(workspace: Workspace) -> None:
    """Whatever was said to be committed is there after kill -9, and the next commit can be made."""
    said: list[str] = []
    for wait, git_too in ((0.30, True), (0.37, False), (0.45, True), (0.53, False)):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(workspace.folder)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert writer.stdout is not None
        said = [writer.stdout.readline().strip()]
        time.sleep(wait)
        # Git is in a session of its own: it ends what it began, or is killed as well and leaves what it leaves.
        for child in _children(writer.pid) if git_too else []:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        os.killpg(writer.pid, signal.SIGKILL)
        said += writer.communicate()[0].split()
        workspace.repair()
        commits = workspace.commits()
        assert [commits[f"e{number:04d}"] for number in range(len(said))] == said
        assert workspace.git.ask("fsck", "--strict", "--no-dangling").status == 0
    head = said[-1]
    after = workspace.commit(f"e{len(said):04d}", head, {"train.py": b"goes on\n"}, "goes on")
    assert workspace.read(after, "train.py") == b"goes on\n" and workspace.read(head, "prepare.py") == b"VALUE = 1\n"
    names = [file.name for file in workspace.git.folder.rglob("*")]
    assert not [name for name in names if name.startswith(("tmp_", "fast_import")) or name.endswith(".lock")]


def _children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in found.stdout.split()]


def test_writers_side_by_side(workspace: Workspace) -> None:
    edits = {f"e{number:04d}": {"train.py": b"x = %d\n" % number} for number in range(24)}
    with ThreadPoolExecutor(8) as pool:
        asked = {
            name: pool.submit(workspace.commit, name, workspace.baseline, edit, "x") for name, edit in edits.items()
        }
        patches = [pool.submit(workspace.apply, workspace.baseline, PATCH) for _ in range(8)]
    assert workspace.commits() == {name: one.result() for name, one in asked.items()}
    assert all(workspace.read(one.result(), "train.py") == edits[name]["train.py"] for name, one in asked.items())
    assert all(one.result() == {"train.py": SLOWER.encode()} for one in patches)


def test_repair_removes_locks_of_the_dead(workspace: Workspace) -> None:
    commit = workspace.commit("e0002", workspace.baseline, {"train.py": SLOWER.encode()}, "x")
    branch = workspace.git.folder / "refs" / "heads" / "postgrad" / "r1" / "e0003.lock"
    for left in (branch, workspace.git.folder / "packed-refs.lock", workspace.git.folder / "objects" / "tmp_obj_abc"):
        left.write_text("half")
    (workspace.git.folder / "unfinished" / "tmpx").mkdir()
    with pytest.raises(PostgradError, match="lock"):
        workspace.commit("e0003", commit, {"train.py": b"x\n"}, "x")
    workspace.repair()
    assert set(workspace.commits()) == {"e0002"}
    assert workspace.commit("e0003", commit, {"train.py": b"x\n"}, "x")


def test_repair_waits_for_a_writer(workspace: Workspace) -> None:
    with (
        workspace.git.lock(alone=False),
        workspace.git.lock(alone=False),
        pytest.raises(PostgradError, match="Another process works"),
        workspace.git.lock(alone=True, wait_s=0.05),
    ):
        raise AssertionError("two had it")


@pytest.mark.slow
def test_many_commits_stay_fast(workspace: Workspace) -> None:
    parent, times = workspace.baseline, []
    for number in range(1, 1_001):
        begin = time.perf_counter()
        parent = workspace.commit(f"e{number:04d}", parent, {"train.py": b"x = %d\n" % number}, "x")
        times.append(time.perf_counter() - begin)
    assert len(workspace.commits()) == 1_000
    middle = sorted(times)[500]
    print(f"{middle * 1000:.0f} ms a commit (median), the last hundred {sum(times[-100:]) * 10:.0f} ms")
    # It takes 10 ms on a quiet machine and 45 ms on a busy one.
    assert middle < 0.35
