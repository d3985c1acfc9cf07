"""The reward of Training Hub's `grpo` and `lora_grpo`: 1 for the right answer, else 0. Loaded by `th_runner.py` in the
environment of Training Hub, and written out by it for its own workers, so it needs nothing but itself."""

from __future__ import annotations

from typing import Any


def exact_answer(data_source: Any, solution_str: str, ground_truth: str, *others: Any, **named: Any) -> float:
    """1.0 where the last line that says anything is the answer, case and space aside."""
    lines = [line.strip() for line in str(solution_str).splitlines() if line.strip()]
    return float(bool(lines) and lines[-1].casefold() == str(ground_truth).strip().casefold())
