"""What a run takes from finished runs. None of their texts is in it: a field is a number or a word of a closed form."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from postgrad.records.base import Record
from postgrad.records.estimates import Estimate

Differs = Literal[
    "another metric",
    "questions to reject",
    "nothing to reject",
    "fewer rows",
    "more rows",
    "fewer labels",
    "more labels",
    "another kind of base model",
]


class Prior(Record):
    """What is believed of the effect of a kind of change before a run: normal, from `runs` finished runs.

    Attributes:
        mean, sd: with what the playbook believed before them.
        effect, error: what they say alone, for who believes something else before them; None in older logs.
    """

    mean: float
    sd: float
    runs: int
    effect: float | None = None
    error: float | None = None


class Evidence(Record):
    """A finished run that speaks for a lesson or against it: its interval is clear of zero.

    Attributes:
        run: the first digits of the name, drawn by chance, that it is remembered under.
        experiments: some of its experiments with this change; none are known of runs of older versions.
        effect: of the change in that run; `n` counts experiments.
        differs: in what its task differs from that of the run that is told.
    """

    run: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    month: Annotated[str, Field(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$")]
    experiments: tuple[Annotated[str, Field(pattern=r"^e[0-9]{4,7}$")], ...] = ()
    effect: Estimate
    differs: tuple[Differs, ...] = ()


class EarlierLesson(Record):
    """What finished runs taught about one kind of change.

    Attributes:
        runs: finished runs that tried it. helpful, harmful: those among them whose interval is clear of zero.
        helped, harmed: some of the latter, those on tasks most like the run's first.
        expected: effect in a new run, from all of them, with a 95 % interval; `n` counts experiments. None where it
            was never measured.
        failures: experiments with it that failed.
    """

    kind: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)?$", max_length=40)]
    runs: int
    helpful: int = 0
    harmful: int = 0
    helped: tuple[Evidence, ...] = ()
    harmed: tuple[Evidence, ...] = ()
    expected: Estimate | None = None
    failures: int = 0

    @property
    def disputed(self) -> bool:
        """True where finished runs contradict each other."""
        return bool(self.helpful and self.harmful)


class Remembered(Record):
    """What a run took from finished runs when it began, once and for all. `notes` say what could not be read."""

    runs: int = 0
    priors: dict[str, Prior] = Field(default_factory=dict)
    lessons: tuple[EarlierLesson, ...] = ()
    notes: tuple[str, ...] = ()
