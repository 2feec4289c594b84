"""Random draws keyed by seed, stream and step."""

import itertools

import torch

from training.draws import epoch_rows, generator_for


def first(seed, stream, step):
    return torch.rand(1, generator=generator_for(seed, stream, step)).item()


def test_each_seed_stream_and_step_has_its_own_numbers():
    keys = list(itertools.product((0, 1, 2**31 - 1), ("tcd", "tcd epoch", "lcm"), range(40)))
    values = [first(*key) for key in keys]
    assert len(set(values)) == len(values) and values == [first(*key) for key in keys]


def test_neither_touches_torchs_own_numbers():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first(0, "tcd", 0)
    epoch_rows(0, 4, 10, 0, "tcd")
    assert torch.equal(torch.get_rng_state(), before)


def test_each_epoch_holds_each_item_once_in_an_order_of_its_own():
    rows = torch.cat([epoch_rows(step, 8, 37, 0, "tcd") for step in range(14)])
    epochs = rows[: 3 * 37].view(3, 37)
    assert all(sorted(epoch.tolist()) == list(range(37)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1]) and not torch.equal(epochs[1], epochs[2])


def test_a_batch_larger_than_the_data_runs_through_several_epochs():
    rows = epoch_rows(0, 25, 10, 0, "tcd").view(-1)
    assert sorted(rows[:10].tolist()) == sorted(rows[10:20].tolist()) == list(range(10))
    assert torch.equal(
        torch.cat([epoch_rows(0, 25, 10, 0, "tcd"), epoch_rows(1, 25, 10, 0, "tcd")]),
        torch.cat([epoch_rows(step, 5, 10, 0, "tcd") for step in range(10)]),
    )
