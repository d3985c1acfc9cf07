"""Trainings of scripts that are ended on their way: what they print, when they are stopped, and whole runs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from random import Random

import pytest

from postgrad import racing
from postgrad.scripts import curve, stopping
from postgrad.scripts.curve import SHARES, Curve, key_at, last_said
from postgrad.scripts.stopping import Said, verdict
from postgrad.tree import State, Tree
from test_end_to_end import postgrad
from test_scripts import driven, run_of, task_of

# A minute in two seconds: it prints what its numbers are worth, the same at each moment. On a busy machine it begins
# late, and is looked at late.
SLOW = """
import json, os, random, time
from math import log
from pathlib import Path

LEARNING_RATE = 0.01
BATCH_SIZE = 32
WEIGHT_DECAY = 0.1
WARMUP = 0.2
rng = random.Random(int(os.environ["POSTGRAD_SEED"]))
end = 1.0 + 0.3 * log(LEARNING_RATE / 0.02) ** 2 + 0.3 * log(BATCH_SIZE / 64) ** 2
end += 0.2 * log(WEIGHT_DECAY / 0.1) ** 2 + (WARMUP - 0.2) ** 2 + rng.gauss(0, 0.002)
seconds, begun, step = float(os.environ["POSTGRAD_TIME_S"]), time.monotonic(), 0
while (done := (time.monotonic() - begun) / seconds) < 1:
    step += 1
    print(f"step {step} ({done:.0%}) | loss: {1.4 * end + 1:.4f}", end="\\r", flush=True)
    time.sleep(0.02)
Path("out").mkdir()
Path("out/model.json").write_text(json.dumps({"loss": end}))
print("val_loss:", end)
"""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("step 00042 (12.3%) | loss: 3.456789 | lrm: 1.00 | dt: 250ms | tok/sec: 9", 3.456789),
        ("step 100 of 8% of the time, loss 2.913", 2.913),
        ("loss: 3.0\nloss: 2.5\ngrad_norm: 7", 2.5),
        ("{'loss': 0.51, 'epoch': 1.0}", 0.51),
        ("train_loss=1.5e-1, acc=0.2", 0.15),
        ("val_bpb: 1.983", 1.983),
        ("val_loss 2.1 after 3 epochs", 2.1),
        ("loss: nan", None),
        ("the loss is not finite at step 3", None),
        ("accuracy 0.93", None),
        ("", None),
    ],
)
def test_the_last_loss_that_is_printed(text: str, value: float | None) -> None:
    assert last_said(text) == value


def test_a_look_that_comes_late_sees_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("loss: 3.0\n")
    now = time.monotonic()
    late = Curve(log, 100.0, now - 60.0)
    late.look()
    assert late.points == {}, "a quarter is 35 s ago, a half is ten"
    early = Curve(log, 100.0, now - 26.0)
    early.look()
    log.write_text("loss: 2.0\n")
    early.look()
    assert early.points == {0.25: 3.0} and early.measured == {"said_at_0.25": 3.0}, "one look for each moment"


def ended(count: int, noise: float, seed: int = 1) -> list[Said]:
    """Trainings whose score follows from what they print, with some noise."""
    rng = Random(seed)
    scores = [-2.0 + 0.1 * rng.gauss(0, 1) for _ in range(count)]
    return [Said(loss=1.0 - 1.4 * score + rng.gauss(0, noise), score=score) for score in scores]


def test_what_prints_much_worse_numbers_is_stopped_and_what_is_near_goes_on() -> None:
    known, rival = ended(10, 0.005), Said(loss=1.0 + 1.4 * 1.8, score=-1.8)
    stopped = verdict(1.0 + 1.4 * 2.2, rival, known, luck=0.01, share=0.5)
    assert stopped is not None and stopped.share == 0.5 and stopped.ended == 10
    assert stopped.chance < racing.LIMIT and stopped.expected.low < -2.2 < stopped.expected.high
    assert verdict(1.0 + 1.4 * 1.81, rival, known, luck=0.01, share=0.5) is None, "as good as the champion"
    assert verdict(1.0 + 1.4 * 1.5, rival, known, luck=0.01, share=0.5) is None, "better"


def test_nothing_is_stopped_by_numbers_that_say_nothing() -> None:
    rival, worse = Said(loss=1.0 + 1.4 * 1.8, score=-1.8), 1.0 + 1.4 * 2.3
    assert verdict(worse, rival, ended(racing.FEWEST - 1, 0.005), luck=0.01, share=0.5) is None, "too few are known"
    assert verdict(worse, rival, ended(10, 3.0), luck=0.01, share=0.5) is None, "noise"
    alike, near = ended(12, 0.15), Said(1.0 + 1.4 * 1.9, -1.9)
    assert not racing.trusted([racing.Scores(-each.loss, each.score) for each in alike])
    assert verdict(near.loss + 0.5, near, alike, luck=0.01, share=0.5) is None, "their order says too little"
    far = verdict(near.loss + 5.0, near, alike, luck=0.01, share=0.5)
    assert far is not None and far.chance < stopping.CERTAIN, "so far behind that it needs no order"
    backwards = [Said(-each.loss, each.score) for each in ended(10, 0.005)]
    assert verdict(worse, rival, backwards, luck=0.01, share=0.5) is None, "more is better there"
    same = [each._replace(loss=3.0) for each in ended(10, 0.0)]
    assert verdict(worse, rival._replace(loss=3.0), same, luck=0.01, share=0.5) is None, "the same from all"


def test_what_would_have_won_is_hardly_ever_stopped() -> None:
    """Where what is printed foretells the score with some error, at most so many of those that come out ahead of the
    champion are ended as the limit says."""
    rng, lost, ahead = Random(5), 0, 0
    for trial in range(200):
        known, score = ended(12, 0.05, seed=trial), -1.9 + 0.1 * rng.gauss(0, 1)
        rival = Said(loss=1.0 + 1.4 * 1.9 + rng.gauss(0, 0.05), score=-1.9)
        found = verdict(1.0 - 1.4 * score + rng.gauss(0, 0.05), rival, known, luck=0.01, share=0.5)
        ahead += score > -1.9
        lost += found is not None and score > -1.9
    assert ahead > 60 and lost <= racing.LIMIT * ahead


def test_a_run_stops_losers_on_their_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "SAVES_S", 0.3)
    monkeypatch.setattr(curve, "LATE", 0.24)
    folder = run_of(tmp_path, task_of(tmp_path, SLOW, budget="14 experiments"))
    events = driven(folder)
    tree = Tree.from_events(events)
    whole = [node for node in tree.all() if node.score is not None]
    told = [set(node.results[0].units[0].measured) for node in whole]
    assert all(any(key_at(share) in names for share in SHARES) for names in told), "each was looked at"
    raced = [node for node in tree.all() if node.state is State.RACED]
    assert raced, "some are far behind"
    for node in raced:
        assert node.analysis is not None and node.analysis.race is not None and node.evaluation is None
        race = node.analysis.race
        assert race.share in SHARES and race.chance < racing.LIMIT and race.ended >= racing.FEWEST
        assert node.cost_s < max(each.cost_s for each in whole), "it did not run to its end"
        assert node.foreseen == race.expected.value and node.failure is None
        assert "stopped after" in node.analysis.cause
    champion = next(event.body for event in events if event.body.type == "certified").champion
    assert tree[champion].score is not None
    (read,) = [event.body.read for event in events if event.body.type == "sealed_done"]
    assert read.difference.value > 0
    listed = postgrad("show", "tiny-001", "--runs-dir", str(folder.parent), cwd=tmp_path)
    assert {one["experiment"] for one in listed["experiments"] if one["state"] == "raced"} == {
        node.id for node in raced
    }
    shown = postgrad("show", "tiny-001", raced[0].id, "--runs-dir", str(folder.parent), cwd=tmp_path)
    assert "of its time" in json.dumps(shown)
    postgrad("report", "tiny-001", "--runs-dir", str(folder.parent), cwd=tmp_path)
    assert "stopped early" in next(folder.rglob("report.md")).read_text()
