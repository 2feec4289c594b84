"""Which items a step's batch holds: everything as often as it should be, from the step's number alone."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.order import Order

bucket_sizes = st.lists(st.integers(1, 30), min_size=1, max_size=6)


def order_of(sizes, repeats=1):
    firsts = np.cumsum([0, *sizes])
    return Order(
        {
            b: [row for row in range(first, first + n) for _ in range(repeats)]
            for b, (first, n) in enumerate(zip(firsts, sizes, strict=False))
        }
    )


@settings(max_examples=60, deadline=None)
@given(bucket_sizes, st.integers(1, 8), st.integers(1, 3), st.integers(1, 4))
def test_every_item_is_seen_repeats_times_an_epoch_but_for_a_batch_not_yet_full(sizes, count, repeats, epochs):
    order = order_of(sizes, repeats)
    firsts, seen = np.cumsum([0, *sizes]), Counter()
    for step in range(order.steps(epochs, count)):
        rows = order.batch(step, count, 1, "tcd")
        assert len({int(np.searchsorted(firsts, row, "right")) for row in rows}) == 1, "of one bucket"
        seen.update(rows.tolist())
    for first, n in zip(firsts, sizes, strict=False):
        left = [epochs * repeats - seen[row] for row in range(first, first + n)]
        assert min(left) >= 0 and sum(left) < count and max(left) <= repeats * (1 + count // (n * repeats))


@settings(max_examples=60, deadline=None)
@given(bucket_sizes, st.integers(1, 8))
def test_an_epoch_takes_its_share_of_batches(sizes, count):
    order = order_of(sizes)
    for epochs in (1, 3, 10):
        assert epochs * sum(sizes) / count - len(sizes) < order.steps(epochs, count) <= epochs * sum(sizes) / count
    for step in range(3 * sum(sizes) // count):
        epoch = order.epoch_of(step, count)
        assert order.steps(epoch, count) <= step < order.steps(epoch + 1, count)


def test_a_batch_depends_on_step_count_seed_and_stream_and_not_on_what_was_asked_before():
    one, two = order_of([5, 9, 2]), order_of([5, 9, 2])
    forwards = [one.batch(step, 3, 1, "tcd").tolist() for step in range(40)]
    backwards = [two.batch(step, 3, 1, "tcd").tolist() for step in reversed(range(40))][::-1]
    assert forwards == backwards
    assert forwards != [one.batch(step, 3, 2, "tcd").tolist() for step in range(40)]
    assert forwards != [one.batch(step, 3, 1, "lcm").tolist() for step in range(40)]


def test_epochs_differ_and_buckets_take_turns_in_proportion():
    order = order_of([40, 20, 4])
    epochs = [[tuple(order.batch(16 * e + i, 4, 0, "s")) for i in range(16)] for e in range(2)]
    assert set(epochs[0]) != set(epochs[1])
    for epoch in epochs:
        turns = [0 if rows[0] < 40 else 1 if rows[0] < 60 else 2 for rows in epoch]
        assert Counter(turns) == {0: 10, 1: 5, 2: 1} and turns != sorted(turns)


def test_far_steps_are_as_quick_as_near_ones():
    order = order_of([1000, 3, 1])
    for step in (10**6, 10**9):
        assert len(order.batch(step, 64, 0, "s")) == 64


def test_a_bucket_smaller_than_a_batch_waits_for_its_turn_and_then_fills_one():
    order = order_of([8, 1])
    seen = Counter(row for step in range(order.steps(8, 4)) for row in order.batch(step, 4, 0, "s").tolist())
    assert seen == {row: 8 for row in range(9)}


def test_no_items_are_refused():
    with pytest.raises(ValueError, match="at least one item"):
        Order({0: []})
