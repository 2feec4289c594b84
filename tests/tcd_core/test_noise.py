"""Keyed step noise: the same for a key, independent for any other, standard normal, never the initial noise."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from run_strategies import FLOW, PROPERTY, VE, VP, shapes

from tcd_core import KeyedNoise, Level

COUNT, LEVEL = 40_000, VP.level(499)
SEEDS = [0, 1, 2, 2**31, 2**32, 2**32 + 1, 2**63, 2**64 - 1, -2]


def draw(seed=0, item=0, level=LEVEL, count=COUNT):
    return KeyedNoise(torch.empty(1, count), seed, [item])(level)[0]


def assert_uncorrelated(draws):
    """Every pair's correlation within five and a half standard errors of 0 (hundreds of pairs are compared)."""
    correlation = torch.corrcoef(torch.stack(draws))
    apart = correlation - torch.eye(len(draws))
    assert apart.abs().max() < 5.5 / len(draws[0]) ** 0.5


@PROPERTY
@given(st.integers(-(2**63), 2**64 - 1), shapes, st.integers(0, 999))
def test_one_key_gives_one_draw(seed, shape, t):
    like = torch.empty(shape)
    first, again = KeyedNoise(like, seed), KeyedNoise(like, seed)
    again(VP.level(3))  # a draw in between changes nothing: there is no state
    z = first(VP.level(t))
    assert z.shape == shape and z.dtype == like.dtype
    assert torch.equal(z, again(VP.level(t)))


def test_only_the_time_of_a_level_counts():
    assert torch.equal(draw(level=VP.level(499)), draw(level=Level(499.0, 1.0, 2.0)))


def test_seeds_items_and_times_give_independent_draws():
    by_seed = [draw(seed=seed) for seed in SEEDS]
    by_item = [draw(item=item) for item in (1, 2, 3, 2**31, 2**32, 2**40)]
    by_time = [draw(level=VP.level(t)) for t in (0, 1, 259, 498, 759, 999)]
    by_fraction = [draw(level=FLOW.level(t)) for t in (0.25, 0.2502, 0.5, 0.75)]
    assert_uncorrelated(by_seed + by_item + by_time + by_fraction)


def test_keys_that_could_be_mistaken_for_one_another_are_independent():
    """A key is a list of numbers; none may spell another's."""
    keys = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (2**32, 0, 0), (0, 2**32, 0), (499, 3, 0), (3, 499, 0)]
    assert_uncorrelated([draw(seed, item, VP.level(t)) for seed, item, t in keys])


def test_neighbouring_coordinates_and_rows_are_independent():
    z = KeyedNoise(torch.empty(4, COUNT), 11)(VP.level(499))
    assert_uncorrelated(list(z) + [z[0].roll(shift) for shift in (1, 2, 64)])


def test_negative_seeds_are_their_lowest_64_bits():
    assert torch.equal(draw(seed=-1), draw(seed=2**64 - 1))
    assert torch.equal(draw(seed=2**64 + 5), draw(seed=5))


@pytest.mark.parametrize("items", [None, [0, 1, 2], [7, 3, 7]])
def test_an_item_alone_is_that_item_in_a_batch(items):
    like = torch.empty(3, 4, 5, 5)
    batch = KeyedNoise(like, 9, items)(VP.level(259))
    for row, item in enumerate(items or range(3)):
        alone = KeyedNoise(like[:1], 9, [item])(VP.level(259))
        assert torch.equal(batch[row], alone[0])
    if items == [7, 3, 7]:
        assert torch.equal(batch[0], batch[2])


@pytest.mark.parametrize("seed", [0, 1, 42, 2**32, 2**63 - 1])
def test_it_is_never_the_initial_noise(seed):
    """What a host draws the initial latents with: torch's generator, or NumPy's, at the same seed."""
    shape = (2, COUNT)
    initial = [
        torch.manual_seed(seed) and torch.randn(shape),
        torch.from_numpy(np.random.default_rng(seed).normal(size=shape)),
    ]
    initial.append(
        torch.from_numpy(np.random.Generator(np.random.SFC64(seed)).standard_normal(shape, dtype=np.float32))
    )
    initial.append(torch.from_numpy(np.random.RandomState(seed % 2**32).standard_normal(shape)))
    noise = KeyedNoise(torch.empty(shape), seed)
    steps = [noise(VP.level(t)) for t in (999, 499, 0)]
    assert_uncorrelated([row.double() for z in steps + initial for row in z])


def test_drawing_leaves_the_global_generators_alone():
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    draw()
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


def test_draws_are_standard_normal():
    """A million numbers: moments within five standard errors, and the tails' share."""
    z = torch.cat([draw(seed, count=100_000) for seed in range(10)]).double()
    n = len(z)
    assert abs(z.mean()) < 5 / n**0.5
    assert abs(z.var() - 1) < 5 * (2 / n) ** 0.5
    assert abs((z**3).mean()) < 5 * (15 / n) ** 0.5
    assert abs((z**4).mean() - 3) < 5 * (96 / n) ** 0.5
    for bound, share in ((1, 0.317311), (2, 0.045500), (3, 0.0026998)):
        assert abs((z.abs() > bound).double().mean() - share) < 5 * (share / n) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_dtype_gets_the_same_float32_draw(dtype):
    level = VP.level(499)
    z = KeyedNoise(torch.empty(2, 50, dtype=dtype), 3)(level)
    assert z.dtype == dtype
    assert torch.equal(z, KeyedNoise(torch.empty(2, 50), 3)(level).to(dtype))


def test_the_draw_lands_on_the_latents_device():
    assert KeyedNoise(torch.empty(2, 3, device="meta"), 0)(VP.level(499)).device.type == "meta"


def test_every_item_needs_a_number():
    with pytest.raises(ValueError, match="2 item numbers given for a batch of 3"):
        KeyedNoise(torch.empty(3, 4), 0, [0, 1])


def test_all_pairs_of_a_runs_draws_differ():
    noise = KeyedNoise(torch.empty(2, 16), 0)
    rows = [row for t in (759, 499, 259, 0) for row in noise(VP.level(t))]
    assert not any(torch.equal(a, b) for a, b in combinations(rows, 2))


@pytest.mark.parametrize(
    ("seed", "item", "level", "first"),
    [
        (0, 0, VP.level(759), [-0.73161304, 0.02066146, 0.32863835, -0.60399199]),
        (2**64 - 1, 5, FLOW.level(0.25), [-0.11427027, -0.43728891, 0.05415088, -0.58875847]),
    ],
)
def test_a_seed_keeps_its_noise_from_release_to_release(seed, item, level, first):
    """Fixed numbers: a change of the key, or of NumPy's generator, would change every user's pictures."""
    torch.testing.assert_close(draw(seed, item, level, 4), torch.tensor(first), rtol=0, atol=1e-7)


def test_a_rounding_of_a_sigma_off_the_table_leaves_the_noise_as_it_is():
    """A host computes such sigmas on whatever device the model lies; the last bit of exp differs between them."""
    kept = 0
    for sigma in torch.linspace(0.1, 14, 200).tolist():
        other = float(torch.nextafter(torch.tensor(sigma), torch.tensor(20.0)))
        kept += torch.equal(draw(level=VE.level_at_sigma(sigma)), draw(level=VE.level_at_sigma(other)))
    assert kept >= 198  # keys are steps of 1e-4 in lambda: now and then one lies between two


def test_levels_close_together_still_draw_for_themselves():
    """linear_quadratic and karras bunch their sigmas: 5e-4 apart in lambda, far closer than table times."""
    sigmas = [14.6 * 0.9995**i for i in range(20)] + [0.4 * 0.9995**i for i in range(20)]
    flow = [FLOW.level(1e-3 * 0.9995**i) for i in range(20)]
    low = [VE.level_at_sigma(sigma) for sigma in (0.0295, 0.03, 0.031)]  # between times 0 and 1
    assert_uncorrelated(
        [draw(level=VE.level_at_sigma(sigma)) for sigma in sigmas] + [draw(level=v) for v in flow + low]
    )
