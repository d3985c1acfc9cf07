"""The model card of an exported model: Markdown with the front matter that model hubs read.

No text of the data is quoted: a card is published more easily than the data it was trained on. The code that loads the
model is the exporter's to say.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from postgrad.errors import UserError
from postgrad.records import SealedScore
from postgrad.report import wording
from postgrad.report.champion import trains_base
from postgrad.report.content import contents
from postgrad.report.markdown import Written, block, environment
from postgrad.report.view import RunView

# What model hubs call our metrics. Others keep their own name.
HUB_NAMES = {
    "mcc": "matthews_correlation",
    "macro_f1": "f1",
    "weighted_f1": "f1",
    "accuracy": "accuracy",
    "auroc": "roc_auc",
}
LIBRARIES = {
    "embedder": "sentence-transformers",
    "soup": "sentence-transformers",
    "training_hub": "sentence-transformers",
    "classic": "sklearn",
}
PAIRS_SHOWN = 5


def model_card(view: RunView, loading: str) -> str:
    """The card of the champion.

    Args:
        loading: Python that loads the exported folder and answers one text.

    Raises:
        UserError: the run has no sealed champion yet.
    """
    score = view.score_of("champion")
    if view.champion is None or score is None or view.sealed is None:
        raise UserError(
            f"{view.run} has no sealed champion yet, and a card without its result would mislead: "
            f"{view.unsealed_reason}. Finish it with: postgrad resume {view.run}"
        )
    recipe = view.champion.proposed.proposal.recipe
    rendered = (
        environment()
        .get_template("card.md.j2")
        .render(
            view=view,
            page=contents(view),
            score=score,
            recipe=recipe,
            front=Written(_front_matter(view, score)),
            loading=Written(block(loading.strip()).replace("```text\n", "```python\n", 1)),
            rejects=view.task.data.out_of_scope is not None and score.threshold is not None,
            words=_in_words(view),
            pairs=[] if _in_words(view) else [case.confusion for case in view.bad_cases[:PAIRS_SHOWN]],
        )
    )
    return re.sub(r"\n{3,}", "\n\n", rendered).strip() + "\n"


def _front_matter(view: RunView, score: SealedScore) -> str:
    assert view.champion is not None
    recipe = view.champion.proposed.proposal.recipe
    facts: dict[str, Any] = {
        "pipeline_tag": _pipeline(view),
        "tags": [_pipeline(view), *(() if _in_words(view) else ("intent-detection",)), "postgrad"],
        "metrics": list(dict.fromkeys(HUB_NAMES.get(name, name) for name in (view.metric, *sorted(score.metrics)))),
    }
    if view.task.data.out_of_scope is not None:
        facts["tags"].insert(2, "out-of-scope-detection")
    if library := LIBRARIES.get(recipe.stage.backend):
        facts["library_name"] = library
    if recipe.base_model is not None and recipe.base_model.startswith("hf:"):
        facts["base_model"] = recipe.base_model.removeprefix("hf:").split("@", 1)[0]
        if trains_base(recipe):
            facts["base_model_relation"] = "finetune"
    facts["model-index"] = [{"name": view.task.name, "results": [_results(view, score)]}]
    return yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=1000).strip()


def _in_words(view: RunView) -> bool:
    return view.task.kind == "generation"


def _pipeline(view: RunView) -> str:
    return "text-generation" if _in_words(view) else "text-classification"


def _results(view: RunView, score: SealedScore) -> dict[str, Any]:
    found = {view.metric: score.estimate.value, **score.metrics}
    return {
        "task": {"type": _pipeline(view)},
        "dataset": {"name": f"{view.task.name}, sealed split", "type": view.task.name, "split": "test"},
        "metrics": [
            {"type": HUB_NAMES.get(name, name), "name": wording.metric_name(name), "value": round(value, 4)}
            for name, value in found.items()
            if math.isfinite(value)
        ],
    }
