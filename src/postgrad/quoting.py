"""Text that others wrote, made fit to stand in a prompt: it is there to be read, and cannot pass for what surrounds it.

Every quoted line begins with a bar, and no line of instructions does. So no text can end its own quotation, or speak as
the person who asks, whatever is in it. That a reader believes what a quoted text says is not prevented by that.
"""

from __future__ import annotations

import json
import unicodedata

BAR = "| "
# What has no mark of its own on a screen and may turn around or hide what stands beside it.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def barred(text: str) -> str:
    """A text with a bar in front of each line, whatever it takes for the end of one."""
    return "\n".join(f"{BAR}{line}" for line in text.splitlines() or [""])


def quoted(text: str, most: int) -> str:
    """A text with a bar in front of each line, its control characters escaped.

    Args:
        most: characters that are shown; what is longer ends in a note of how much was left out.
    """
    left = len(text) - most
    shown = "\n".join(escaped(line) for line in text[:most].splitlines())
    return barred(shown) + (f"\n{BAR}[{left:,} more characters left out]" if left > 0 else "")


def inlined(text: str, most: int) -> str:
    """A text as one JSON string in one line, its control characters escaped; three dots where it was longer."""
    shown = json.dumps(text[:most], ensure_ascii=False)
    return escaped(shown if len(text) <= most else f'{shown[:-1]}..."')


def escaped(text: str) -> str:
    """A line whose control, format and unassigned characters are written as `\\uXXXX`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_named(one) if unicodedata.category(one) in _HIDDEN else one for one in text)


def _named(one: str) -> str:
    return f"\\u{ord(one):04x}" if ord(one) < 0x10000 else f"\\U{ord(one):08x}"
