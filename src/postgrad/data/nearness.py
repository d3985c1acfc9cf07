"""When one text is nearly another: the matchers behind `decontaminate.py`, from cheap to dear.

Each takes folded texts and yields (index of the row, index of the protected text, similarity). None judges whether a
hit is harm: thresholds are constants here, and how they were chosen is in docs/data.md.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Callable, Iterable, Iterator, Sequence
from zlib import crc32

from postgrad.data.folding import Folded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Hit = tuple[int, int, float]
Frame = tuple[tuple[str, ...], tuple[str, ...]]
Matcher = Callable[[Sequence[Folded], Sequence[Folded]], Iterator[Hit]]

# A text of this many words is long: what is rare among short texts, such as half of it being shared, is chance there.
LONG_WORDS = 13
FEW_LETTERS = 4
TYPO_LETTERS = (8, 64)
TYPO_WORD = 3
# A whole protected text inside a row: from this many words on with anything around it, and from here on with a little.
CONTAINED_WORDS = 8
CONTAINED_SHORT, CONTAINED_ADDED = 4, 0.25
CONTAINED_MEDIUM, CONTAINED_AROUND = 5, 0.5
# A frame around several protected texts that is hardly ever around anything else.
FRAME_TEXTS, FRAME_SHARE, FRAME_WORDS = 3, 0.5, 40
ANCHORS = 64
GRAM = 8
GRAMS_LEAST = 6
GRAM_SHARE = 0.5
GRAM_COMMON = 50
SHINGLE = 4
JACCARD = 0.8
PERMUTATIONS = 128
# A row is compared with this many candidates at most: in a crowd of near copies any of them will do.
CANDIDATES = 200
TEMPLATE_TEXTS, TEMPLATE_SHARE = 8, 0.5


def exact(rows: Sequence[Folded], protected: Sequence[Folded]) -> Iterator[Hit]:
    """Equal after normalisation, or equal letters and digits: case, punctuation, spacing, accents, what is invisible
    and look-alike letters do not count."""
    index: dict[str, list[int]] = defaultdict(list)
    for j, item in enumerate(protected):
        for name in _names(item):
            index[name].append(j)
    for i, row in enumerate(rows):
        for j in dict.fromkeys(j for name in _names(row) for j in index.get(name, ())):
            yield i, j, 1.0


def _names(text: Folded) -> list[str]:
    """What a text is looked up by. Where there are hardly any letters, "6*3" is not "63"."""
    few = len(text.key) - len(text.digits) < FEW_LETTERS
    return [f"id {text.name}", *(" ".join(text.words) if few else key for key in text.keys)]


def reordered(rows: Sequence[Folded], protected: Sequence[Folded]) -> Iterator[Hit]:
    """The same words in another order, numbers in the same: "from 2 to 4" is not "from 4 to 2"."""
    index: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for j, item in enumerate(protected):
        if len(item.words) > 1:
            index[tuple(sorted(item.words))].append(j)
    for i, row in enumerate(rows):
        for j in index.get(tuple(sorted(row.words)), ()):
            if row.digits == protected[j].digits:
                yield i, j, 1.0


# --- one typing error -----------------------------------------------------------------------------------------------


def mistyped(rows: Sequence[Folded], protected: Sequence[Folded]) -> Iterator[Hit]:
    """One letter missing, added, changed, or two neighbours swapped; never a digit, and not in words of two letters.

    Candidates share a text with one letter deleted (the idea of SymSpell, W. Garbe).
    """
    index: dict[int, list[int]] = defaultdict(list)
    for j, item in enumerate(protected):
        for name in _deletions(item.key):
            index[name].append(j)
    for i, row in enumerate(rows):
        for j in sorted({j for name in _deletions(row.key) for j in index.get(name, ())}):
            if row.digits == protected[j].digits and _one_error(row, protected[j]):
                yield i, j, 1.0 - 1.0 / max(len(row.key), len(protected[j].key))


def _deletions(key: str) -> set[int]:
    """Hashes of the key and of the key without each of its letters; none where it is too short or long for a typo."""
    if not TYPO_LETTERS[0] <= len(key) <= TYPO_LETTERS[1]:
        return set()
    return {hash(key), *(hash(key[:i] + key[i + 1 :]) for i in range(len(key)))}


def _one_error(a: Folded, b: Folded) -> bool:
    if not _one_edit(a.key, b.key):
        return False
    if len(a.words) != len(b.words):
        return True
    longest = max((len(max(v, w, key=len)) for v, w in zip(a.words, b.words, strict=True) if v != w), default=0)
    return longest >= TYPO_WORD


def _one_edit(a: str, b: str) -> bool:
    """True when the optimal string alignment distance is 1."""
    if len(a) < len(b):
        a, b = b, a
    if a == b or len(a) - len(b) > 1:
        return False
    i = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(b))
    if len(a) > len(b):
        return a[i + 1 :] == b[i:]
    return a[i + 1 :] == b[i + 1 :] or (a[i : i + 2] == b[i : i + 2][::-1] and a[i + 2 :] == b[i + 2 :])


# --- something around it --------------------------------------------------------------------------------------------


def contained(rows: Sequence[Folded], protected: Sequence[Folded]) -> Iterator[Hit]:
    """The whole protected text inside the row, word for word: the more words it has, the more may be around it.

    Shorter ones count where the same words stand around at least three protected texts and seldom around others: a
    template that copies were put into.
    """
    frames: dict[Frame, list[Hit]] = defaultdict(list)
    for i, j, start in _inside(rows, protected):
        words, size = rows[i].words, len(protected[j].words)
        around = len(words) - size
        if _enough(size, around):
            yield i, j, size / len(words)
        if around <= FRAME_WORDS:
            frames[(words[:start], words[start + size :])].append((i, j, size / len(words)))
    several = {
        frame: hits for frame, hits in frames.items() if len({protected[j].words for _, j, _ in hits}) >= FRAME_TEXTS
    }
    borne = _borne(rows, several)
    for frame, hits in several.items():
        if len({i for i, _, _ in hits}) >= FRAME_SHARE * borne[frame]:
            yield from hits


def _enough(size: int, around: int) -> bool:
    """True when a text of `size` words that has `around` more words around it in the row is no chance."""
    if size >= CONTAINED_WORDS:
        return True
    if size >= CONTAINED_MEDIUM:
        return around <= CONTAINED_AROUND * size
    return size >= CONTAINED_SHORT and around <= CONTAINED_ADDED * size


def _inside(rows: Sequence[Folded], protected: Sequence[Folded]) -> Iterator[tuple[int, int, int]]:
    """(row, protected text, first word) wherever a whole protected text is a part of a row.

    A protected text is looked up by its rarest four words (all of it, where it is shorter), so that a beginning that
    thousands share costs nothing.
    """
    anchors: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    common = Counter(gram for item in protected for gram in _anchors(item.words))
    for j, item in enumerate(protected):
        grams = _anchors(item.words)
        if grams:
            offset = min(range(len(grams)), key=lambda n: (common[grams[n]], n))
            anchors[grams[offset]].append((j, offset))
    for i, row in enumerate(rows):
        words = row.words
        for at in range(len(words)):
            for size in range(1, min(CONTAINED_SHORT, len(words) - at) + 1):
                for j, offset in anchors.get(words[at : at + size], ()):
                    found, start = protected[j].words, at - offset
                    if start >= 0 and len(found) < len(words) and words[start : start + len(found)] == found:
                        yield i, j, start


def _anchors(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The four-word sequences at the beginning of a text; a shorter text is one."""
    if len(words) <= CONTAINED_SHORT:
        return [words] if words else []
    return [words[n : n + CONTAINED_SHORT] for n in range(min(ANCHORS, len(words) - CONTAINED_SHORT + 1))]


def _borne(rows: Sequence[Folded], frames: Iterable[Frame]) -> Counter[Frame]:
    """How many rows have each frame around anything at all."""
    wanted = set(frames)
    shapes = {(len(before), len(after)) for before, after in wanted}
    found: Counter[Frame] = Counter()
    for row in rows:
        size = len(row.words)
        for before, after in shapes:
            if size > before + after:
                frame = (row.words[:before], row.words[size - after :])
                if frame in wanted:
                    found[frame] += 1
    return found


# --- long texts -----------------------------------------------------------------------------------------------------


def sharing_grams(rows: Sequence[Folded], protected: Sequence[Folded]) -> Iterator[Hit]:
    """At least half of the 8-word sequences of the shorter text, both of 13 words and more.

    Sequences that more than 50 protected texts hold, or more than half of them, are boilerplate and count for nothing,
    as very frequent 13-grams do not in Brown et al. 2020 (GPT-3, appendix C).
    """
    import numpy as np

    left, left_owner = _grams(rows)
    right, right_owner = _grams(protected)
    order = np.argsort(right, kind="stable")
    right, right_owner = right[order], right_owner[order]
    names, counts = np.unique(right, return_counts=True)
    long = len(np.unique(right_owner))
    most = min(GRAM_COMMON, TEMPLATE_SHARE * long) if long >= TEMPLATE_TEXTS else GRAM_COMMON
    common = names[counts > most]
    keep_left, keep_right = ~np.isin(left, common), ~np.isin(right, common)
    left, left_owner = left[keep_left], left_owner[keep_left]
    right, right_owner = right[keep_right], right_owner[keep_right]
    sizes_left = np.bincount(left_owner, minlength=len(rows))
    sizes_right = np.bincount(right_owner, minlength=len(protected))
    low, high = np.searchsorted(right, left, "left"), np.searchsorted(right, left, "right")
    times = high - low
    first = np.repeat(low - np.concatenate(([0], np.cumsum(times)[:-1])), times) if len(times) else times
    at = first + np.arange(times.sum())
    pairs = np.repeat(left_owner, times) * max(1, len(protected)) + right_owner[at]
    found, shared = np.unique(pairs, return_counts=True)
    for pair, count in zip(found.tolist(), shared.tolist(), strict=True):
        i, j = divmod(pair, max(1, len(protected)))
        least = int(min(sizes_left[i], sizes_right[j]))
        if least >= GRAMS_LEAST and count >= GRAM_SHARE * least:
            yield i, j, count / least


def _grams(texts: Sequence[Folded]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of the different 8-word sequences of every long text, and whose they are."""
    import numpy as np

    factors = np.random.default_rng(GRAM).integers(1, 2**63, GRAM, dtype=np.uint64) | np.uint64(1)
    hashes = [np.zeros(0, np.uint64)]
    for text in texts:
        grams = np.zeros(0, np.uint64)
        if len(text.words) >= LONG_WORDS:
            words = np.array([crc32(word.encode()) for word in text.words], dtype=np.uint64)
            windows = np.lib.stride_tricks.sliding_window_view(words, GRAM)
            grams = np.unique((windows * factors).sum(axis=1, dtype=np.uint64))
        hashes.append(grams)
    owners = np.repeat(np.arange(len(texts)), [len(grams) for grams in hashes[1:]])
    return np.concatenate(hashes), owners


def alike(rows: Sequence[Folded], protected: Sequence[Folded]) -> Iterator[Hit]:
    """A Jaccard similarity of four-letter sequences of at least 0.8.

    Candidates come from MinHash (Broder 1997) with locality-sensitive hashing, and each is compared exactly. Sequences
    that more than half of the protected texts hold are a template; they count for nothing. Short texts with other
    numbers, or with one word in the place of another, are different: "table for 2" is not "table for 4".
    """
    from datasketch import MinHash, MinHashLSH

    left, right = _telling([_shingles(row) for row in rows], [_shingles(item) for item in protected])
    index = MinHashLSH(threshold=JACCARD - 0.1, num_perm=PERMUTATIONS)
    for j, sketch in enumerate(MinHash.generator(right, num_perm=PERMUTATIONS, seed=1)):
        if right[j]:
            index.insert(j, sketch)
    for i, sketch in enumerate(MinHash.generator(left, num_perm=PERMUTATIONS, seed=1)):
        for j in sorted(index.query(sketch))[:CANDIDATES] if left[i] else ():
            similarity = len(left[i] & right[j]) / len(left[i] | right[j])
            if similarity >= JACCARD and _alike_enough(rows[i], protected[j]):
                yield i, j, similarity


def _shingles(text: Folded) -> set[bytes]:
    plain = " ".join(text.words)
    if len(plain) < TYPO_LETTERS[0]:
        return set()
    return {plain[i : i + SHINGLE].encode() for i in range(len(plain) - SHINGLE + 1)}


def _telling(left: list[set[bytes]], right: list[set[bytes]]) -> tuple[list[set[bytes]], list[set[bytes]]]:
    """Both without what more than half of the protected texts have, where there are enough of them to say so: that
    tells none of them from the others."""
    if len(right) < TEMPLATE_TEXTS:
        return left, right
    counts = Counter(shingle for text in right for shingle in text)
    common = {shingle for shingle, count in counts.items() if count > TEMPLATE_SHARE * len(right)}
    return [text - common for text in left], [text - common for text in right]


def _alike_enough(a: Folded, b: Folded) -> bool:
    """False for short texts with other numbers, or with one word in the place of another: "where" is not "how"."""
    if min(len(a.words), len(b.words)) >= LONG_WORDS:
        return True
    if a.digits != b.digits:
        return False
    pairs = [(v, w) for v, w in zip(a.words, b.words, strict=False) if v != w]
    if len(a.words) != len(b.words) or len(pairs) != 1:
        return True
    return _one_edit(*pairs[0]) and max(map(len, pairs[0])) >= TYPO_WORD
