"""What a failed job printed, cut into what may be searched: what exceptions say, and the last lines.

Source lines inside tracebacks say nothing: `raise ValueError("loss is nan")` stands in the text of a program whatever
went wrong. They are left out. Lengths are bounded, and nothing of a text is ever run or followed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterator, Literal, Sequence

from postgrad.records import Left, LogLine

MOST_LINES, LINE_LETTERS = 600, 600
TAIL_LINES = 12
SAID_LINES = 14

Source = Literal["failure", "evidence", "log"]
# What launchers put in front of the lines of a rank: torchrun, Ray, Slurm's --label.
_PREFIX = re.compile(r"^(?:\[(?:rank)?\d+\]:\s?|\(\w+ pid=\d+[^)]*\)\s?|\d{1,4}: )")
_TRACEBACK = "Traceback (most recent call last):"
_CHAINS = ("During handling of the above exception", "The above exception was the direct cause")
_RAISED = re.compile(
    r"^[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Diverged|Failed|Warning|Refused|Pool)\b(?::|$)"
)
_SYNTAX = re.compile(r'^  File "[^"]*", line \d+$')
_STACK = re.compile(r"^(?:Current thread|Thread) (?:0x)?[0-9a-f]+ .*(?:most recent call first|idle|active)")
_FRAME = re.compile(r'^ +(?:File "[^"]*", line \d+ in .+|\S.* \([^()]*:\d+\))$')

# What stands before a traceback that ended nothing.
_ASIDE = ("Exception ignored in", "--- Logging error ---", "Error in atexit", "Error in sys.excepthook")

Lines = tuple[LogLine, ...]
Chain = tuple[Lines, ...]


@dataclass(frozen=True)
class Texts:
    """What can be searched.

    Attributes:
        lines: everything, in order.
        said: what exceptions say, without frames, the last one first. Each that came of another is in one chain with
            it. The executor's own words are the first chain; what ended nothing comes last.
        tail: the last lines that are no part of a traceback.
        frames: lines of tracebacks that are no message.
        stacks: lines of stacks that were taken of a running program, with the line that names the thread.
    """

    lines: Lines
    said: tuple[Chain, ...]
    tail: Lines
    frames: Lines
    stacks: Lines


def texts_of(left: Left) -> Texts:
    """The texts of a failed job. What the executor copied from the log into its evidence is read once."""
    sources: list[tuple[Source, str]] = []
    own: Lines = ()
    if left.failure is not None:
        own = _lines("failure", left.failure.message)
        evidence = left.failure.evidence.strip()
        if evidence and evidence not in left.log:
            sources.append(("evidence", evidence))
    sources.append(("log", left.log))
    parts = [_lines(source, text) for source, text in sources]
    raised = [chain for part in reversed(parts) for chain in _raised(part)]
    frames = tuple(line for part in parts for line in _frames(part))
    inside = {(line.source, line.number) for line in frames}
    rest = tuple(line for part in parts for line in part if (line.source, line.number) not in inside)
    stacks = tuple(line for part in parts for line in _stacks(part))
    lines = (*own, *(line for part in parts for line in part))
    return Texts(lines, ((own,), *raised), rest[-TAIL_LINES:], frames, stacks)


def _lines(source: Source, text: str) -> Lines:
    """The last lines, bounded, without what launchers put in front; blank ones are kept out."""
    found = enumerate(text.splitlines(), 1)
    kept = [(number, _PREFIX.sub("", line[:LINE_LETTERS])) for number, line in found if line.strip()]
    return tuple(LogLine(source=source, number=number, text=line) for number, line in kept[-MOST_LINES:])


def _frames(lines: Lines) -> Iterator[LogLine]:
    """The lines of tracebacks that are no message."""
    margin: int | None = None
    for line in lines:
        if line.text.lstrip("| +").startswith(_TRACEBACK):
            margin = _margin(line.text)
            yield line
        elif margin is not None and _margin(line.text) > margin:
            yield line
        else:
            margin = None


def _margin(text: str) -> int:
    return len(text) - len(text.lstrip(" |+"))


def _raised(lines: Lines) -> list[Chain]:
    """What each exception says: its line and those that go on, up to the next traceback. The last chain comes first,
    and those that ended nothing come after all others."""
    inside = {line.number for line in _frames(lines)}
    chains: list[list[list[LogLine]]] = []
    aside: set[int] = set()
    due, after, linked, beside = False, False, False, False
    for line in lines:
        text = line.text.strip()
        if line.number in inside:
            due, after = True, False
        elif text.startswith(_CHAINS):
            after, linked = False, True
        elif text.startswith(_ASIDE):
            after, beside = False, True
        elif due or _RAISED.match(text):
            if not linked or not chains:
                aside |= {len(chains)} if beside else set()
                chains.append([])
            chains[-1].append([line])
            due, after, linked, beside = False, True, False, False
        elif after and len(chains[-1][-1]) < SAID_LINES and not _SYNTAX.match(line.text):
            chains[-1][-1].append(line)
    order = sorted(range(len(chains)), key=lambda n: (n in aside, -n))
    return [tuple(tuple(block) for block in reversed(chains[n])) for n in order]


def _stacks(lines: Lines) -> Iterator[LogLine]:
    """Stacks that faulthandler or py-spy took of threads."""
    within = False
    for line in lines:
        within = bool(_STACK.match(line.text)) or (within and bool(_FRAME.match(line.text)))
        if within:
            yield line


def exception_name(block: Sequence[LogLine]) -> str:
    """The plain name of the exception that a block is of; "" where it begins with none."""
    found = _RAISED.match(block[0].text.strip()) if block else None
    return found[0].rstrip(":").rpartition(".")[2] if found else ""
