"""Measure what train.py left: bits per byte on text that it has not seen. Writes score.json.

The text is the one file in the folder POSTGRAD_HIDDEN, or text/val.txt when this is run by hand. Every byte counts, and
each is predicted from the bytes before it: from at least half a context of them, but for the start of the text. The
items are pieces of 1024 bytes; their mean is the value.
"""

import json
import math
import os
import sys
from pathlib import Path

import torch
from model import Model, load
from torch.nn import functional as F

PIECE = 1024
AT_ONCE = 16  # windows; what the referee measures does not depend on it


def bits(model: Model, text: bytes) -> torch.Tensor:
    """Bits that the model spends on each byte of the text. It knows a line break before the first."""
    context, stride = model.config.context, model.config.context // 2
    stream = torch.tensor(list(b"\n" + text))
    spent = torch.zeros(len(text), dtype=torch.float64)
    starts = list(range(0, max(len(text) - context, 0) + stride, stride))
    # A window that would end behind the text begins earlier instead, so that all have one length.
    starts = sorted({max(min(start, len(text) - context), 0) for start in starts})
    windows = [(start, stream[start : start + context + 1]) for start in starts]
    counted = 0
    for first in range(0, len(windows), AT_ONCE):
        group = windows[first : first + AT_ONCE]
        rows = torch.stack([window for _, window in group])
        logits = model(rows[:, :-1])
        loss = F.cross_entropy(logits.transpose(1, 2), rows[:, 1:], reduction="none").double() / math.log(2)
        for (start, _), row in zip(group, loss, strict=True):
            end = start + len(row)
            spent[counted:end] = row[counted - start :]
            counted = end
    if counted != len(text) or not spent.isfinite().all():
        raise ValueError("the model's predictions are not finite")
    return spent


def hidden_text() -> bytes:
    folder = os.environ.get("POSTGRAD_HIDDEN")
    if folder is None:
        return Path("text/val.txt").read_bytes()
    files = [file for file in Path(folder).rglob("*") if file.is_file()]
    if len(files) != 1:
        raise ValueError(f"{len(files)} files of hidden text, and one was expected")
    return files[0].read_bytes()


def main() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    try:
        text = hidden_text()
        if not text or len(text) % PIECE:
            raise ValueError(f"{len(text)} bytes of hidden text, and a multiple of {PIECE} was expected")
        with torch.inference_mode():
            spent = bits(load(Path("out")), text)
    except ValueError as error:
        sys.exit(f"refused: {error}")
    items = {f"piece-{number:02d}": piece.mean().item() for number, piece in enumerate(spent.split(PIECE), 1)}
    score = {"value": spent.mean().item(), "items": items}
    Path("score.json").write_text(json.dumps(score, indent=1) + "\n", encoding="utf-8")
    print(f"bits_per_byte: {score['value']:.4f}")


if __name__ == "__main__":
    main()
