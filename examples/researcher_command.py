"""A researcher in thirty lines: takes the open moves by what they are believed to bring for their cost.

In a task file: researcher: {command: [python, researcher_command.py]}
It gets the context as JSON on standard input, and prints proposals as JSON on standard output. `text` is what a
language model would be told; `schema` is the JSON schema of the reply; `problems` is there when a reply was wrong.
"""

import json
import sys


def worth(move: dict) -> float:
    """A hopeful guess of what a move brings, for each second."""
    return (move["believed_effect"] + move["believed_sd"]) / (10 + move["nominal_s"])


def proposal(move: dict) -> dict:
    return {
        "move": move["move"],
        "hypothesis": move["why"],
        "expected_effect": move["believed_effect"],
        "refuted_by": "the score is no higher than before",
    }


context = json.load(sys.stdin)
best = sorted(context["moves"], key=worth, reverse=True)[: context["proposals"]]
json.dump({"proposals": [proposal(move) for move in best]}, sys.stdout)
