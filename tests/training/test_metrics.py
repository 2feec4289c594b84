"""Distances between sets of pictures, against closed forms."""

import math

import pytest
import torch

from training.metrics import complexity, frechet_distance


def normal(count, mean, deviation, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor(mean) + torch.tensor(deviation) * torch.randn(count, len(mean), generator=generator)


def test_frechet_distance_of_two_gaussians_is_its_closed_form():
    a, b = normal(200_000, [0.0, 1.0], [1.0, 2.0], 0), normal(200_000, [3.0, 1.0], [2.0, 0.5], 1)
    assert frechet_distance(a, b) == pytest.approx(3**2 + (1 - 2) ** 2 + (2 - 0.5) ** 2, rel=0.01)


def test_frechet_distance_of_correlated_sets_is_their_moments():
    """tr (Σ_a Σ_b)^{1/2} of two 2 × 2 matrices: sqrt(tr + 2 sqrt(det))."""
    a = normal(500, [0.0, 0.0], [1.0, 1.0], 0) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]])
    b = normal(300, [1.0, 0.0], [1.0, 1.0], 1) @ torch.tensor([[0.5, -0.4], [0.3, 2.0]])
    cov_a, cov_b = a.double().T.cov(), b.double().T.cov()
    product = cov_a @ cov_b
    cross = math.sqrt(product.trace() + 2 * math.sqrt(product.det()))
    expected = (a.double().mean(0) - b.double().mean(0)).square().sum() + (cov_a + cov_b).trace() - 2 * cross
    assert frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-6)


def test_a_set_has_no_distance_from_itself_even_where_its_covariance_is_singular():
    a = normal(50, [1.0, 2.0, 3.0], [1.0, 0.0, 2.0], 0)
    assert frechet_distance(a, a.flip(0)) == pytest.approx(0, abs=1e-7)
    few = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-3)


def test_pictures_are_compared_as_vectors():
    a, b = torch.rand(2, 30, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(a.flatten(1), b.flatten(1)))


@pytest.mark.parametrize("bad", [torch.zeros(1, 2), torch.tensor([[0.0, 1.0], [math.nan, 1.0]])])
def test_sets_without_a_covariance_are_refused(bad):
    with pytest.raises(ValueError, match="at least two finite vectors"):
        frechet_distance(torch.rand(5, 2), bad)


def test_complexity_is_the_mean_difference_of_neighbours():
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4)[None, None]
    assert complexity(board) == 2 and complexity(torch.zeros(1, 1, 8, 8)) == 0
    stripes = torch.tensor([1.0, -1.0]).repeat(8, 4)[None, None]
    assert complexity(stripes) == pytest.approx(1.0)
    assert complexity(5 * board) == 2  # clipped to [−1, 1]
