"""The file that experiments edit: a small network learns for TIME_BUDGET to predict a byte from those before it."""

from __future__ import annotations

import resource
import time

import numpy as np
from numpy.typing import NDArray
from prepare import TIME_BUDGET, VOCABULARY, Bytes, contexts, evaluate_bpb, load_text

Array = NDArray[np.float32]

DEPTH = 1  # hidden layers
WIDTH = 64
EMBEDDING_SIZE = 12
CONTEXT = 6  # bytes
BATCH = 64
LEARNING_RATE = 0.003
FINAL_LR_FRAC = 0.1  # of the learning rate, at the end
BETA1, BETA2 = 0.9, 0.99
SEED = 42


class Network:
    """Embeddings side by side, hidden layers with ReLU, logits. Trained by Adam (Kingma and Ba 2015, algorithm 1)."""

    def __init__(self, dice: np.random.Generator) -> None:
        sizes = [CONTEXT * EMBEDDING_SIZE, *[WIDTH] * DEPTH, VOCABULARY]
        self.weights: list[Array] = [dice.normal(0, 0.1, (VOCABULARY, EMBEDDING_SIZE)).astype(np.float32)]
        for fan_in, fan_out in zip(sizes, sizes[1:], strict=False):
            self.weights.append(dice.normal(0, (2 / fan_in) ** 0.5, (fan_in, fan_out)).astype(np.float32))
        self.means = [np.zeros_like(weight) for weight in self.weights]
        self.squares = [np.zeros_like(weight) for weight in self.weights]

    def layers(self, text: Bytes) -> list[Array]:
        values = [self.weights[0][text].reshape(len(text), -1)]
        for weight in self.weights[1:-1]:
            values.append(np.maximum(values[-1] @ weight, 0))
        return [*values, values[-1] @ self.weights[-1]]

    def predict(self, text: Bytes) -> Array:
        return self.layers(text)[-1]

    def learn(self, text: Bytes, targets: Bytes, rate: float, step: int) -> float:
        """One step of Adam; the loss before it, in nats."""
        values = self.layers(text)
        chances = np.exp(values[-1] - values[-1].max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        rows = np.arange(len(targets))
        loss = -float(np.log(chances[rows, targets] + 1e-9).mean())
        chances[rows, targets] -= 1
        back = chances / len(targets)
        slopes = [np.zeros_like(self.weights[0])]
        for place in range(len(self.weights) - 1, 0, -1):
            slopes.insert(1, values[place - 1].T @ back)
            back = back @ self.weights[place].T
            if place > 1:
                back = back * (values[place - 1] > 0)
        np.add.at(slopes[0], text, back.reshape(*text.shape, EMBEDDING_SIZE))
        for weight, slope, mean, square in zip(self.weights, slopes, self.means, self.squares, strict=True):
            mean += (1 - BETA1) * (slope - mean)
            square += (1 - BETA2) * (slope * slope - square)
            scaled = mean / (1 - BETA1**step)
            weight -= rate * scaled / (np.sqrt(square / (1 - BETA2**step)) + 1e-8)
        return loss


def main() -> None:
    begun = time.perf_counter()
    dice = np.random.default_rng(SEED)
    text = load_text("train")
    network = Network(dice)
    step, started = 0, time.perf_counter()
    while (done := (time.perf_counter() - started) / TIME_BUDGET) < 1:
        step += 1
        places = dice.integers(CONTEXT, len(text), BATCH)
        rate = LEARNING_RATE * (1 - (1 - FINAL_LR_FRAC) * done)
        loss = network.learn(contexts(text, places, CONTEXT), text[places], rate, step)
        if not loss < 100:
            raise SystemExit(f"the loss is {loss} after {step} steps")
        if step % 500 == 0:
            print(f"after {step} steps, {done:.0%} of the time: loss {loss:.4f}", flush=True)
    trained = time.perf_counter() - started
    bits = evaluate_bpb(network.predict, CONTEXT)

    print("---")
    print(f"val_bpb:          {bits:.6f}")
    print(f"training_seconds: {trained:.1f}")
    print(f"total_seconds:    {time.perf_counter() - begun:.1f}")
    print(f"peak_vram_mb:     {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.1f}")
    print(f"mfu_percent:      {0.0:.2f}")
    print(f"total_tokens_M:   {step * BATCH / 1e6:.3f}")
    print(f"num_steps:        {step}")
    print(f"num_params_M:     {sum(weight.size for weight in network.weights) / 1e6:.3f}")
    print(f"depth:            {DEPTH}")


if __name__ == "__main__":
    main()
