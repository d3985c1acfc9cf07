"""Unified diffs from outside, made ready for git."""

from __future__ import annotations

import re

from postgrad.scripts.paths import EditRefused

LONGEST_PATCH = 1_000_000
# A patch's two lines of names; `diff --git` lines need none.
_NAMES = re.compile(r"^--- ([^\t\r\n]+)[^\n]*\n\+\+\+ ([^\t\r\n]+)", re.MULTILINE)
_CHANGED_ENDS = re.compile(r"^\+\+\+ [^\n]*\r$", re.MULTILINE)


def as_bytes(patch: str) -> bytes:
    """A patch for git.

    Raises:
        EditRefused: it is too long, binary or no Unicode.
    """
    # Where a head ends in CR LF, the ends of lines were changed on the way, and not by who wrote the patch.
    patch = patch.replace("\r\n", "\n") if _CHANGED_ENDS.search(patch) else patch
    if len(patch) > LONGEST_PATCH:
        raise EditRefused(f"The patch has {len(patch):,} characters, and at most {LONGEST_PATCH:,} are read.")
    if re.search(r"^GIT binary patch", patch, re.MULTILINE):
        raise EditRefused("The patch is a binary one; only text is edited.")
    try:
        return (patch if patch.endswith("\n") else f"{patch}\n").encode("utf-8")
    except UnicodeEncodeError as error:
        raise EditRefused(f"The patch is not Unicode text: {error.reason}.") from error


def has_prefixes(patch: str) -> bool:
    """True where paths begin with a/ and b/, as git writes them."""
    named = [(old.strip('"'), new.strip('"')) for old, new in _NAMES.findall(patch)]
    plain = [name for pair in named for name, side in zip(pair, "ab", strict=True) if not name.startswith(f"{side}/")]
    return all(name == "/dev/null" for name in plain)
