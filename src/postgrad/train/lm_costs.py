"""Rough seconds of what language models do, in bf16 on one core, for choosing what to try.

Nothing here is measured in a run: a run measures its own speed against these numbers.

SmolLM2 (135M) on shared cores of a server with instructions for bf16: 235 tokens a second in training with LoRA, 750 in
scoring. The tokens of a row and of its answers are a guess.
"""

from __future__ import annotations

TRAIN_TOKEN_S, FORWARD_TOKEN_S = 1 / 235, 1 / 750
ROW_TOKENS, SHOT_TOKENS, ANSWER_TOKENS = 60, 30, 80
START_S = 10.0
TUNE_SHARE = {"none": 0.0, "full": 1.1, "lora": 1.0, "dora": 1.3, "qlora": 1.5}
FP32_FACTOR = {"training": 1.3, "answering": 3.0}
CHECKPOINTING = 1.3
# Drawing a token against scoring one: they come one by one, though in larger batches.
DRAWN_FACTOR = 3.0

#: Training on a row, and drawing an answer to one.
ROW_S = ROW_TOKENS * TRAIN_TOKEN_S
DRAWN_S = ANSWER_TOKENS * FORWARD_TOKEN_S * DRAWN_FACTOR
