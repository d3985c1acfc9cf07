"""Losses over pairs of rows: one class together, different classes apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def pair_loss(embedded: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Squared error of pair cosines, 1 for pairs of one class and 0 for others, both kinds with equal weight.

    The cosine-similarity loss of SetFit (Tunstall et al. 2022, section 3), over all pairs of a batch.
    """
    import torch

    same = classes[:, None] == classes[None, :]
    apart = torch.eye(len(classes), dtype=torch.bool)
    error = (embedded @ embedded.T - same.float()) ** 2
    kinds = [error[kind] for kind in (same & ~apart, ~same) if bool(kind.any())]
    return sum((kind.mean() for kind in kinds), embedded.sum() * 0.0) / max(1, len(kinds))


def contrastive_loss(embedded: torch.Tensor, classes: torch.Tensor, temperature: float) -> torch.Tensor:
    """Supervised contrastive loss of a batch of unit vectors (Khosla et al. 2020, equation 2)."""
    import torch

    same = (classes[:, None] == classes[None, :]) & ~torch.eye(len(classes), dtype=torch.bool)
    similar = (embedded @ embedded.T / temperature).masked_fill(torch.eye(len(classes), dtype=torch.bool), -1e9)
    log_share = similar - similar.logsumexp(1, keepdim=True)
    pairs = same.sum(1)
    if not bool((pairs > 0).any()):
        return embedded.sum() * 0.0
    return (-(log_share * same).sum(1) / pairs.clamp(min=1))[pairs > 0].mean()
