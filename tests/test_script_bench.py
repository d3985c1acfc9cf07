"""`postgrad bench scripts` on its planted stand-in: the plain rule claims what is not there, nothing is played twice,
and the truth it counts with is that of the script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Mapping

import numpy as np
import pytest

from postgrad.bench.base import BenchSpec
from postgrad.bench.scripts import Scripts, planted_facts
from postgrad.bench.scripts_measured import Measured, Version
from postgrad.bench.scripts_planted import START, Beside, World, planted, truth
from postgrad.bench.scripts_rules import BASELINE, OURS, PLAIN, play, run_of
from postgrad.bench.scripts_table import planted_rows
from postgrad.errors import UserError
from postgrad.events import Event
from postgrad.records import Budget, Move
from postgrad.scripts.statistics import difference_of
from postgrad.search.autoresearch import incumbent
from postgrad.store.sqlite import SqliteStore
from postgrad.tree import Tree

NO_OPTIONS: Mapping[str, str] = {}


def quiet(line: str) -> None:
    """Nobody reads what is said."""


def result(
    folder: Path, say: Callable[[str], None] = quiet, quick: bool = True, options: Mapping[str, str] = NO_OPTIONS
) -> dict[str, Any]:
    defaults = {key: default for key, (default, _) in Scripts.options.items()}
    return Scripts().run(BenchSpec(quick=quick, folder=folder, command="x", options={**defaults, **options}), say)


def lines_of(folder: Path) -> dict[str, list[str]]:
    return {str(path.relative_to(folder)): path.read_text().splitlines() for path in folder.rglob("*.jsonl")}


def jobs_of(folder: Path) -> dict[str, list[str]]:
    """Rule -> the jobs that its log has as finished."""
    found = {}
    for path in folder.rglob("events.sqlite"):
        with SqliteStore.open(path.parent, write=False) as store:
            bodies = [event.body for event in store.events()]
        found[path.parent.parent.name] = [body.job for body in bodies if body.type == "job_finished"]
    return found


def test_stopped_anywhere_nothing_is_played_twice_and_the_plain_rule_claims_too_much(tmp_path: Path) -> None:
    """Stopped once in each rule and once between fresh trainings."""
    marks = ("postgrad: e0004", "autoresearch: e0006", "fresh seed 2")

    def stopping(mark: str) -> Callable[[str], None]:
        def say(line: str) -> None:
            if line.startswith(mark):
                raise KeyboardInterrupt

        return say

    for mark in marks:
        with pytest.raises(KeyboardInterrupt):
            result(tmp_path, stopping(mark))
    found = result(tmp_path)
    jobs, lines = jobs_of(tmp_path), lines_of(tmp_path)
    for rule, names in jobs.items():
        assert len(names) == len(set(names)), f"{rule} trained the same twice"
    assert len(jobs["autoresearch"]) == 10 and len(jobs["postgrad"]) >= 10
    measured = {name: [json.loads(line)["seed"] for line in each] for name, each in lines.items() if "measured" in name}
    assert measured and all(seeds == [0, 1, 2] for seeds in measured.values())

    ours, plain = found["table"]
    assert (ours["rule"], plain["rule"]) == ("postgrad", "autoresearch")
    assert plain["experiments"] == ours["experiments"] == 10
    assert plain["claimed"] > plain["true_gain"] + 0.01, "the noise is twice what a change does"
    assert plain["claimed_less_true"] == pytest.approx(plain["claimed"] - plain["gain"], abs=2e-5)
    assert "| planted | autoresearch |" in found["markdown"] and str(tmp_path) not in json.dumps(found)

    assert result(tmp_path) == found
    assert (jobs_of(tmp_path), lines_of(tmp_path)) == (jobs, lines), "nothing was played again"


def test_the_plain_rule_keeps_what_is_strictly_better_and_extends_nothing_else(tmp_path: Path) -> None:
    task = planted(tmp_path, 3, 1.0, 8)
    out = play(PLAIN, task, tmp_path / "runs", lambda event: None, Beside())
    with SqliteStore.open(out.folder, write=False) as store:
        events = store.events()
    tree = Tree.from_events(events)
    assert len(tree) == 8 and out.trainings == 8 and tree[BASELINE].verdict == "keep"
    best = tree[BASELINE]
    for node in tree.all()[1:]:
        assert node.parent == best.id
        assert node.score is not None and best.score is not None
        better = node.score > best.score
        assert node.verdict == ("keep" if better else "discard")
        best = node if better else best
        assert node.champion == best.id
    assert out.delivered == best.id == getattr(incumbent(tree), "id", None)
    assert out.claimed == pytest.approx((best.score or 0) - (tree[BASELINE].score or 0))
    assert out.kept == out.built and len(out.built) == sum(node.verdict == "keep" for node in tree.all()[1:])
    shorter = play(PLAIN, task, tmp_path / "runs", lambda event: None, Beside(), first=4)
    assert shorter.experiments == shorter.trainings == 4
    assert shorter.delivered == tree["e0003"].champion


def test_the_plain_rule_begins_nothing_that_would_end_after_its_time(tmp_path: Path) -> None:
    task = planted(tmp_path, 3, 1.0, 8)
    timed = task.model_copy(update={"budget": Budget(wall_s=1.5)})
    out = play(PLAIN, timed, tmp_path / "runs", lambda event: None, Beside())
    assert out.experiments >= 1 and out.wall_s * (out.experiments + 1) / out.experiments > 1.5
    both = task.model_copy(update={"budget": Budget(wall_s=600.0, experiments=3)})
    assert play(PLAIN, both, tmp_path / "both", lambda event: None, Beside()).experiments == 3


def test_the_source_is_trained_again_before_anything_is_compared_with_it(tmp_path: Path) -> None:
    stopped: list[str] = []

    def heard(event: Event) -> None:
        stopped.extend([event.body.experiment] if event.body.type == "analysed" else [])
        if len(stopped) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(OURS, planted(tmp_path, 3, 1.0, 30), tmp_path / "runs", heard, Beside())
    (folder,) = (tmp_path / "runs").iterdir()
    with SqliteStore.open(folder, write=False) as store:
        tree = Tree.from_events(store.events())
    first, *more = tree.all()[:4]
    assert first.verdict == "retest" and more[0].verdict == "retest" and more[1].verdict == "tie"
    assert [node.proposed.choice.move for node in more[:2]] == [Move.REPLICATE] * 2
    assert len({node.proposed.proposal.recipe.hash for node in (first, *more[:2])}) == 1
    assert len({node.proposed.proposal.seed for node in (first, *more[:2])}) == 3
    assert more[2].proposed.choice.move is Move.IMPROVE


def test_the_truth_is_that_of_the_constants_and_no_noise_is_in_it(tmp_path: Path) -> None:
    world = World.drawn(5)
    assert world.effect > 0 and sum(weight == 0 for weight in world.weight.values()) == 2
    outs = [
        play(PLAIN, planted(tmp_path / name, 5, noise, 4), tmp_path / name / "runs", lambda event: None, Beside())
        for name, noise in (("quiet", 0.0), ("loud", 2.0))
    ]
    for out in outs:
        assert truth(out.said[BASELINE]) == pytest.approx(-world.true_loss(START))
    silent, loud = map(planted_facts, outs)
    assert silent["claimed"] == pytest.approx(silent["gain"], abs=1e-9) and silent["false_kept"] == 0
    assert loud["claimed"] != pytest.approx(loud["gain"], abs=1e-3)


def test_rows_of_stand_ins_count_what_is_false() -> None:
    one = {"gain": 0.01, "best": 0.02, "claimed": 0.03, "searched": 0.03, "built": 2, "false_built": 1, "kept": 1}
    one |= {"false_kept": 1, "trainings": 30, "failures": 0, "wall_s": 3.0}
    none = {**one, "gain": 0.03, "false_kept": 0}
    rules = ("postgrad", "autoresearch", "autoresearch, as many trainings")
    lines = [{"effect": 0.01, **dict.fromkeys(rules, one)}, {"effect": 0.03, **dict.fromkeys(rules, none)}]
    rows = planted_rows(1.0, lines)
    assert [row["rule"] for row in rows] == list(rules)
    assert all(row["ahead"] == 0 and row["gain"] == 0.02 and row["built"] == 4 for row in rows)
    assert rows[0]["runs_with_false_keeps"] == 1 and rows[0]["claimed_less_true"] == pytest.approx(0.01)
    assert rows[0]["gain_low"] < 0.01 < 0.03 < rows[0]["gain_high"], "two runs say little"


def test_intervals_of_fresh_trainings_hold_the_noise_of_seeds() -> None:
    items = np.zeros((3, 50))
    noisy = items + np.array([[-0.1], [0.0], [0.1]])
    found = difference_of(noisy + 0.1, items, 0.95)
    assert found.value == pytest.approx(0.1) and found.low < 0 < found.high


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"experiments": "1"}, "--experiments is 1"),
        ({"task": "none", "noise": "loud"}, "--noise is 'loud'"),
        ({"budget": "$5"}, "--budget is '$5'"),
        ({"seconds": "soon"}, "Cannot read"),
        ({"task": "examples/maison/task.yaml"}, "no task of kind 'script'"),
    ],
)
def test_what_cannot_be_played_is_said(
    tmp_path: Path, options: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parent.parent)
    with pytest.raises(UserError) as wrong:
        result(tmp_path, quick=False, options=options)
    assert said in str(wrong.value)


def test_items_that_one_version_lacks_are_said_and_no_silent_part_is_compared(tmp_path: Path) -> None:
    said: list[str] = []
    measured = Measured(tmp_path, 2, said.append)
    items = {f"item-{number}": float(number) for number in range(20)}
    (tmp_path / "baseline.jsonl").write_text(
        "".join(json.dumps({"seed": seed, "items": items, "failure": None}) + "\n" for seed in range(2))
    )
    fewer = {name: value for name, value in items.items() if name != "item-7"}
    tree = "a" * 40
    (tmp_path / f"{tree[:12]}.jsonl").write_text(
        "".join(json.dumps({"seed": seed, "items": fewer, "failure": None}) + "\n" for seed in range(2))
    )
    task = planted(tmp_path / "task", 0, 1.0, 2)
    play(PLAIN, task, tmp_path / "runs", lambda event: None, Beside())
    with run_of(task, tmp_path / "runs", engine=Beside()) as session:
        first, other = (Version(session, name) for name in ("e0000", "e0001"))
        (tmp_path / f"{tree[:12]}.jsonl").rename(tmp_path / f"{other.tree[:12]}.jsonl")
        measured.measure([first, other])
    assert measured.grid(first).shape == (2, 19)
    assert any("items differ" in line and "1 of 20 items" in line and "item-7" in line for line in said)
