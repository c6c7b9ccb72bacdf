"""How much arithmetic a training step needs, and how much a card can do: for the share of its peak.

Model FLOPs are what the mathematics needs, as in PaLM (Chowdhery et al. 2022, appendix B): what is
computed twice, by gradient checkpointing say, counts once, and padding counts nothing. LoRA (Hu et
al. 2021) trains no weight of the base, so that backward needs the gradients of the activations
alone there:

| per | forward | backward |
|---|---|---|
| token, N weights of the base's linear layers | 2 N | 2 N |
| token, n weights of the adapter | 2 n | 4 n |
| answer's token, head of vocabulary V and width h | 2 V h | 2 V h |
| layer, sequence of s tokens that see those before them, heads x width d | 2 s^2 d | 4 s^2 d |

The first layer's inputs need no gradient; it is counted as if they did, which is at most one part
in twice the number of layers too much.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# bfloat16, dense, from NVIDIA's data sheets; the first whose name is part of the device's counts.
PEAKS = (
    ("B200", 2250e12),
    ("H200 NVL", 835e12),
    ("H200", 989e12),
    ("H100 NVL", 835e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L40", 181e12),
    ("L4", 121e12),
    ("A10G", 70e12),
    ("A10", 125e12),
    ("RTX 4090", 165e12),
    ("RTX 3090", 71e12),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama-shaped model.

    Attributes:
        tied: Whether head and embedding are the same weights.
    """

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_heads: int
    vocabulary: int
    tied: bool

    @property
    def head_width(self) -> int:
        return self.hidden // self.heads

    @property
    def linears(self) -> list[tuple[int, int]]:
        """Inputs and outputs of a layer's linear layers: q, k, v, o, gate, up, down."""
        keys = self.key_heads * self.head_width
        wide = self.intermediate
        return [
            (self.hidden, self.hidden), (self.hidden, keys), (self.hidden, keys),
            (self.hidden, self.hidden), (self.hidden, wide), (self.hidden, wide),
            (wide, self.hidden),
        ]  # fmt: skip

    @property
    def linear_weights(self) -> int:
        return self.layers * sum(one * two for one, two in self.linears)

    @property
    def weights(self) -> int:
        """All of them, norms included."""
        embeddings = (1 if self.tied else 2) * self.vocabulary * self.hidden
        return self.linear_weights + embeddings + (2 * self.layers + 1) * self.hidden

    def adapter_weights(self, rank: int) -> int:
        return self.layers * rank * sum(one + two for one, two in self.linears)


def training_flops(shape: Shape, rank: int, lengths: Sequence[int], answers: int) -> float:
    """Model FLOPs of one forward and backward pass.

    Args:
        shape: The base.
        rank: Of the adapter on every linear layer but the head.
        lengths: Tokens of each sequence, without padding.
        answers: Tokens that are scored.
    """
    a_token = 4 * shape.linear_weights + 6 * shape.adapter_weights(rank)
    attention = 6 * shape.layers * shape.hidden * sum(size**2 for size in lengths)
    return float(a_token * sum(lengths) + attention + 4 * shape.vocabulary * shape.hidden * answers)


def known_peak(name: str) -> float | None:
    """Return the card's bfloat16 FLOPs a second by its name, or None."""
    return next((peak for part, peak in PEAKS if part.lower() in name.lower()), None)


def measured_product(device: str, size: int, repeats: int = 10) -> float:
    """Return FLOPs a second of a bare bfloat16 product of random square matrices."""
    import torch

    one, two = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        one @ two
    _wait(torch, device)
    started = time.perf_counter()
    for _ in range(repeats):
        one @ two
    _wait(torch, device)
    return 2.0 * size**3 * repeats / (time.perf_counter() - started)


def _wait(torch: Any, device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
