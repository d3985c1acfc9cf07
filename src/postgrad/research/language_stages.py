"""What a tuned language model may go through next, as moves of the playbook: preferences, grades, teachers, merging.

`gain` and `spread` are judgements from the papers that the backend's settings name; a run learns from there.
"""

from __future__ import annotations

from typing import Any

from postgrad.metrics import reads_verdicts
from postgrad.records import Recipe, TaskSpec
from postgrad.research import edit
from postgrad.research.play import Applies, Apply, Play, every, main_is, main_is_not

BACKEND = "causal_lm"
MOST = 4


def _later(recipe: Recipe) -> tuple[dict[str, Any], ...]:
    found: Any = edit.setting(edit.main_stage(recipe), "then")
    return tuple(found or ())


def _lacks(method: str) -> Applies:
    """The main member is a tuned language model that has not gone through this, and has room for it."""

    def check(recipe: Recipe, task: TaskSpec) -> bool:
        then = _later(recipe)
        return len(then) < MOST and all(stage.get("method") != method for stage in then)

    return every(main_is_not(BACKEND, "tune", "none"), check)


def _words(recipe: Recipe, task: TaskSpec) -> bool:
    """The answers are in words."""
    return task.kind == "generation"


def _graded(recipe: Recipe, task: TaskSpec) -> bool:
    """A training can say what an answer is worth: of labels it can, and of words where the metric needs no judge."""
    return task.kind != "generation" or not reads_verdicts(task.metric)


def _add(**stage: Any) -> Apply:
    return lambda recipe, task: edit.with_main(recipe, then=(*_later(recipe), stage))


def _has_stages(recipe: Recipe, task: TaskSpec) -> bool:
    return edit.family(edit.main_stage(recipe)) == BACKEND and bool(_later(recipe))


def _learnt_prompt(recipe: Recipe, task: TaskSpec) -> Recipe:
    shots = edit.setting(edit.main_stage(recipe), "shots")
    least = 0.5 if _graded(recipe, task) else 0.0
    stage = {"method": "distil", "shots": shots, "rows": 400, "epochs": 2, "lr": 5e-4, "at_least": least}
    return edit.with_main(recipe, shots=0, then=(stage,))


STAGE_PLAYS: tuple[Play, ...] = (
    Play(
        "lm.then_dpo",
        "afterwards, learn from pairs of the rows' answers and the model's worse ones (DPO)",
        "The model still gives some wrong answers likelihood; pairs name them (Rafailov et al. 2023).",
        "the search score falls, or the model's worse answers stay as frequent",
        0.003,
        0.02,
        every(_graded, _lacks("dpo")),
        _add(method="dpo"),
    ),
    Play(
        "lm.then_orpo",
        "afterwards, train on the rows' answers and against the model's worse ones at once (ORPO)",
        "Odds against wrong answers, without moving away from right ones (Hong et al. 2024).",
        "the search score does not move",
        0.0,
        0.02,
        every(_graded, _lacks("orpo")),
        _add(method="orpo"),
    ),
    Play(
        "lm.then_grpo",
        "afterwards, learn from the metric's grades of the model's own answers (GRPO)",
        "What the metric rewards is not quite what likelihood of the rows' answers teaches (Shao et al. 2024).",
        "the mean grade of drawn answers does not rise during the stage",
        0.003,
        0.03,
        every(_words, _graded, _lacks("grpo")),
        _add(method="grpo"),
    ),
    Play(
        "lm.then_rejection",
        "afterwards, train on those of the model's own answers that the metric finds right",
        "More ways to be right than the one in each row (Yuan et al. 2023).",
        "nearly all right answers are the rows' own, or the search score does not move",
        0.0,
        0.02,
        every(_words, _graded, _lacks("rejection")),
        _add(method="rejection"),
    ),
    Play(
        "lm.interpolate",
        "move the weights three tenths of the way back to the untouched model",
        "Between the two, the model keeps more of what it knew (Wortsman et al. 2022).",
        "the search score falls",
        0.0,
        0.02,
        _lacks("interpolate"),
        _add(method="interpolate"),
    ),
    Play(
        "lm.learn_prompt",
        "learn what the examples in the prompt make the model answer, and leave them out of the prompt",
        "The model then answers as well without them, and faster (Askell et al. 2021).",
        "the search score is far below that of the prompt with examples",
        0.0,
        0.03,
        every(_words, main_is(BACKEND, tune="none"), main_is_not(BACKEND, "shots", 0)),
        _learnt_prompt,
    ),
    Play(
        "lm.last_stage_off",
        "without the last stage",
        "A stage that does not pay costs time and may have harmed.",
        "the search score falls",
        0.0,
        0.02,
        _has_stages,
        lambda recipe, task: edit.with_main(recipe, then=_later(recipe)[:-1]),
    ),
)
