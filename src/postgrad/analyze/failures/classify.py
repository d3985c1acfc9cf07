"""From what a failed job left to its root cause, in an order that goes from what was measured to what was said.

1. What the engine or the sandbox saw themselves: limits, refusals, silence.
2. Exact words of libraries in an exception.
3. A stack of a program that waits, and the signal or exit code it ended with.
4. The course of the numbers it logged.
5. General words, then exceptions that only say that the program is wrong.

Where none of it holds, the cause is unknown: a wrong cause costs more than none.
"""

from __future__ import annotations

import signal
from typing import Iterable, Mapping, Sequence

from postgrad.analyze.failures.causes import MEANINGS
from postgrad.analyze.failures.reading import Lines, Texts, exception_name, texts_of
from postgrad.analyze.failures.rules import LAST_LINES, RULES, Grade, Rule, compiled
from postgrad.analyze.failures.series import courses_of, detected
from postgrad.records import Cause, Failure, Left, LogLine, RootCause

MOST_EVIDENCE, STACK_LINES = 4, 12
#: How sure each kind of evidence is taken to be. Grades and no measurements: docs/failures.md has what was measured.
MEASURED, SAID, COURSE, CODE, LOOSE, MISTAKE = 0.98, 0.95, 0.8, 0.9, 0.7, 0.6
GRADES: Mapping[Grade, float] = {"exact": SAID, "general": LOOSE, "weak": MISTAKE}
#: Share of the memory limit from which a SIGKILL is taken for a lack of memory.
NEARLY = 0.9

#: (boundary, kind) or (boundary, "") of the typed failure -> cause, where that settles it.
SEEN: Mapping[tuple[str, str], Cause] = {
    ("isolation", ""): "sandbox_refusal",
    ("resource", "timeout"): "timeout",
    ("resource", "budget"): "timeout",
    ("resource", "hung"): "hang",
    ("resource", "oom"): "host_oom",
    ("resource", "disk"): "disk_full",
    ("resource", "preempted"): "preemption",
    ("resource", "lost"): "node_lost",
    ("train", "too_slow"): "timeout",
    ("train", "memory"): "host_oom",
    ("train", "template"): "chat_template",
    ("train", "eos"): "chat_template",
    ("train", "vocabulary"): "tokenizer",
    ("train", "prompt"): "bad_argument",
    ("train", "truncation"): "bad_argument",
    ("train", "long_targets"): "bad_argument",
    ("recipe", "invalid"): "bad_argument",
    ("data", "empty"): "data_schema",
}
#: Signals -> cause.
BY_SIGNAL: Mapping[int, Cause] = {
    signal.SIGTERM: "preemption",
    signal.SIGINT: "preemption",
    signal.SIGHUP: "preemption",
    signal.SIGXCPU: "timeout",
    signal.SIGXFSZ: "disk_full",
    **{
        number: "killed_by_signal"
        for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT)
    },
}
#: Exit codes of shells and coreutils' timeout.
BY_CODE: Mapping[int, Cause] = {124: "timeout", 126: "permission", 127: "missing_file"}


def root_cause(left: Left) -> RootCause:
    """Why a job failed, with the lines that show it."""
    texts = texts_of(left)
    found = (
        _seen(left, texts)
        or _exact(texts)
        or _ended(left, texts)
        or _course(left, texts)
        or _by_words(texts, "general")
        or _by_words(texts, "weak")
    )
    return found or _verdict("unknown", 0.0, ())


def _verdict(cause: Cause, confidence: float, evidence: Iterable[LogLine]) -> RootCause:
    meaning = MEANINGS[cause]
    return RootCause(
        cause=cause,
        confidence=confidence,
        evidence=tuple(dict.fromkeys(evidence)),
        said=meaning.said,
        advice=meaning.advice,
        repair=meaning.repair,
        lesson=meaning.lesson,
    )


# --- what others measured ---------------------------------------------------------------------------------------------


def _seen(left: Left, texts: Texts) -> RootCause | None:
    failure = left.failure
    if failure is None:
        return None
    cause = SEEN.get((failure.boundary, failure.kind)) or SEEN.get((failure.boundary, ""))
    if failure.kind == "flood":
        cause = "bug" if "processes" in failure.message else "disk_full"
    if failure.kind == "nan":
        cause = "divergence" if "has not fallen" in failure.message else _nan_or_divergence(left, texts)
    if cause is None:
        return None
    if cause == "host_oom" and (said := _matched(RULES[:1], (texts.lines,))) is not None:
        return said
    extra = texts.stacks[-STACK_LINES:] if cause in ("hang", "timeout") else ()
    return _verdict(cause, MEASURED, (*_own(failure), *extra))


def _own(failure: Failure) -> Lines:
    lines = failure.message.splitlines()[:MOST_EVIDENCE]
    return tuple(LogLine(source="failure", number=n, text=line[:600]) for n, line in enumerate(lines, 1))


def _nan_or_divergence(left: Left, texts: Texts) -> Cause:
    found = detected(courses_of(texts.lines, left.history))
    return found.cause if found is not None and found.cause == "divergence" else "nan"


# --- words ------------------------------------------------------------------------------------------------------------


def _exact(texts: Texts) -> RootCause | None:
    """In the last chain of exceptions first; where nothing was raised, in the last lines."""
    rules = _applying("exact", texts)
    for chain in texts.said:
        if (found := _matched(rules, chain)) is not None:
            return found
    raised = any(exception_name(block) for chain in texts.said for block in chain)
    return None if raised else _matched((*rules, *LAST_LINES), (texts.tail,))


def _by_words(texts: Texts, grade: Grade) -> RootCause | None:
    rules = _applying(grade, texts)
    for block in (block for chain in texts.said for block in chain):
        if (found := _matched(rules, (block,))) is not None:
            return found
    return None


def _applying(grade: Grade, texts: Texts) -> tuple[Rule, ...]:
    """The rules of a grade whose path is in the traceback, where they name one."""
    graded = (rule for rule in RULES if rule.grade == grade)
    return tuple(rule for rule in graded if not rule.within or _any(rule.within, texts.frames))


def _any(pattern: str, lines: Lines) -> bool:
    return any(compiled(pattern).search(line.text) for line in lines)


def _matched(rules: Sequence[Rule], blocks: Sequence[Lines]) -> RootCause | None:
    """The first rule that a block matches."""
    for rule in rules:
        pattern = compiled(rule.pattern)
        for block in blocks:
            shown = [line for line in block if pattern.search(line.text.strip())]
            if shown:
                return _verdict(rule.cause, GRADES[rule.grade], shown[-MOST_EVIDENCE:])
    return None


# --- how it ended -----------------------------------------------------------------------------------------------------


def _ended(left: Left, texts: Texts) -> RootCause | None:
    """By its exit code; a stack of a waiting program that was then killed tells more than the signal."""
    code = left.code if left.code is not None else _code_said(left.failure)
    if code is None or code == 0:
        return None
    number = -code if code < 0 else code - 128
    shown = LogLine(source="exit", number=code, text=_ending(code))
    cause = BY_SIGNAL.get(number) or BY_CODE.get(code)
    if cause is None:
        return None
    if texts.stacks and number in (signal.SIGKILL, signal.SIGTERM):
        return _verdict("hang", COURSE, (shown, *texts.stacks[-STACK_LINES:]))
    if number == signal.SIGKILL and left.limits and left.usage.max_rss_mb > NEARLY * left.limits.memory_mb:
        words = f"{left.usage.max_rss_mb:.0f} of {left.limits.memory_mb} MB"
        return _verdict("host_oom", COURSE, (shown, LogLine(source="usage", number=1, text=words)))
    return _verdict(cause, CODE, (shown, *texts.tail[-1:]))


def _code_said(failure: Failure | None) -> int | None:
    """The exit code in the executor's own words for a crash; a job cannot write these."""
    if failure is None or (failure.boundary, failure.kind) != ("train", "crash"):
        return None
    words = failure.message.split()
    for i, word in enumerate(words[:-1]):
        following = words[i + 1].rstrip(".")
        if word == "by" and following in signal.Signals.__members__:
            return -int(signal.Signals[following])
        if word == "code" and following.isdecimal():
            return int(following)
    return None


def _ending(code: int) -> str:
    number = -code if code < 0 else code - 128
    if number in set(signal.Signals):
        return f"ended by {signal.Signals(number).name}"
    return f"exit code {code}"


# --- numbers ----------------------------------------------------------------------------------------------------------


def _course(left: Left, texts: Texts) -> RootCause | None:
    found = detected(courses_of(texts.lines, left.history))
    return _verdict(found.cause, COURSE, found.lines) if found is not None else None
