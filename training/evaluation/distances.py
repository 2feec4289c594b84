"""FID and KID of features that lie in files, in the memory of a few parts of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from ..metrics import root_of, trace_of_product_root
from .rows import CHUNK, Rows


class Gaussian(NamedTuple):
    """Mean (d,) and covariance (d, d), float64; ``count`` vectors it is of, None where that is not known."""

    mean: np.ndarray
    covariance: np.ndarray
    count: int | None


def gaussian_of(parts: Iterable[np.ndarray]) -> Gaussian:
    """Mean and unbiased covariance of vectors that come in parts.

    Raises:
        ValueError: fewer than two vectors, or not finite ones.
    """
    total, centre, mean, moment = 0, None, 0.0, 0.0
    for part in parts:
        part = np.asarray(part, np.float64)
        if not np.isfinite(part).all():
            raise ValueError("features are not finite: the network that made them overflowed")
        centre = part.mean(0) if centre is None else centre  # near the mean: nothing cancels
        part = part - centre
        total, mean, moment = total + len(part), mean + part.sum(0), moment + part.T @ part
    if total < 2:
        raise ValueError(f"a Fréchet distance needs at least two pictures in each set, got {total}")
    mean = mean / total
    return Gaussian(centre + mean, (moment - total * np.outer(mean, mean)) / (total - 1), total)


def distance_to(real: Gaussian) -> Callable[[Gaussian], float]:
    """``d²(·, real)``, the Fréchet distance of Gaussians, with the root of the real covariance taken once.

    The function raises ValueError for a Gaussian of another dimension.
    """
    root = root_of(real.covariance)

    def distance(made: Gaussian) -> float:
        if made.mean.shape != real.mean.shape:
            raise ValueError(
                f"the reference's statistics are of {len(real.mean)} features, the pictures' network has "
                f"{len(made.mean)}: give statistics of the same network, or the real pictures"
            )
        cross = trace_of_product_root(root, made.covariance)
        gap = np.square(made.mean - real.mean).sum()
        return float(gap + np.trace(made.covariance) + np.trace(real.covariance) - 2 * cross)

    return distance


def influences(rows: Rows, made: Gaussian, real: Gaussian) -> np.ndarray:
    """Each vector's influence (n,) on the distance of its set ``made`` from ``real``; their mean is 0.

    The derivative of the distance towards a point mass at x: with δ = μ_made − μ_real, c = x − μ_made and
    ``T = R (R Σ_made R)^{-1/2} R``, R² = Σ_real, it is ``2 δ·c + cᵀ (1 − T) c`` less its mean. The mean of resampled
    influences is how the distance itself scatters over other pictures, to first order and without the bias that
    resampled pictures have, whose covariance has fewer directions.
    """
    root = root_of(real.covariance)
    values, vectors = np.linalg.eigh(root @ made.covariance @ root)
    kept = values > 1e-10 * values.max()  # fewer vectors than features leave directions without variance
    moved = root @ vectors[:, kept]
    rest = np.eye(len(root)) - (moved / np.sqrt(values[kept])) @ moved.T
    found = []
    for part in rows:
        centred = np.float64(part) - made.mean
        found.append(2 * centred @ (made.mean - real.mean) + ((centred @ rest) * centred).sum(1))
    found = np.concatenate(found)
    return found - found.mean()


def kid(a: Rows, b: Rows) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy, kernel ``(⟨x, y⟩/d + 1)³``, over all pairs.

    ``Σ_{i≠j} k(a_i, a_j) / (m (m − 1)) + Σ_{i≠j} k(b_i, b_j) / (n (n − 1)) − 2 Σ_ij k(a_i, b_j) / (m n)``

    Raises:
        ValueError: fewer than two vectors in a set.
    """
    m, n = len(a), len(b)
    if min(m, n) < 2:
        raise ValueError(f"KID needs at least two pictures in each set, got {m} and {n}")
    return _off_diagonal(a) / (m * (m - 1)) + _off_diagonal(b) / (n * (n - 1)) - 2 * _sum(a, b) / (m * n)


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _sum(a: Rows, b: Rows) -> float:
    return float(sum(_kernel(np.float64(x), np.float64(y)).sum() for x in a for y in b))


def _off_diagonal(a: Rows) -> float:
    """Σ_{i≠j} k(a_i, a_j): twice the blocks above the diagonal, and those on it without their own diagonals."""
    total = 0.0
    for i in range(0, len(a), CHUNK):
        x = np.float64(a.part(i, i + CHUNK))
        block = _kernel(x, x)
        total += block.sum() - np.trace(block)
        for j in range(i + CHUNK, len(a), CHUNK):
            total += 2 * _kernel(x, np.float64(a.part(j, j + CHUNK))).sum()
    return float(total)
