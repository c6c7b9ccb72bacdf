"""Quadrature nodes and weights for walks of normal increments."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from ratchet.stats.arrays import FloatArray

NODES_PER_STEP = 4.0  # quadrature nodes per standard deviation of the smallest increment
NODE_BLOCK = 64  # their number is rounded up to a multiple, so that few rules are computed
REACH = 9.0  # standard deviations beyond which a walk has no mass worth integrating


def quadrature(reach: float, finest: float) -> tuple[FloatArray, FloatArray]:
    """Return points and weights on [-reach, reach], fine enough for increments of that size."""
    blocks = 1 + math.ceil(NODES_PER_STEP * reach / finest / NODE_BLOCK)
    nodes, weights = _legendre(NODE_BLOCK * blocks)
    return reach * nodes, reach * weights


@cache
def _legendre(nodes: int) -> tuple[FloatArray, FloatArray]:
    points, weights = np.polynomial.legendre.leggauss(nodes)
    return np.asarray(points), np.asarray(weights)
