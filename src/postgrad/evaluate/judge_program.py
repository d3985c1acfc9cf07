"""The referee's program that asks a judge: `python -m postgrad.evaluate.judge_program FOLDER`.

FOLDER holds the order: the model, and what is to be compared. Which letter is how likely is written beside it, a line
for each comparison as soon as it is known. It runs in a job's sandbox, without network: what it reads was written by
others, and a model's files may come from anywhere.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Iterator, Sequence

from postgrad.train.base import CheckFailed

COMMAND = (sys.executable, "-P", "-m", "postgrad.evaluate.judge_program")
# The sandbox lets a job see the base model that its `job.json` names, and its folder.
ORDER, FOUND = "job.json", "verdicts.jsonl"
AT_ONCE = 16
WHOLE_CONTEXT = 2**30


def likelihoods(order: dict[str, Any]) -> Iterator[tuple[str, float, float]]:
    """For each comparison its key, and log p of "A" and of "B" as the next token.

    Raises:
        CheckFailed: the model cannot be asked for one of two letters.
    """
    import torch

    from postgrad.evaluate.judge_prompt import judge_prompt
    from postgrad.train.lm_model import load_tokenizer, load_weights
    from postgrad.train.lm_score import log_likelihoods
    from postgrad.train.tuning import has_bf16

    folder = Path(order["base_model"])
    bf16 = torch.cuda.is_available() or has_bf16()
    model = _with_fine_head(load_weights(folder, torch.bfloat16 if bf16 else torch.float32))
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or WHOLE_CONTEXT
    prompt = judge_prompt(load_tokenizer(folder), order["criteria"], order["max_tokens"], context)
    letters = [(letter,) for letter in prompt.letters]
    for start in range(0, len(order["asked"]), AT_ONCE):
        asked = order["asked"][start : start + AT_ONCE]
        prompts = [prompt.ids(*texts) for _, *texts in asked]
        found = log_likelihoods(model, prompts, letters, prompt.prefix)
        for (key, *_), (first, second) in zip(asked, found.tolist(), strict=True):
            yield key, first, second


def _with_fine_head(model: Any) -> Any:
    """The model with its last layer in float32: as bf16 numbers, logits lie an eighth apart where they are large, and
    two letters of close likelihood would tie."""
    import torch

    class Fine(torch.nn.Linear):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return super().forward(hidden.float())

    head = model.get_output_embeddings()
    if head.weight.dtype != torch.float32:
        width, size = head.in_features, head.out_features
        fine = Fine(width, size, bias=head.bias is not None, device=head.weight.device)
        fine.load_state_dict(head.state_dict())
        model.set_output_embeddings(fine.eval())
    return model


def main(arguments: Sequence[str]) -> int:
    """Ask as the folder that is the only argument says."""
    folder = Path(arguments[0]).resolve()
    order = json.loads((folder / ORDER).read_text(encoding="utf-8"))
    with (folder / FOUND).open("w", encoding="utf-8") as file:
        try:
            for key, first, second in likelihoods(order):
                print(json.dumps({"key": key, "log_p": [first, second]}), file=file, flush=True)
        except CheckFailed as wrong:
            print(json.dumps({"problem": str(wrong)}), file=file, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
