"""Train a model that expands short queries, for a fixed time. The one file that experiments edit.

Reads corpus.jsonl and train.jsonl; leaves out/config.json and out/model.safetensors; prints a summary.
POSTGRAD_TIME_S: seconds of training (20). POSTGRAD_SEED: for the weights and the batches (0). OMP_NUM_THREADS: how many
threads (1).
"""

import math
import os
import random
import time
from collections import Counter
from pathlib import Path

import torch
from model import Config, Expander, save
from retrieval import read, words

EMBEDDING_SIZE = 64
TERMS = 6  # most words of an expansion
AT_LEAST = 0.0  # words less likely than this are left out
WEIGHT = 0.3  # of a word of the expansion, where one of the query has 1

BATCH = 64
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-4
LOGGED = 0.3  # share of the examples that are logged queries, the rest are made from the corpus
ASKED = 3  # words of a query that is made from a section
TITLE_TIMES = 3  # what a word of the title counts, where one of the text counts 1
RARITY = 1.0  # 0: words to be written count as often as they stand there; 1: times their rarity


def target(section: dict[str, str], number: dict[str, int], rarity: dict[str, float]) -> torch.Tensor:
    """What the model should write for a section: a distribution over the words."""
    counts = Counter(words(section["text"]))
    for word in words(section["title"]):
        counts[word] += TITLE_TIMES
    row = torch.zeros(len(number))
    for word, times in counts.items():
        row[number[word]] = times * rarity[word] ** RARITY
    return row / row.sum()


def is_well_formed(query: str, expansion: list[str]) -> bool:
    """The format reward: 4 to 8 words, none twice and none of the query's. It says nothing about what is found."""
    return 4 <= len(expansion) <= 8 and len({*expansion}) == len(expansion) and not {*expansion} & {*words(query)}


def main() -> None:
    begun = time.perf_counter()
    seconds = float(os.environ.get("POSTGRAD_TIME_S", "20"))
    seed = int(os.environ.get("POSTGRAD_SEED", "0"))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(seed)
    dice = random.Random(seed)

    sections, logged = read(Path("corpus.jsonl")), read(Path("train.jsonl"))
    texts = [words(f"{section['title']} {section['text']}") for section in sections]
    spread = Counter(word for text in texts for word in set(text))
    vocabulary = sorted(spread)
    number = {word: place for place, word in enumerate(vocabulary)}
    rarity = {word: math.log(len(sections) / count) for word, count in spread.items()}
    targets = torch.stack([target(section, number, rarity) for section in sections])
    place = {section["id"]: at for at, section in enumerate(sections)}

    model = Expander(Config(size=EMBEDDING_SIZE, terms=TERMS, at_least=AT_LEAST, weight=WEIGHT), vocabulary)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    started, steps, smooth = time.perf_counter(), 0, 0.0
    while (done := (time.perf_counter() - started) / seconds) < 1:
        queries, wanted = [], []
        for _ in range(BATCH):
            if dice.random() < LOGGED:
                row = dice.choice(logged)
                queries.append(row["query"])
                wanted.append(place[row["section"]])
            else:
                wanted.append(dice.randrange(len(sections)))
                queries.append(" ".join(dice.choices(texts[wanted[-1]], k=ASKED)))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - done)
        loss = -(targets[wanted] * model(queries).log_softmax(-1)).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
        smooth = 0.98 * smooth + 0.02 * loss.item()
    trained = time.perf_counter() - started
    save(model.eval(), Path("out"))

    formed = [is_well_formed(row["query"], model.expand(row["query"])) for row in logged]
    print("---")
    print(f"format_reward: {sum(formed) / len(formed):.4f}")
    print(f"train_loss: {smooth / (1 - 0.98**steps):.4f}")
    print(f"training_seconds: {trained:.1f}")
    print(f"total_seconds: {time.perf_counter() - begun:.1f}")
    print(f"num_steps: {steps}")
    print(f"num_params_M: {sum(weight.numel() for weight in model.parameters()) / 1e6:.3f}")
    print(f"seed: {seed}")


if __name__ == "__main__":
    main()
