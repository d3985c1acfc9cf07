"""What a failure asks for: one bounded change to the recipe that failed, by the failure's kind, else its root cause.

To teach a repair, add a line to the table. A failure that no line covers is not repaired.
"""

from __future__ import annotations

from typing import Callable

from postgrad.records import Failure, MendKind, Recipe, RootCause, Stage
from postgrad.research import edit, hub, language

SMALLEST_BATCH = 8
Repaired = tuple[str, Recipe]
Repair = Callable[[Recipe], Repaired | None]


def repaired(recipe: Recipe, failure: Failure, root: RootCause | None = None) -> Repaired | None:
    """(the change in words, the new recipe), or None where nothing is known to help."""
    repair = REPAIRS.get(failure.kind) or REPAIRS.get(failure.boundary)
    if repair is None and root is not None and root.repair is not None and edit.valid(recipe):
        repair = MENDS.get(root.repair.kind)
    found = repair(recipe) if repair else None
    return found if found and edit.valid(found[1]) and found[1].hash != recipe.hash else None


def _is_embedder(recipe: Recipe) -> bool:
    return edit.family(edit.main_stage(recipe)) == "embedder"


def _is_language_model(recipe: Recipe) -> bool:
    return edit.main_stage(recipe).backend == language.BACKEND


def _is_hub(recipe: Recipe) -> bool:
    return edit.main_stage(recipe).backend == hub.BACKEND


def _slower_learning(recipe: Recipe) -> Repaired | None:
    if _is_hub(recipe):
        return hub.slower(recipe)
    if _is_language_model(recipe):
        rate = round(edit.number(edit.main_stage(recipe), "lr") / 10, 10)
        return f"a tenth of the learning rate ({rate:.2g})", edit.with_main(recipe, lr=rate, warmup=0.3)
    if not _is_embedder(recipe):
        return None
    stage = edit.main_stage(recipe)
    rates = {key: round(edit.number(stage, key) / 10, 10) for key in ("lr", "head_lr")}
    words = f"a tenth of the learning rate ({rates['lr']:.2g}), a longer warm-up and full precision"
    return words, edit.with_main(recipe, **rates, warmup=0.3, precision="fp32")


def _less_memory(recipe: Recipe) -> Repaired | None:
    if _is_hub(recipe):
        return hub.smaller(recipe) or _one_member_less(recipe)
    if _is_language_model(recipe):
        batch = int(edit.number(edit.main_stage(recipe), "batch_size"))
        if not edit.setting(edit.main_stage(recipe), "gradient_checkpointing"):
            words = "activations worked out twice instead of kept (gradient checkpointing)"
            return words, edit.with_main(recipe, gradient_checkpointing=True)
        if batch > 1:
            return f"batches of {batch // 2} in place of {batch}", edit.with_main(recipe, batch_size=batch // 2)
        return _one_member_less(recipe)
    if not _is_embedder(recipe):
        return _smaller_vocabulary(recipe)
    stage = edit.main_stage(recipe)
    batch, length = int(edit.number(stage, "batch_size")), int(edit.number(stage, "max_length"))
    if batch > SMALLEST_BATCH:
        return f"batches of {batch // 2} in place of {batch}", edit.with_main(recipe, batch_size=batch // 2)
    if length > 16:
        return f"texts cut at {length // 2} in place of {length} tokens", edit.with_main(recipe, max_length=length // 2)
    return _one_member_less(recipe)


def _smaller_vocabulary(recipe: Recipe) -> Repaired | None:
    if edit.main_stage(recipe).backend != "classic":
        return _one_member_less(recipe)
    return "only n-grams of at least two rows", edit.with_main(recipe, min_df=2)


def _less_tuning(recipe: Recipe, stage: Stage) -> Repaired | None:
    """Of a language model: a quarter of the rows and steps; half the epochs where rows are few already."""
    epochs, share = int(edit.number(stage, "epochs")), edit.number(stage, "share")
    if edit.setting(stage, "tune") == "none":
        return None
    if share > language.LEAST_SHARE:
        steps = int(edit.number(stage, "least_steps")) // 4
        return "a quarter of the rows and steps", edit.with_main(recipe, share=share / 4, least_steps=steps)
    if epochs < 2:
        return None
    return f"{epochs // 2} epochs in place of {epochs}", edit.with_main(recipe, epochs=epochs // 2)


def _less_time(recipe: Recipe) -> Repaired | None:
    stage = edit.main_stage(recipe)
    if _is_hub(recipe):
        return hub.shorter(recipe) or _one_member_less(recipe)
    if _is_language_model(recipe):
        return _less_tuning(recipe, stage) or _fewer_shots(recipe) or _one_member_less(recipe)
    if edit.is_soup(stage):
        return "one training in place of several with their weights averaged", edit.without_soup(recipe)
    if stage.backend != "embedder" or edit.setting(stage, "tune") == "frozen":
        return _one_member_less(recipe)
    epochs = int(edit.number(stage, "epochs"))
    if epochs > 2:
        return f"{epochs // 2} epochs in place of {epochs}", edit.with_main(recipe, epochs=epochs // 2)
    return "the encoder left as it is", edit.with_main(
        recipe, tune="frozen", head="logistic", contrastive_epochs=0, epochs=1
    )


def _fewer_shots(recipe: Recipe) -> Repaired | None:
    """Examples fill the prompt."""
    shots = int(edit.number(edit.main_stage(recipe), "shots")) if _is_language_model(recipe) else 0
    if not shots:
        return None
    return f"{shots // 2} examples in the prompt in place of {shots}", edit.with_main(recipe, shots=shots // 2)


def _one_member_less(recipe: Recipe) -> Repaired | None:
    if len(edit.members(recipe)) < 2:
        return None
    name = edit.main_stage(recipe).backend
    return f"without the costliest member, {name}", edit.without_member(recipe, edit.main_index(recipe))


def _without_last_step(recipe: Recipe) -> Repaired | None:
    if not recipe.data:
        return None
    op = recipe.data[-1].op
    return f"without the data step {op}", edit.without_step(recipe, op)


#: Failure kind, or else its boundary -> repair.
REPAIRS: dict[str, Repair] = {
    "nan": _slower_learning,
    "oom": _less_memory,
    "timeout": _less_time,
    "hung": _less_time,
    "too_slow": _less_time,
    "prompt": _fewer_shots,
    "truncation": _fewer_shots,
    "empty": _without_last_step,
    "data": _without_last_step,
}

#: What a root cause asks for -> repair. A job that has only to be started again is no new recipe.
MENDS: dict[MendKind, Repair] = {
    "less_memory": _less_memory,
    "slower_learning": _slower_learning,
    "less_time": _less_time,
}
