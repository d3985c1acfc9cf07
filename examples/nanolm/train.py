"""Train a small byte-level language model for a fixed time. The one file that experiments edit.

Reads text/train.txt; leaves out/config.json and out/model.safetensors; prints a summary of `key: value` lines.
POSTGRAD_TIME_S: seconds of training (60). POSTGRAD_SEED: for the weights and the batches (0). OMP_NUM_THREADS: how many
threads (1).
"""

import math
import os
import resource
import time
from pathlib import Path

import torch
from model import Config, Model, save
from torch.nn import functional as F

# The model: see Config in model.py for what each may be
DEPTH = 2
WIDTH = 128
HEADS = 4
CONTEXT = 128  # bytes
MLP_RATIO = 4.0
ACTIVATION = "gelu"
NORM = "layer"
POSITION = "rope"
TIED = False
BIAS = True
QK_NORM = False
CONVOLUTION = 0  # bytes; 0: none
NGRAM = 0  # longest n-gram with an embedding; 0: none
BUCKETS = 4096
DROPOUT = 0.0

# The training
BATCH = 8
LEARNING_RATE = 2e-3
BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
CLIP = 1.0
WARMUP = 0.05  # share of the time in which the learning rate grows
FINAL_LR_FRAC = 0.1  # what the learning rate ends at, by its peak

HELD_OUT = 16384  # last bytes of train.txt, for this script's own look at itself


def rate_at(done: float) -> float:
    """The learning rate by its peak when this share of the time is over: linear growth, then a cosine."""
    if done < WARMUP:
        return done / WARMUP
    wave = 0.5 * (1 + math.cos(math.pi * (done - WARMUP) / (1 - WARMUP)))
    return FINAL_LR_FRAC + (1 - FINAL_LR_FRAC) * wave


def batches(text: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random pieces of the text: batch, context + 1."""
    starts = torch.randint(len(text) - CONTEXT, (BATCH,), generator=generator)
    return text[starts[:, None] + torch.arange(CONTEXT + 1)]


def bits_per_byte(model: Model, text: torch.Tensor) -> float:
    """A quick figure from pieces side by side. The referee's is another one: sliding, on text that is not here."""
    pieces = text[: len(text) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)
    model.eval()
    with torch.inference_mode():
        loss = F.cross_entropy(model(pieces[:, :-1]).flatten(0, 1), pieces[:, 1:].flatten())
    return loss.item() / math.log(2)


def main() -> None:
    begun = time.perf_counter()
    seconds = float(os.environ.get("POSTGRAD_TIME_S", "60"))
    seed = int(os.environ.get("POSTGRAD_SEED", "0"))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)

    text = torch.frombuffer(bytearray(Path("text/train.txt").read_bytes()), dtype=torch.uint8).long()
    text, held_out = text[:-HELD_OUT], text[-HELD_OUT:]
    config = Config(
        depth=DEPTH,
        width=WIDTH,
        heads=HEADS,
        context=CONTEXT,
        mlp_ratio=MLP_RATIO,
        activation=ACTIVATION,
        norm=NORM,
        position=POSITION,
        tied=TIED,
        bias=BIAS,
        qk_norm=QK_NORM,
        convolution=CONVOLUTION,
        ngram=NGRAM,
        buckets=BUCKETS,
        dropout=DROPOUT,
    )
    model = Model(config)
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    vectors = [weight for weight in model.parameters() if weight.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}],
        lr=LEARNING_RATE,
        betas=BETAS,
    )

    started, steps, smooth = time.perf_counter(), 0, 0.0
    while (done := (time.perf_counter() - started) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate_at(done)
        batch = batches(text, generator)
        loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        steps += 1
        smooth = 0.98 * smooth + 0.02 * loss.item()
        if not math.isfinite(smooth):
            raise SystemExit(f"the loss is not finite at step {steps}")
        if steps % 100 == 0:
            print(f"step {steps} of {done:.0%} of the time, loss {smooth / (1 - 0.98**steps):.3f}", flush=True)
    trained = time.perf_counter() - started
    save(model, Path("out"))

    print("---")
    print(f"val_bpb: {bits_per_byte(model, held_out):.4f}")
    print(f"train_bpb: {smooth / (1 - 0.98**steps) / math.log(2):.4f}")
    print(f"training_seconds: {trained:.1f}")
    print(f"total_seconds: {time.perf_counter() - begun:.1f}")
    print(f"peak_memory_mb: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}")
    print(f"num_steps: {steps}")
    print(f"total_tokens_M: {steps * BATCH * CONTEXT / 1e6:.3f}")
    print(f"num_params_M: {sum(weight.numel() for weight in model.parameters()) / 1e6:.3f}")
    print(f"seed: {seed}")


if __name__ == "__main__":
    main()
