"""Measure what train.py left: nDCG@10 of BM25 with the expansions of hidden queries. Writes score.json.

The queries are the one file in the folder POSTGRAD_HIDDEN, or queries/val.jsonl when this is run by hand. The items are
the queries; their mean is the value. It runs model.py and retrieval.py as they came, and nothing of the experiment.
"""

import json
import os
import sys
from pathlib import Path

import torch
from model import load
from retrieval import Index, ndcg, read, weighed


def hidden_queries() -> list[dict[str, str]]:
    folder = os.environ.get("POSTGRAD_HIDDEN")
    if folder is None:
        return read(Path("queries/val.jsonl"))
    files = [file for file in Path(folder).rglob("*") if file.is_file()]
    if len(files) != 1:
        raise ValueError(f"{len(files)} files of hidden queries, and one was expected")
    return read(files[0])


def main() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    index = Index(read(Path("corpus.jsonl")))
    items, plain = {}, []
    try:
        model = load(Path("out"))
        for number, row in enumerate(hidden_queries(), 1):
            query = weighed(row["query"], model.expand(row["query"]), model.config.weight)
            items[f"query-{number:02d}"] = ndcg(index.search(query), row["section"])
            plain.append(ndcg(index.search(weighed(row["query"], [], 0)), row["section"]))
    except ValueError as error:
        sys.exit(f"refused: {error}")
    score = {"value": sum(items.values()) / len(items), "items": items}
    Path("score.json").write_text(json.dumps(score, indent=1) + "\n", encoding="utf-8")
    print(f"ndcg_at_10: {score['value']:.4f}")
    print(f"without_expansion: {sum(plain) / len(plain):.4f}")


if __name__ == "__main__":
    main()
