"""The referee's program that times a saved model: `python -m postgrad.evaluate.timing FOLDER`.

FOLDER holds the model and the inputs; the milliseconds of each input are written beside them. It trains nothing, holds
no label, and what the trainer said about itself is not read.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Sequence

from postgrad.train import BACKENDS

COMMAND = (sys.executable, "-P", "-m", "postgrad.evaluate.timing")
MODEL, INPUTS, TIMES = "model", "inputs.json", "times.json"
WARM_UP = 10
FEWEST, MOST = 100, 200
ENOUGH_S = 20.0


def times_of(folder: Path) -> list[float]:
    """Milliseconds of one input at a time: 200 of them, or 100 and what fits into twenty seconds."""
    facts = json.loads((folder / MODEL / "postgrad.json").read_text(encoding="utf-8"))
    texts = json.loads((folder / INPUTS).read_text(encoding="utf-8"))
    model = BACKENDS.get(facts["backend"]).load(folder / MODEL)
    asked = islice(cycle(texts), WARM_UP + MOST)
    for text in islice(asked, WARM_UP):
        model.predict([text])
    found: list[float] = []
    begun = time.perf_counter()
    for text in asked:
        start = time.perf_counter_ns()
        model.predict([text])
        found.append((time.perf_counter_ns() - start) / 1e6)
        if len(found) >= FEWEST and time.perf_counter() - begun > ENOUGH_S:
            break
    return found


def main(arguments: Sequence[str]) -> int:
    """Time the model in the folder that is the only argument."""
    folder = Path(arguments[0])
    unfinished = folder / f"{TIMES}.part"
    unfinished.write_text(json.dumps(times_of(folder)), encoding="utf-8")
    unfinished.replace(folder / TIMES)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
