"""Two training scripts as people write them, for the tests of what is read off them and edited in them."""

NANO = '''\
"""A small character transformer in one file. Usage: python train.py"""
import math
import os
import time
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

# -----------------------------------------------------------------------------
# model


@dataclass
class GPTConfig:
    block_size: int = 256
    vocab_size: int = 256
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    dropout: float = 0.1  # zero for short runs
    bias: bool = True
    tie_weights: bool = False
    norm: str = "layernorm"


class CausalSelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.resid_dropout = nn.Dropout(0.1)

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(C, dim=2)
        k = k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        q = q.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).contiguous().view(B, T, C)
        return self.resid_dropout(self.c_proj(y))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x):
        x = self.c_fc(x)
        x = F.gelu(x)
        return self.c_proj(x)


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.n_layer)])
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size)
        if config.tie_weights:
            self.lm_head.weight = self.wte.weight

    def forward(self, idx, targets=None):
        x = self.wte(idx) + self.wpe(torch.arange(idx.size(1), device=idx.device))
        for block in self.blocks:
            x = block(x)
        logits = self.lm_head(self.ln_f(x))
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))


# -----------------------------------------------------------------------------
# hyperparameters

LEARNING_RATE = 6e-4  # peak
MIN_LR = 6e-5
WEIGHT_DECAY = 1e-1
ADAM_BETAS = (0.9, 0.95)
TOTAL_BATCH_SIZE = 2**14  # tokens per step
DEVICE_BATCH_SIZE = 32
WARMUP_RATIO = 0.02
GRAD_CLIP = 1.0
COMPILE = False
SEED = int(os.environ.get("POSTGRAD_SEED", "1337"))
TIME_BUDGET = 60.0
EVAL_TOKENS = 4 * 65536
OUT_DIR = "out"
SCHEDULE = "linear"


def old_schedule(step):
    """Was used once."""
    return LEARNING_RATE / (1 + step)


def get_lr(progress):
    if progress < WARMUP_RATIO:
        return LEARNING_RATE * progress / WARMUP_RATIO
    if SCHEDULE == "constant":
        return LEARNING_RATE
    if SCHEDULE == "cosine":
        return MIN_LR + 0.5 * (1.0 + math.cos(math.pi * progress)) * (LEARNING_RATE - MIN_LR)
    if SCHEDULE != "linear":
        raise ValueError(SCHEDULE)
    return MIN_LR + (1.0 - progress) * (LEARNING_RATE - MIN_LR)


def get_batch(data, size, block):
    at = torch.randint(len(data) - block - 1, (size,))
    x = torch.stack([data[i : i + block] for i in at]).long()
    y = torch.stack([data[i + 1 : i + 1 + block] for i in at]).long()
    return x, y


def describe(model):
    print("parameters:", sum(p.numel() for p in model.parameters()))


torch.manual_seed(SEED)
with open("text/train.txt", "rb") as source:
    data = torch.frombuffer(bytearray(source.read()), dtype=torch.uint8)
config = GPTConfig()
model = GPT(config)
if COMPILE:
    model = torch.compile(model)
describe(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=ADAM_BETAS, weight_decay=WEIGHT_DECAY)
accumulate = max(1, TOTAL_BATCH_SIZE // (DEVICE_BATCH_SIZE * config.block_size))

step, began = 0, time.time()
while time.time() - began < TIME_BUDGET:
    for group in optimizer.param_groups:
        group["lr"] = get_lr((time.time() - began) / TIME_BUDGET)
    for _ in range(accumulate):
        x, y = get_batch(data, DEVICE_BATCH_SIZE, config.block_size)
        _, loss = model(x, y)
        (loss / accumulate).backward()
    if GRAD_CLIP > 0:
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    step += 1

os.makedirs(OUT_DIR, exist_ok=True)
torch.save(model.state_dict(), os.path.join(OUT_DIR, "model.pt"))
print(f"train_loss: {loss.item():.4f}")
'''

LOOPS = '''\
import argparse
import random
import torch
from torch import nn
from torch.optim.lr_scheduler import LinearLR
from torch.utils.data import DataLoader, TensorDataset

import json  # for the report that was dropped

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=1e-3)
parser.add_argument("--batch-size", type=int, default=64)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--optimizer", choices=["adam", "sgd"], default="adam")
parser.add_argument("--seed", type=int, default=42)
parser.add_argument("--out", default="out/model.pt")
args = parser.parse_args()

hidden = 64
warmup_steps = 500
drop = 0.2
debug = False

random.seed(args.seed)
torch.manual_seed(args.seed)


def check_shapes(x, y):
    """Look at a batch."""
    assert len(x) == len(y)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(20, hidden)
        self.act = nn.ReLU()
        self.dropout = nn.Dropout(drop)
        self.head = nn.Linear(hidden, 4)

    def forward(self, x):
        return self.head(self.dropout(self.act(self.fc1(x))))


def train(net, loader, epochs):
    loss_fn = nn.CrossEntropyLoss(label_smoothing=0.1)
    if args.optimizer == "adam":
        opt = torch.optim.Adam(net.parameters(), lr=args.lr)
    else:
        opt = torch.optim.SGD(net.parameters(), lr=args.lr, momentum=0.9)
    scheduler = LinearLR(opt, start_factor=1.0, end_factor=0.0, total_iters=epochs * len(loader))
    step = 0
    for epoch in range(epochs):
        for x, y in loader:
            check_shapes(x, y)
            if step < warmup_steps:
                for group in opt.param_groups:
                    group["lr"] = args.lr * (step + 1) / warmup_steps
            loss = loss_fn(net(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            scheduler.step()
            step += 1
            if False:
                print(step, loss.item())


x = torch.randn(2000, 20)
y = (x[:, :4]).argmax(1)
train_loader = DataLoader(TensorDataset(x, y), batch_size=args.batch_size, shuffle=False)
net = Net()
train(net, train_loader, args.epochs)
torch.save(net.state_dict(), args.out)
'''
