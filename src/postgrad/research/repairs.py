"""What a failure asks for: one bounded change to the recipe that failed."""

from __future__ import annotations

from postgrad.records import Failure, Recipe
from postgrad.research import edit


def repaired(recipe: Recipe, failure: Failure) -> tuple[str, Recipe] | None:
    """(the change in words, the recipe), or None where nothing is known to help."""
    stage = edit.main_stage(recipe)
    if failure.boundary == "data" and recipe.data:
        op = recipe.data[-1].op
        return f"without the data step {op}", edit.without_step(recipe, op)
    if stage.backend != "embedder":
        return None
    if failure.kind == "nan":
        rate = float(str(edit.setting(stage, "lr"))) / 10
        return f"learning rate {rate:.2g}, full precision", edit.with_main(recipe, lr=rate, precision="fp32")
    if failure.kind == "oom":
        size = max(2, int(str(edit.setting(stage, "batch_size"))) // 2)
        return f"batches of {size}", edit.with_main(recipe, batch_size=size)
    if failure.kind in ("timeout", "hung"):
        epochs = max(1, int(str(edit.setting(stage, "epochs"))) // 2)
        return f"{epochs} epochs", edit.with_main(recipe, epochs=epochs)
    return None
