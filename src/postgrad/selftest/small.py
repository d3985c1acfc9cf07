"""An evaluation set of 30 items shows next to nothing: the numbers are given, and the certificate is refused."""

from __future__ import annotations

from typing import Iterator

from postgrad.evaluate.power import refusal
from postgrad.report import TEXT
from postgrad.report.summary import summary
from postgrad.selftest.base import Observation, Sentinel
from postgrad.selftest.place import Place, reading

ITEMS, ENOUGH = 30, 300


def play(place: Place) -> Iterator[Observation]:
    """A real run on 30 test messages; that a large set is not refused shows that the refusal means something."""
    with reading(place.plain) as (_, view):
        assert view.sealed is not None
        read, told = view.sealed, summary(view)["certified"]
    ok = read.texts == ITEMS and read.refused is not None
    yield Observation(ok=ok, words=f"{read.texts} items: {'refused' if read.refused else 'not refused'}")
    said = "Not certified" in (place.plain / TEXT).read_text(encoding="utf-8")
    words = f"report and summary {'say' if said and told is False else 'do not say'} so"
    yield Observation(ok=said and told is False, words=words)
    large = refusal(ENOUGH)
    yield Observation(ok=large is None, words=f"{ENOUGH} items: {'not refused' if large is None else 'refused'}")


SENTINEL = Sentinel("small", "an evaluation set of 30 items is refused a certificate", 3.0, play)
