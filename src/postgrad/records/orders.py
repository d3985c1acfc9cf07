"""What a person, or a program on a person's behalf, may ask of a run.

An order is only a wish: the controller checks it, and an event says whether it took effect. All texts are data.
"""

from __future__ import annotations

from typing import Annotated, Literal, Union

from pydantic import Field

from postgrad.records.base import Record, Value
from postgrad.records.recipe import Recipe
from postgrad.records.task import Budget

MOST_WORDS = 500
Name = Annotated[str, Field(min_length=1, max_length=120)]
Text = Annotated[str, Field(max_length=MOST_WORDS)]


class Approve(Record):
    """Let a proposal that waits be tried."""

    verb: Literal["approve"] = "approve"
    experiment: Name


class Reject(Record):
    """Do not try a proposal that waits, nor its kind of change again; `only_this` leaves the kind alone."""

    verb: Literal["reject"] = "reject"
    experiment: Name
    only_this: bool = False


class Edit(Record):
    """Change settings of a proposal that waits: "stage.lr" -> 1e-4. It waits on, unless it is approved with this."""

    verb: Literal["edit"] = "edit"
    experiment: Name
    changes: dict[Name, Value]
    approve: bool = False


class Inject(Record):
    """Try an idea next: a whole recipe, or a kind of change that the playbook knows on an experiment.

    Attributes:
        experiment: what it is built on; None for a starting point.
        asks: it waits for a person where the task says so, as a program's idea does.
    """

    verb: Literal["inject"] = "inject"
    recipe: Recipe | None = None
    kind: Name | None = None
    experiment: Name | None = None
    change: Text = ""
    hypothesis: Text = ""
    expected_effect: float = Field(default=0.0, ge=-1, le=1)
    refuted_by: Text = ""
    asks: bool = False


class Pin(Record):
    """Extend only this experiment and what is below it, and others that are pinned."""

    verb: Literal["pin"] = "pin"
    experiment: Name


class Unpin(Record):
    """Take a pin away."""

    verb: Literal["unpin"] = "unpin"
    experiment: Name


class Ban(Record):
    """Do not extend an experiment or what is below it, or do not propose a kind of change."""

    verb: Literal["ban"] = "ban"
    what: Name


class Unban(Record):
    """Take a ban, or what a rejection barred, away."""

    verb: Literal["unban"] = "unban"
    what: Name


class Grant(Record):
    """Another budget for the whole run, what is spent included."""

    verb: Literal["budget"] = "budget"
    budget: Budget


class Pause(Record):
    """Start nothing new."""

    verb: Literal["pause"] = "pause"


class Continue(Record):
    """Go on after a pause."""

    verb: Literal["continue"] = "continue"


class Stop(Record):
    """End the search, and certify what there is."""

    verb: Literal["stop"] = "stop"


Wish = Annotated[
    Union[Approve, Reject, Edit, Inject, Pin, Unpin, Ban, Unban, Grant, Pause, Continue, Stop],
    Field(discriminator="verb"),
]


class Order(Record):
    """One line of a run's mailbox. `id` is drawn by chance; `at` is Unix time; `by` is who, as they call themselves."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]
    at: float
    by: Name
    reason: Text = ""
    wish: Wish
