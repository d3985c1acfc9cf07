"""Words, BM25 and nDCG. Protected: the referee measures with it, and train.py may look at itself with it."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

STOP_WORDS = """a an and are as at be but by can do does for from had has have how i if in into is it its me my no not
of on one or so than that the their then there these they this to was we what when where which who why will with you
your"""
STOP = frozenset(STOP_WORDS.split())


def words(text: str) -> list[str]:
    """Lower-case words without stop words and without the plural's s."""
    found = [word for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in STOP]
    bare = [word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in found]
    return [word for word in bare if word not in STOP]


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Index:
    """BM25 (Robertson and Zaragoza 2009, section 3.4) over the sections of corpus.jsonl."""

    def __init__(self, sections: list[dict[str, str]], k1: float = 1.2, b: float = 0.75) -> None:
        self.names = [section["id"] for section in sections]
        counts = [Counter(words(f"{section['title']} {section['text']}")) for section in sections]
        lengths = [sum(count.values()) for count in counts]
        mean = sum(lengths) / len(lengths)
        self.gains: dict[str, dict[int, float]] = {}
        for place, (count, length) in enumerate(zip(counts, lengths, strict=True)):
            for word, times in count.items():
                gain = times * (k1 + 1) / (times + k1 * (1 - b + b * length / mean))
                self.gains.setdefault(word, {})[place] = gain
        for found in self.gains.values():
            rarity = math.log(1 + (len(sections) - len(found) + 0.5) / (len(found) + 0.5))
            for place in found:
                found[place] *= rarity

    def search(self, query: Mapping[str, float], most: int = 10) -> list[str]:
        """The best sections for a query of weighted words, best first; equal ones in the order of the corpus."""
        scores: dict[int, float] = {}
        for word, weight in query.items():
            for place, gain in self.gains.get(word, {}).items():
                scores[place] = scores.get(place, 0.0) + weight * gain
        best = sorted(scores, key=lambda place: (-scores[place], place))[:most]
        return [self.names[place] for place in best]


def ndcg(found: list[str], wanted: str) -> float:
    """nDCG of a ranking when one section answers the query: 1 at the first place, 0 when it is not there."""
    return 1 / math.log2(2 + found.index(wanted)) if wanted in found else 0.0


def weighed(query: str, expansion: list[str], weight: float) -> dict[str, float]:
    """The query's words count 1 each time, those of the expansion `weight`."""
    counts: dict[str, float] = {}
    for word in words(query):
        counts[word] = counts.get(word, 0.0) + 1.0
    for term in expansion:
        for word in words(term):
            counts[word] = counts.get(word, 0.0) + weight
    return counts
