"""Distances between sets of pictures, and what a set looks like by itself."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """``‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^{1/2})`` of two sets of vectors, (n, d) and (m, d), in float64.

    ``tr (Σ_a Σ_b)^{1/2}`` is the sum of the square roots of the eigenvalues of ``Σ_a^{1/2} Σ_b Σ_a^{1/2}``, which is
    symmetric, so that singular covariances are no trouble.

    Raises:
        ValueError: a set of fewer than two vectors, or not finite.
    """
    sets = [np.asarray(torch.as_tensor(s).flatten(1).double().cpu()) for s in (a, b)]
    for vectors in sets:
        if len(vectors) < 2 or not np.isfinite(vectors).all():
            raise ValueError(f"a Fréchet distance needs at least two finite vectors in each set, got {vectors.shape}")
    (mu_a, cov_a), (mu_b, cov_b) = ((v.mean(0), np.cov(v, rowvar=False)) for v in sets)
    cross = trace_of_product_root(root_of(cov_a), cov_b)
    return float(np.square(mu_a - mu_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def root_of(covariance: np.ndarray) -> np.ndarray:
    """``Σ^{1/2}``, symmetric, of a covariance (d, d); eigenvalues that rounding made negative count as 0."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def trace_of_product_root(root: np.ndarray, covariance: np.ndarray) -> float:
    """``tr (Σ_a Σ_b)^{1/2}`` from `root_of` Σ_a and Σ_b."""
    return float(np.sqrt(np.linalg.eigvalsh(root @ covariance @ root).clip(0)).sum())


def complexity(pictures: Tensor) -> float:
    """Mean absolute difference of neighbouring pixels, of pictures in [−1, 1] clipped to it: how much detail there is.

    A stand-in for the paper's image complexity (IC9600), which is a network's weights; this needs none.
    """
    x = pictures.clamp(-1, 1)
    return torch.cat([x.diff(dim=-1).abs().flatten(), x.diff(dim=-2).abs().flatten()]).mean().item()
