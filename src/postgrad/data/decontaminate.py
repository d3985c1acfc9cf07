"""Train rows that are evaluation rows in disguise: one tool for the splits, the workers and the audit.

`find_overlaps` says which rows to take out; `near_groups` which rows must stay on the same side of a split. Texts go
in, ids come out, so that what is found of a sealed row can be logged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Iterable, Literal, Sequence

from postgrad.data.folding import Folded, folded_all
from postgrad.data.nearness import Matcher, alike, contained, exact, mistyped, reordered, sharing_grams
from postgrad.records import Record, Row

How = Literal["exact", "reordered", "mistyped", "contained", "ngrams", "minhash", "embedding"]
# From cheap to dear. A row that one of them finds is not shown to the next.
MATCHERS: dict[How, Matcher] = {
    "exact": exact,
    "reordered": reordered,
    "mistyped": mistyped,
    "contained": contained,
    "ngrams": sharing_grams,
    "minhash": alike,
}
COSINE = 0.98


class Match(Record):
    """A train row that is nearly an evaluation item.

    Attributes:
        row, item: their ids.
        how: the matcher that found it.
        similarity: in (0, 1], on the matcher's own scale.
    """

    row: str
    item: str
    how: How
    similarity: float


def find_overlaps(rows: Iterable[Sequence[str]], protected: Iterable[Sequence[str]]) -> tuple[Match, ...]:
    """The rows that are copies of a protected text, trivially edited ones included: at most one match for each row.

    Args:
        rows, protected: (id, text) and whatever follows; ids of rows are unique. Labels are not looked at.

    Returns:
        matches in the order of `rows`: of the first matcher that has one the most similar item, of equals the lower id.
    """
    left, right = folded_all(rows), folded_all(protected)
    same = _alike(left)
    firsts, asked = [texts[0] for texts in same], [min(texts, key=lambda t: t.id) for texts in _alike(right)]
    found: dict[int, Match] = {}
    for how, matcher in MATCHERS.items():
        open_rows = [n for n in range(len(firsts)) if n not in found]
        best: dict[int, Match] = {}
        for i, j, similarity in matcher([firsts[n] for n in open_rows], asked):
            match = Match(row="", item=asked[j].id, how=how, similarity=similarity)
            known = best.get(open_rows[i])
            if known is None or (-similarity, match.item) < (-known.similarity, known.item):
                best[open_rows[i]] = match
        found |= best
    by_row = {text.id: found[n].model_copy(update={"row": text.id}) for n in found for text in same[n]}
    return tuple(by_row[text.id] for text in left if text.id in by_row)


def cleared(rows: Sequence[Row], protected: Sequence[Sequence[str]]) -> tuple[tuple[Row, ...], tuple[Match, ...]]:
    """The rows that are near nothing protected, and why the others go.

    What counts as a template depends on the rows that are there, so the rest is looked at again until nothing is found:
    the same check on what was kept finds nothing, whoever makes it.
    """
    kept, matches = tuple(rows), list[Match]()
    while found := find_overlaps(kept, protected):
        gone = {match.row for match in found}
        kept, matches = tuple(row for row in kept if row.id not in gone), [*matches, *found]
    return kept, tuple(matches)


def _alike(texts: Iterable[Folded]) -> list[list[Folded]]:
    """Texts that no matcher can tell apart, together: ten thousand times the same row is one comparison."""
    groups: dict[tuple[object, ...], list[Folded]] = {}
    for text in texts:
        groups.setdefault((text.words, text.keys or text.name), []).append(text)
    return list(groups.values())


def near_groups(rows: Iterable[Sequence[str]]) -> dict[str, str]:
    """Row id -> group id: near copies share a group, whatever the order of the rows.

    A group is named by the lowest id in it. Being near is not transitive, so rows can share a group through others.
    """
    same = _alike(folded_all(rows))
    texts = [min(group, key=lambda text: text.id) for group in same]
    parent = list(range(len(texts)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for matcher in MATCHERS.values():
        for i, j, _ in matcher(texts, texts):
            low, high = sorted((root(i), root(j)), key=lambda n: texts[n].id)
            parent[high] = low
    return {text.id: texts[root(n)].id for n, group in enumerate(same) for text in group}


def find_neighbours(
    rows: Sequence[Sequence[str]], protected: Sequence[Sequence[str]], encoder: Path
) -> tuple[Match, ...]:
    """Rows whose nearest protected text under a sentence encoder is at least `COSINE` close. For flagging: honest
    paraphrases are among them, see docs/data.md. Loads torch.
    """
    from postgrad.data.similarity import nearest

    if not rows or not protected:
        return ()
    near = nearest([row[1] for row in rows], [item[1] for item in protected], encoder)
    return tuple(
        Match(row=row[0], item=protected[j][0], how="embedding", similarity=min(1.0, cosine))
        for row, (j, cosine) in zip(rows, near, strict=True)
        if cosine >= COSINE
    )


def by_matcher(matches: Iterable[Match]) -> dict[str, tuple[str, ...]]:
    """Matcher -> ids of the rows that it found, in order."""
    found: dict[str, list[str]] = {}
    for match in matches:
        found.setdefault(match.how, []).append(match.row)
    return {how: tuple(ids) for how, ids in found.items()}
