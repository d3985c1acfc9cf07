"""Shuffled labels: nothing can be learnt, so no score is above chance, nothing is kept, and the sealed read says so."""

from __future__ import annotations

from typing import Iterator

from postgrad.report.view import RunView
from postgrad.selftest.base import Observation, Sentinel, above, at_chance, claimed, shown
from postgrad.selftest.place import TRAIN_EACH, Place, reading
from postgrad.selftest.texts import messages, shuffled

TEST_EACH = 20
EXPERIMENTS = 5


def play(place: Place, encoder: bool = True) -> Iterator[Observation]:
    """The playbook searches on texts whose labels were dealt out anew; true labels show that there was something.

    Args:
        encoder: train on a sentence encoder as well; False is for those who have no time.
    """
    train, test = shuffled(messages(TRAIN_EACH, 3), 3), shuffled(messages(TEST_EACH, 4), 4)
    run = place.run(place.task("shuffled", train, test, experiments=EXPERIMENTS, encoder=encoder))
    with reading(run) as (store, view):
        events = store.events()
    scores = [node.evaluation.estimate for node in view.tree.all() if node.evaluation is not None]
    lucky = [found for found in scores if above(found, 0.0, len(scores))]
    words = f"{len(scores)} search scores, the highest {max(found.value for found in scores):+.3f}"
    yield Observation(ok=len(scores) == EXPERIMENTS and not lucky, words=f"{words}, {len(lucky)} above chance")
    kept = claimed(events)
    yield Observation(ok=not kept, words=f"kept: {', '.join(kept) or 'nothing'}")
    yield from _sealed(view)
    with reading(place.plain) as (_, honest):
        assert honest.sealed is not None
        learnt = honest.sealed.scores[0].estimate
    yield Observation(ok=above(learnt, 0.0), words=f"with true labels {shown(learnt)}")


def _sealed(view: RunView) -> Iterator[Observation]:
    """Every model of the sealed read, the champion first, and its gain over the baseline."""
    assert view.sealed is not None
    for score in view.sealed.scores:
        ok = at_chance(score.estimate, 0.0, len(view.sealed.scores))
        yield Observation(ok=ok, words=f"sealed {score.role} {shown(score.estimate)}")
    gap = view.sealed.difference
    words = f"champion against baseline {gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
    yield Observation(ok=gap.low <= 0, words=f"{words}: {'better' if gap.low > 0 else 'not better'}")


SENTINEL = Sentinel("shuffled", "shuffled labels score at chance, and nothing is kept", 35.0, play)
