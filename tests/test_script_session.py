"""What the session of a script remembers, and what that must not change: items that were named, versions that are the
same but for seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from postgrad.certify import _lost
from postgrad.events import JobFinished
from postgrad.records import Failure, Hardware, JobResult, UnitResult, Usage
from postgrad.records.job import unit_seed
from postgrad.report.view import build_view
from postgrad.report.wording import metric_name
from postgrad.runner import drive, opened
from postgrad.scripts.evidence import End, weighed
from postgrad.scripts.outlook import script_outlook
from postgrad.scripts.researcher import ScriptResearcher
from postgrad.scripts.scores import stored
from postgrad.scripts.seal import FURTHER_SEEDS
from postgrad.scripts.session import ScriptSession
from postgrad.scripts.versions import Versions
from postgrad.scripts.workspace import Workspace
from postgrad.seal import SEALED_SEED
from postgrad.session import Job, Session
from postgrad.spec import load_task
from postgrad.store.sqlite import SqliteStore
from postgrad.tree import Tree
from script_sources import HIDDEN, TRAIN, write_source
from test_scripts import MEASURED, REFEREE, Editing, driven, run_of, task_of
from test_scripts import TRAIN as SCRIPT


def of_names(session: Session, names: str, usage: Usage | None = None) -> JobResult:
    """What a job on the select split gives back whose referee named these items."""
    outputs = session.store.artifacts.put_bytes(stored({name: 5.0 for name in names}))
    unit = UnitResult(name="select", outputs=outputs, wall_s=1.0)
    return JobResult(job="select", units=(unit,), usage=usage or Usage())


def finished(session: Session, experiment: str, names: str, usage: Usage | None = None) -> str:
    """A job of an experiment on the select split that ended, in the log; what the referee named in it."""
    result = of_names(session, names, usage).model_copy(update={"job": f"{experiment}-select"})
    session.append(JobFinished(job=result.job, experiment=experiment, purpose="select", result=result))
    return result.units[0].outputs


def test_what_the_referee_named_is_read_once_and_known_after_a_resume(tmp_path: Path) -> None:
    folder = run_of(tmp_path, task_of(tmp_path))
    with opened(SqliteStore.open(folder, write=True)) as session:
        assert isinstance(session, ScriptSession)
        outputs = finished(session, "e0000", "abc")
        assert set(session.rows("select")) == set("abc") and not session.rows("search")
        place = session.store.artifacts.path(outputs)
        aside = place.rename(tmp_path / "aside")
        finished(session, "e0001", "bcd")
        assert list(session.rows("select")) == list("abcd"), "the first outputs are not read again"
        aside.rename(place)
    with opened(SqliteStore.open(folder, write=True)) as session:
        assert list(session.rows("select")) == list("abcd")


# --- versions of the files --------------------------------------------------------------------------------------------


def test_of_the_files_of_a_version_only_what_it_changed_is_read_and_once(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    (source / "linked.py").symlink_to("train.py")
    workspace = Workspace.create((tmp_path / "run").resolve(), "r", source, HIDDEN)
    seeded = workspace.commit("e0001", workspace.baseline, {"train.py": f"SEED = 1\n{TRAIN}".encode()}, "a seed")
    other = workspace.commit("e0002", workspace.baseline, {"train.py": f"SEED = 2\n{TRAIN}".encode()}, "another")
    same = workspace.commit("e0003", workspace.baseline, {"train.py": f"# a word\n{TRAIN}".encode()}, "a comment")
    gone = workspace.commit("e0004", workspace.baseline, {"lib/model.py": None}, "a file goes")
    versions = Versions(workspace, ["prepare.py"])
    assert "linked.py" not in versions.source and "train.py" in versions.source
    untouched = workspace.files(workspace.baseline)["prepare.py"]
    (workspace.git.folder / "objects" / untouched[:2] / untouched[2:]).unlink()
    names = {commit: versions.apart_from_seeds(workspace.tree_of(commit)) for commit in (seeded, other, same, gone)}
    assert names[same] == versions.apart_from_seeds("") and names[seeded] == names[other] != names[same]
    assert names[gone] == {("lib/model.py", "")}
    changed = workspace.files(seeded)["train.py"]
    (workspace.git.folder / "objects" / changed[:2] / changed[2:]).unlink()
    again = workspace.commit("e0005", seeded, {"lib/model.py": None}, "both")
    assert versions.apart_from_seeds(workspace.tree_of(again)) == names[seeded] | names[gone], "known by its name"


def test_each_editable_file_has_its_own_numbers(tmp_path: Path) -> None:
    task_of(tmp_path, budget="3 experiments", more={"model.py": "DROPOUT = 0.1\nprint(DROPOUT)\n"})
    path = tmp_path / "task.yaml"
    path.write_text(path.read_text().replace("editable: [train.py]", "editable: [train.py, model.py]"))
    folder = run_of(tmp_path, load_task(path))
    with opened(SqliteStore.open(folder, write=True)) as session:
        assert isinstance(session, ScriptSession)
        drive(session)
        researcher = ScriptResearcher(session)
        first = session.tree["e0001"]
        found = {name: researcher._tried(first, name).values for name in ("model.py", "train.py", "none.py")}
    assert set(found["model.py"]) == {"DROPOUT"} and "LEARNING_RATE" in found["train.py"]
    assert "DROPOUT" not in found["train.py"] and not found["none.py"]


# --- what is missing at the end ---------------------------------------------------------------------------------------

CRASH = Failure(boundary="train", kind="crash", message="It ended with exit code 1.")
WELL, BAD = End(None, again=False), End(CRASH, again=False)


def items(*names: str) -> dict[str, float]:
    return dict.fromkeys(names, 1.0)


@pytest.mark.parametrize(
    ("ended", "refused", "told"),
    [
        ((WELL, WELL, WELL), None, ()),
        ((WELL, WELL, BAD), None, ("1 of 3 final trainings of e0004 failed (train/crash)",)),
        ((WELL, BAD, BAD), "2 of 3 final trainings of e0004 failed (train/crash)", ()),
        (
            (WELL, WELL, End(None, again=True)),
            None,
            ("1 of 3 final trainings of e0004 gave a number only when tried again after a failure",),
        ),
    ],
)
def test_final_trainings_that_failed_are_told_or_refuse_the_claim(
    ended: tuple[End, ...], refused: str | None, told: tuple[str, ...]
) -> None:
    count = sum(each.failure is None for each in ended)
    why, remarks = weighed(
        {"e0004": ended, "e0000": (WELL,) * 3}, {"e0004": [items("a")] * count, "e0000": [items("a")]}
    )
    assert remarks == told and (why is None) == (refused is None)
    assert refused is None or refused in str(why)


def test_items_that_one_side_lacks_are_told_and_many_refuse_the_claim() -> None:
    names = [f"val{number:02d}" for number in range(20)]
    every, ended = items(*names), {"e0004": (WELL,), "e0000": (WELL,)}
    assert weighed(ended, {"e0004": [every], "e0000": [every]}) == (None, ())
    why, remarks = weighed(ended, {"e0004": [every, items(*names[2:])], "e0000": [every]})
    said = 'the referee did not name 2 of 20 items of e0004: "val00", "val01"'
    assert why is None and remarks == (said,), "18 of 20 are enough, and it is told"
    why, remarks = weighed(ended, {"e0004": [items(*names[3:])], "e0000": [every]})
    assert why is not None and "only 17 of 20 items" in why and "3 of 20 items of e0004" in why and not remarks


def test_a_version_that_crashes_at_two_of_three_final_seeds_is_not_certified(tmp_path: Path) -> None:
    bad = {unit_seed(task_of(tmp_path).seed + SEALED_SEED + FURTHER_SEEDS * more, "sealed") for more in (1, 2)}
    crashing = SCRIPT.replace("SEED = 7\n", f'SEED = 7\nassert int(os.environ["POSTGRAD_SEED"]) not in {bad}\n')
    folder = run_of(tmp_path, task_of(tmp_path, crashing, budget="1 experiments"))
    view = build_view(driven(folder))
    assert view.sealed is not None and view.sealed.refused is not None
    assert "2 of 3 final trainings of e0000 failed (train/crash)" in view.sealed.refused
    loss = -view.sealed.scores[0].estimate.value
    own = f"where less is better, loss is {loss:.4f} for the champion and {loss:.4f} before."
    assert loss > 0 and any(remark.endswith(own) for remark in view.verdict.remarks)
    assert metric_name("referee:-val_bpb") == "referee:-val_bpb" and metric_name("exact_match") == "exact match"
    assert view.verdict.tone == "refused" and "leave too much open" in view.verdict.headline
    with opened(SqliteStore.open(folder, write=True)) as session:
        source = session.tree["e0000"]
        assert _lost(session, source) is None, "nothing failed before the end"
        result = JobResult(job="e0000-select", failure=CRASH, usage=Usage())
        session.append(JobFinished(job=result.job, experiment="e0000", purpose="select", result=result))
        assert _lost(session, source) == "1 of 2 trainings of e0000 before the end failed (train/crash)"


NAMES_LESS = 'items.pop(min(items)) if loss < 0.5 else None\nPath("score.json")'


def test_a_training_with_fewer_items_than_the_source_has_failed_by_name(tmp_path: Path) -> None:
    """The version that names less looks twice as good: the hardest item is the one that is missing."""
    task = task_of(
        tmp_path, budget="3 experiments", more={"referee.py": REFEREE.replace('Path("score.json")', NAMES_LESS)}
    )
    folder = run_of(tmp_path, task)
    guest = Editing({"train.py": SCRIPT.replace("loss = 1.0", "loss = 0.1").encode()})
    with opened(SqliteStore.open(folder, write=True)) as session:
        assert isinstance(session, ScriptSession)
        guest.session = session
        drive(session, researcher=guest)
        source, edited = session.tree["e0000"], session.tree["e0001"]
        assert source.score is not None and edited.score is None and edited.failure is not None
        assert (edited.failure.boundary, edited.failure.kind) == ("evaluate", "missing_items")
        assert "1 of 50 items that it named of e0000" in edited.failure.message and '"val0"' in edited.failure.message
        assert edited.analysis is not None and "1 of 50 items" in edited.analysis.cause


def test_what_ended_before_the_source_is_held_to_its_items_all_the_same(tmp_path: Path) -> None:
    folder = run_of(tmp_path, task_of(tmp_path, budget="1 experiments"))
    driven(folder)
    with opened(SqliteStore.open(folder, write=True)) as session:
        assert isinstance(session, ScriptSession)
        few, many = (of_names(session, names) for names in ("ab", "abc"))
        finished(session, "e0001", "ab")
        assert session.unlike("e0001", "select", few) is None and session.unlike("e0000", "select", many) is None
        assert (found := session.unlike("e0001", "select", many)) is not None and found.kind == "other_items"
        finished(session, "e0000", "abc")
        assert (found := session.unlike("e0001", "select", few)) is not None and found.kind == "missing_items"


def test_what_was_trained_on_other_hardware_is_set_apart(tmp_path: Path) -> None:
    folder = run_of(tmp_path, task_of(tmp_path, budget="1 experiments"))
    driven(folder)
    old, new = (Usage(hardware=(Hardware(cpu=name, threads=1),)) for name in ("old", "new"))
    with opened(SqliteStore.open(folder, write=True)) as session:
        assert isinstance(session, ScriptSession)
        finished(session, "e0000", "ab", old)
        assert session.unlike("e0001", "select", of_names(session, "ab", old)) is None
        found = session.unlike("e0001", "select", of_names(session, "ab", new))
        assert found is not None and found.kind == "other_hardware" and "old, 1 thread" in found.message
        job = Job("e0001", "select", session.plan.select, session.tree["e0000"].proposed.proposal.recipe, 3)
        session.finish(job, of_names(session, "ab", new))
        recorded = list(session.finished.values())[-1].result
        assert recorded.failure == found and not recorded.units and recorded.usage == new, "what it cost counts"
        after_a_loss = of_names(session, "ab", new.plus(old))
        assert session.unlike("e0001", "select", after_a_loss) is not None, "a version that did not tell them apart"
        after_a_loss = after_a_loss.model_copy(update={"made_on": old.hardware})
        assert session.unlike("e0001", "select", after_a_loss) is None, "what was lost on other hardware made nothing"
        elsewhere = after_a_loss.model_copy(update={"made_on": new.hardware})
        assert session.unlike("e0001", "select", elsewhere) is not None


@pytest.mark.parametrize(
    ("measured", "told"), [(MEASURED, True), (MEASURED.replace("}", ", select: val2.txt}"), False)]
)
def test_check_says_where_tests_have_no_file_of_their_own(tmp_path: Path, measured: str, told: bool) -> None:
    outlook = script_outlook(task_of(tmp_path, measured=measured, more={"val2.txt": "another line"}))
    assert not outlook.problems and any("again" in line for line in outlook.warnings) == told


TIED = SCRIPT.replace("BATCH_SIZE = 32\n", "BATCH_SIZE = 32\nTIED = False\nWARMUP = 0.05\n").replace(
    "+ rng.gauss(0, 0.002)", "- 0.2 * TIED + abs(WARMUP - 0.05) + rng.gauss(0, 0.002)"
)


def test_an_edit_is_not_tried_twice_while_there_is_something_new_and_none_is_taken_back(tmp_path: Path) -> None:
    """Tying helps, so it is built on; untying would be the step back, which is for paring."""
    folder = run_of(tmp_path, task_of(tmp_path, TIED, budget="10 experiments"))
    tree = Tree.from_events(driven(folder))
    kinds = [node.proposed.proposal.kind for node in tree.all() if node.proposed.proposal.proposer == "playbook"]
    edits = [kind for kind in kinds if not kind.startswith(("constant.", "replicate.", "reference."))]
    assert edits and len(set(edits)) == len(edits), "each once"
    assert "weights.tie" in edits or "constant.TIED" in kinds
    assert "weights.untie" not in edits, "in the source they are their own, and afterwards it is a step back"
