"""A program: does a model folder load with plain transformers, and is it of the same make as its base?

Run as `python -P loads.py BASE FINAL`. The last line it prints is `{"problems": [...]}`. Imports nothing of Postgrad:
it stands for the environment that the final model is evaluated in.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Iterator


def problems(base: str, final: str) -> Iterator[str]:
    """What differs from the base, and what does not load, in words."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    known: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    wanted, found = (AutoConfig.from_pretrained(folder, **known) for folder in (base, final))
    if (wanted.architectures, wanted.model_type) != (found.architectures, found.model_type):
        yield f"its architecture is {found.architectures}, the base's {wanted.architectures}"
        return
    ours: Any = AutoTokenizer.from_pretrained(final, **known)
    theirs: Any = AutoTokenizer.from_pretrained(base, **known)
    if ours.get_vocab() != theirs.get_vocab():
        yield "its vocabulary is not the base's"
    if ours.chat_template != theirs.chat_template:
        yield "its chat template is not the base's"
    loader: Any = AutoModelForCausalLM
    model, said = loader.from_pretrained(
        final, dtype="auto", output_loading_info=True, ignore_mismatched_sizes=True, **known
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if said.get(kind):
            yield f"{kind.replace('_', ' ')} of its weights: {sorted(map(str, said[kind]))[:3]}"
    with torch.device("meta"):
        bare = loader.from_config(wanted)
    shapes = [{name: tuple(each.shape) for name, each in one.named_parameters()} for one in (bare, model)]
    if shapes[0] != shapes[1]:
        yield "its weights have other names or shapes than the base's"
    ids = torch.tensor([theirs("Is this the model?")["input_ids"]])
    with torch.inference_mode():
        if not torch.isfinite(model.eval()(input_ids=ids).logits).all():
            yield "its answers are not finite numbers"


def main() -> None:
    base, final = sys.argv[1:3]
    try:
        found = list(problems(base, final))
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as failed:
        found = [f"it does not load: {type(failed).__name__}: {str(failed)[:300]}"]
    print(json.dumps({"problems": found}))


if __name__ == "__main__":
    main()
