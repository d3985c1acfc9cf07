"""Every kind of change that finished runs may teach about, with what is believed of it before any run did.

The list is closed: a kind that is not in it is neither remembered nor read, so no word of a task or of a language model
gets into the memory, and nothing in the memory can make a run do what the playbook does not know.
"""

from __future__ import annotations

from postgrad.research.drafts import DRAFT_PRIOR, drafts
from postgrad.research.language import STARTS
from postgrad.research.learning import Belief
from postgrad.research.moves import PLAYS

TUNE, COMPOSED = "tune", "draft.composed"
TUNE_PRIOR = Belief(0.005, 0.02)
OTHERS = {
    TUNE: TUNE_PRIOR,
    "combine": Belief(0.01, 0.02),
    "combine.recipes": Belief(0.01, 0.02),
    "combine.answers": Belief(0.01, 0.02),
    "ablate": Belief(0.0, 0.02),
}


def table() -> dict[str, Belief]:
    """Kind of change -> the playbook's own prior."""
    starts = {draft.kind for base in ("any", None) for draft in drafts(base)} | {COMPOSED, "draft.nearest"}
    starts |= {kind for kind, _, _ in STARTS}
    plays = {play.kind: Belief(play.gain, play.spread) for play in PLAYS}
    return {**plays, **OTHERS, **dict.fromkeys(sorted(starts), DRAFT_PRIOR)}
