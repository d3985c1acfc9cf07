"""An editor of scripts in twenty lines: halves or doubles one number of the file, and says why.

In a task file: researcher: {command: [python, script_agent.py]}
It starts in a checkout of the files. What is known of the run is JSON on standard input, and in the file that
POSTGRAD_CONTEXT names: `text` is what a language model would be told. What it changes in the editable files is tried.
"""

import json
import re
import sys
from pathlib import Path

context = json.load(sys.stdin)
number = int(re.search(r"\d+", context["question"])[0])
path = Path(next(name for name in context["editable"] if name.endswith(".py")))
text = path.read_text()
places = list(
    re.finditer(r"^[A-Z_]*(?:RATE|SIZE|DECAY|DEPTH|WIDTH)\b[^=\n]*= *([\d.]+(?:e-?\d+)?)", text, re.MULTILINE)
)
place = places[number // 2 % len(places)]
value = float(place[1]) * (2 if number % 2 else 0.5)
value = value if set(place[1]) & set(".e") else max(1, int(value))
path.write_text(text[: place.start(1)] + f"{value:g}" + text[place.end(1) :])
print(json.dumps({"hypothesis": f"{place[0]} may be better as {value:g}.", "expected_effect": 0.0}))
