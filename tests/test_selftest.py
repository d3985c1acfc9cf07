"""The self-test: green as the project stands, and each sentinel turns red when the defence that it checks is broken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from pydantic import ConfigDict
from typer.testing import CliRunner

from postgrad.cli.main import app
from postgrad.engines.sandbox import Unsandboxed
from postgrad.errors import PostgradError, UserError
from postgrad.evaluate.evaluator import items_of
from postgrad.evaluate.statistics.control import Control
from postgrad.evaluate.statistics.judge import Judge
from postgrad.evaluate.statistics.known import Judgement
from postgrad.execute.answers import Questions
from postgrad.execute.executor import Recheck
from postgrad.metrics.items import Items
from postgrad.records import Estimate, JobResult, Row
from postgrad.referee import Referee
from postgrad.selftest import SENTINELS, Progress, chosen, gain, leak, play_all, played, rule
from postgrad.selftest import repeats as repeats_sentinel
from postgrad.selftest import shuffled as shuffled_sentinel
from postgrad.selftest.base import Finding, Observation, Sentinel, above, at_chance
from postgrad.selftest.folds import reads_folds
from postgrad.selftest.place import Place
from postgrad.selftest.texts import messages, shuffled
from postgrad.selftest.workers import CHEATS, caught

Break = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Whose `plain` run is made once, with every defence in place."""
    made = Place(tmp_path_factory.mktemp("selftest"))
    assert made.plain.is_dir()
    return made


def red(finding: Finding) -> str:
    """What a red finding complains about."""
    assert not finding.green
    return "; ".join(each.words for each in finding.seen if not each.ok)


# --- green ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_sentinel_is_green() -> None:
    """`make test` runs the command as well."""
    done = CliRunner().invoke(app, ["selftest", "--json"])
    found = json.loads(done.stdout)
    assert [one["sentinel"] for one in found["sentinels"]] == list(SENTINELS)
    assert [each["words"] for one in found["sentinels"] for each in one["seen"] if not each["ok"]] == []
    assert done.exit_code == 0 and found["green"]


@pytest.mark.parametrize("name", ["small", "sealed"])
def test_green(name: str, place: Place) -> None:
    finding = played(SENTINELS[name], place)
    assert finding.green, red(finding)


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.which)
def test_a_cheat_is_caught(cheat: Any, place: Place) -> None:
    found = caught(cheat, place.plain)
    assert found.ok, found.words


# --- red: labels, repeats, leaks --------------------------------------------------------------------------------------


def keep_everything(patch: pytest.MonkeyPatch) -> None:
    said = Judge._said

    def keeps(self: Judge, *values: Any, **named: Any) -> Judgement:
        return replace(said(self, *values, **named), verdict="keep")

    patch.setattr(Judge, "_said", keeps)


def labels_in_the_answers(patch: pytest.MonkeyPatch) -> None:
    """A referee that takes the truth for what was answered."""

    def dishonest(*values: Any) -> Items:
        found = items_of(*values)
        return replace(found, answers=replace(found.labelled, predicted=found.labelled.truth))

    patch.setattr("postgrad.session.items_of", dishonest)


@pytest.mark.parametrize(
    ("broken", "says"), [(keep_everything, "kept: e0001"), (labels_in_the_answers, "above chance")]
)
def test_shuffled_turns_red(broken: Break, says: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffled_sentinel, "EXPERIMENTS", 3)
    broken(monkeypatch)
    sentinel = replace(SENTINELS["shuffled"], play=lambda where: shuffled_sentinel.play(where, encoder=False))
    assert says in red(played(sentinel, place))


def every_training_is_a_recipe(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("postgrad.referee._hash", lambda node: f"{node.proposed.proposal.recipe.hash}{node.id}")


def the_highest_score_leads(patch: pytest.MonkeyPatch) -> None:
    """What rivals do: a lucky seed is progress."""

    def best(self: Referee) -> str | None:
        node = self.session.tree.best()
        return node.id if node else None

    patch.setattr(Referee, "champion", property(best))


@pytest.mark.parametrize(
    ("broken", "says"),
    [(every_training_is_a_recipe, "finalists of"), (the_highest_score_leads, "became champion: e0")],
)
def test_repeats_turn_red(broken: Break, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    monkeypatch.setattr(repeats_sentinel, "OTHER_SEEDS", repeats_sentinel.OTHER_SEEDS[:2])
    assert says in red(played(SENTINELS["repeats"], Place(tmp_path)))


def nothing_is_ever_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Control, "tested", lambda self, p: False)


def the_first_is_delivered(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Judge, "ranked", lambda self: ["e0000"])


@pytest.mark.parametrize(
    ("broken", "says"), [(nothing_is_ever_kept, "kept: nothing"), (the_first_is_delivered, "champion e0000")]
)
def test_gain_turns_red(broken: Break, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    monkeypatch.setattr(gain, "PATIENCE", 1)
    assert says in red(played(SENTINELS["gain"], Place(tmp_path)))


@pytest.mark.parametrize(
    ("where", "half", "says"),
    [
        ("postgrad.evaluate.splits.cleared", leak.taken_out, "0 of 6 planted rows"),
        ("postgrad.audit.data.find_overlaps", leak.let_through, "audit finds 0 of 6"),
    ],
)
def test_leak_turns_red(where: str, half: Any, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A split that keeps everything, and an audit that finds nothing."""

    def blind(rows: Any, protected: Any) -> Any:
        return (tuple(rows), ()) if where.endswith("cleared") else ()

    monkeypatch.setattr(where, blind)
    assert says in red(played(replace(SENTINELS["leak"], play=half), Place(tmp_path)))


# --- red: workers -----------------------------------------------------------------------------------------------------


def no_sandbox(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("postgrad.engines.local.chosen", lambda wanted, places, environment: Unsandboxed())


def no_tripwire(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("postgrad.engines.local.tripwire", lambda reach, line: {})


def trusting_reader(patch: pytest.MonkeyPatch) -> None:
    class Trusting(JobResult):
        model_config = ConfigDict(extra="ignore")

    patch.setattr("postgrad.execute.collect.JobResult", Trusting)


def believed_metric(patch: pytest.MonkeyPatch) -> None:
    """A scorer that does not look at the answers."""
    believed = Estimate(value=1.0, low=1.0, high=1.0, n=60)
    patch.setattr("postgrad.selftest.workers.estimate", lambda metric, items, seed: believed)


def questions_in_order(patch: pytest.MonkeyPatch) -> None:
    def plain(unit: str, rows: tuple[Row, ...]) -> Questions:
        return Questions(tuple(r.id for r in rows), tuple(r.text for r in rows), tuple(range(len(rows))))

    patch.setattr("postgrad.execute.executor.questions", plain)


def no_recheck(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recheck, "_failure", lambda self, found: None)


BROKEN: dict[str, Break] = {
    "false_metric": believed_metric,
    "false_score": trusting_reader,
    "edits_scorer": no_tripwire,
    "edits_scorer_quietly": no_sandbox,
    "reads_store": no_tripwire,
    "reads_store_quietly": no_sandbox,
    "reads_order": questions_in_order,
    "swaps_weights": no_recheck,
}


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.which)
def test_workers_turn_red(cheat: Any, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    BROKEN[cheat.which](monkeypatch)
    assert not caught(cheat, place.plain, number=1).ok


def test_workers_turn_red_with_all_folds_in_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postgrad.racer.runs_foreign_code", lambda recipe: False)
    found = reads_folds(Place(tmp_path))
    assert not found.ok and "it worked" in found.words


def test_the_folds_of_a_foreign_backend_are_apart(tmp_path: Path) -> None:
    found = reads_folds(Place(tmp_path))
    assert found.ok and "no effect" in found.words


# --- red: small, rule, sealed -----------------------------------------------------------------------------------------


def test_small_turns_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postgrad.evaluate.sealed.refusal", lambda texts: None)
    assert "30 items: not refused" in red(played(SENTINELS["small"], Place(tmp_path)))


def test_small_turns_red_where_everything_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postgrad.selftest.small.refusal", lambda texts: "never")
    assert red(played(SENTINELS["small"], place)) == "300 items: refused"


@pytest.mark.parametrize(("kept", "says"), [(True, "without a better proposal"), (False, "with many better ones")])
def test_rule_turns_red(kept: bool, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that keeps whatever it is asked about, asked about whatever leads; and one that keeps nothing."""
    monkeypatch.setattr(rule, "RUNS_NONE", 5)
    monkeypatch.setattr(rule, "RUNS_MANY", 5)
    monkeypatch.setattr(Control, "tested", lambda self, p: kept)
    if kept:
        monkeypatch.setattr(Judge, "_power", lambda self, name, other: 1.0)
    assert says in red(played(SENTINELS["rule"], Place(tmp_path)))


def test_sealed_turns_red(tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postgrad.seal._refuse_second_read", lambda session: None)
    again = Place(tmp_path)
    again.__dict__["plain"] = place.plain
    said = red(played(SENTINELS["sealed"], again))
    assert "reading again: 1 more read" in said and "having forgotten the read: 1 more read" in said


# --- how it is played -------------------------------------------------------------------------------------------------


def toy(name: str, nominal_s: float, *seen: Observation, problem: Exception | None = None) -> Sentinel:
    def play(place: Place) -> Iterator[Observation]:
        place.say("playing")
        yield from seen
        if problem is not None:
            raise problem

    return Sentinel(name, f"checks {name}", nominal_s, play)


GOOD, BAD = Observation(ok=True, words="as it must be"), Observation(ok=False, words="[bold]not so")


def test_a_sentinel_that_cannot_be_played_is_red(tmp_path: Path) -> None:
    sentinels = (
        toy("a", 1, GOOD),
        toy("b", 1, GOOD, BAD),
        toy("c", 1, GOOD, problem=UserError("no sandbox")),
        toy("d", 1, problem=PostgradError("no champion")),
        toy("e", 1),
    )
    found = list(play_all(sentinels, tmp_path))
    assert [finding.green for finding in found] == [True, False, False, False, False]
    assert "could not be played: no sandbox" in red(found[2])


def test_the_time_left_counts_what_is_not_played_yet(tmp_path: Path) -> None:
    told: list[Progress] = []
    list(play_all((toy("a", 10, GOOD), toy("b", 30, GOOD)), tmp_path, told.append))
    assert [(one.sentinel.name, one.done, one.phase) for one in told] == [
        ("a", 0, "starting"), ("a", 0, "playing"), ("b", 1, "starting"), ("b", 1, "playing"),
    ]  # fmt: skip
    assert 30 < told[0].left_s <= 40
    assert told[2].left_s < 25, "this machine is faster than the one that the times are from"


def test_names_are_checked() -> None:
    assert [sentinel.name for sentinel in chosen(["sealed", "leak"])] == ["leak", "sealed"]
    assert len(chosen([])) == len(SENTINELS) == 8
    with pytest.raises(UserError, match="Did you mean 'sealed'"):
        chosen(["seald"])


def test_by_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SENTINELS, "small", toy("small", 1, GOOD))
    monkeypatch.setitem(SENTINELS, "rule", toy("rule", 1, GOOD, BAD))
    done = CliRunner().invoke(app, ["selftest", "small"])
    assert done.exit_code == 0 and "All 1 green" in done.stdout and "checks small" in done.stdout
    done = CliRunner().invoke(app, ["selftest", "rule", "small", "--keep", str(tmp_path / "kept")])
    assert done.exit_code == 1 and "1 of 2 red: rule" in done.stdout and "[bold]not so" in done.stdout
    assert len(list((tmp_path / "kept").iterdir())) == 1
    done = CliRunner().invoke(app, ["selftest", "rule", "--json"])
    found = json.loads(done.stdout)
    assert done.exit_code == 1 and found["green"] is False and found["folder"] is None
    assert [each["ok"] for each in found["sentinels"][0]["seen"]] == [True, False]


def test_chance() -> None:
    low, wide = Estimate(value=0.2, low=0.1, high=0.3, n=9), Estimate(value=0.2, low=0.05, high=0.35, n=9)
    assert above(low, 0.0) and not at_chance(low, 0.0)
    assert not above(wide, 0.0, looks=5) and at_chance(wide, 0.0, looks=5)
    assert not at_chance(Estimate(value=-0.3, low=-0.4, high=-0.2, n=9), 0.0)


def test_shuffling_keeps_texts_and_labels_and_nothing_between_them() -> None:
    before = messages(40, 1)
    after = shuffled(before, 1)
    assert [text for text, _ in before] == [text for text, _ in after]
    assert sorted(label for _, label in before) == sorted(label for _, label in after)
    same = sum(a == b for a, b in zip(before, after, strict=True))
    assert len({text for text, _ in before}) == len(before) and same < len(before) / 3
