import itertools
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.ingest import Dataset
from pipelines.ingest.order import EpochOrder
from pipelines.ingest.reader import BatchStream, SharedBatches, sequential_batches
from pipelines.worker import Worker
from pipelines.workloads import get_workload

WORKERS = st.sampled_from([1, 2, 3, 4, 8])
ROWS = st.integers(1, 60)
SEEDS = st.integers(0, 2**31)
BUFFERS = st.integers(1, 80)
"""Smaller and larger than the rows: shuffled in blocks, and as a whole."""
FAST = settings(deadline=None, max_examples=60)


def numbered(rows: int) -> dict[str, np.ndarray]:
    """Rows that can be told apart, in two columns that must stay together."""
    return {"row": np.arange(rows), "pair": np.arange(2 * rows).reshape(rows, 2)}


def stream(
    rows: int, batch: int, rank: int = 0, workers: int = 1, seed: int = 0, buffer: int = 1_000
) -> BatchStream:
    return BatchStream(
        numbered(rows),
        global_batch_size=batch,
        rank=rank,
        workers=workers,
        seed=seed,
        shuffle_buffer=buffer,
    )


def rows_of(batches: BatchStream, steps: int) -> list[int]:
    return np.concatenate([batches.batch(step)["row"] for step in range(steps)]).tolist()


@FAST
@given(ROWS, st.integers(1, 10), WORKERS, st.integers(0, 30), SEEDS, BUFFERS)
def test_workers_slices_in_rank_order_are_one_workers_global_batch(
    rows: int, batch_per_worker: int, workers: int, step: int, seed: int, buffer: int
) -> None:
    batch = batch_per_worker * workers
    slices = [
        stream(rows, batch, rank, workers, seed, buffer).batch(step) for rank in range(workers)
    ]
    whole = stream(rows, batch, seed=seed, buffer=buffer).batch(step)

    assert {len(part["row"]) for part in slices} == {batch_per_worker}
    for column in ("row", "pair"):
        joined = np.concatenate([part[column] for part in slices])
        np.testing.assert_array_equal(joined, whole[column])


@FAST
@given(ROWS, st.integers(1, 100), st.integers(1, 3), SEEDS, BUFFERS)
def test_every_example_appears_exactly_once_per_epoch(
    rows: int, batch: int, epochs: int, seed: int, buffer: int
) -> None:
    steps = -(-rows * epochs // batch)

    seen = rows_of(stream(rows, batch, seed=seed, buffer=buffer), steps)

    for epoch in range(epochs):
        assert sorted(seen[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


@FAST
@given(ROWS, st.integers(1, 20), st.integers(0, 50))
def test_columns_of_an_example_stay_together(rows: int, batch: int, step: int) -> None:
    found = stream(rows, batch).batch(step)

    np.testing.assert_array_equal(found["pair"][:, 0], 2 * found["row"])
    np.testing.assert_array_equal(found["pair"][:, 1], 2 * found["row"] + 1)


@FAST
@given(ROWS, st.integers(1, 20), WORKERS, st.integers(0, 40), SEEDS, BUFFERS)
def test_a_restart_goes_on_where_the_stream_would_have_been(
    rows: int, batch_per_worker: int, workers: int, start: int, seed: int, buffer: int
) -> None:
    batch, rank = batch_per_worker * workers, workers - 1
    unbroken = stream(rows, batch, rank, workers, seed, buffer).batches()
    skipped = itertools.islice(unbroken, start, start + 4)
    restarted = stream(rows, batch, rank, workers, seed, buffer).batches(start_step=start)

    for expected, found in zip(skipped, restarted, strict=False):
        np.testing.assert_array_equal(found["row"], expected["row"])


@FAST
@given(ROWS, st.integers(1, 20), WORKERS, SEEDS, BUFFERS)
def test_the_stream_of_batches_is_the_batches_step_by_step(
    rows: int, batch_per_worker: int, workers: int, seed: int, buffer: int
) -> None:
    asked = stream(rows, batch_per_worker * workers, workers - 1, workers, seed, buffer)

    for step, found in enumerate(itertools.islice(asked.batches(), 30)):
        np.testing.assert_array_equal(found["row"], asked.batch(step)["row"])


@pytest.mark.parametrize("seed", range(5))
def test_a_bounded_buffer_still_mixes_distant_rows(seed: int) -> None:
    # A buffer of a quarter: without blocks its rows would all come from one quarter of the data.
    first = rows_of(stream(4_096, 1_024, seed=seed, buffer=1_024), 1)

    per_quarter = np.bincount(np.array(first) // 1_024, minlength=4)
    assert per_quarter.min() > 128  # of 256 expected, with a standard deviation of some 24


def test_only_a_buffers_worth_of_order_is_worked_out_at_a_time() -> None:
    order = EpochOrder(10_000_000, seed=0, epoch=0, buffer_rows=4_096)

    tracemalloc.start()
    order.rows_at(5_000_000, 5_001_000)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < 20 * 4_096 * 8


@FAST
@given(st.lists(st.integers(0, 40), min_size=1, max_size=20))
def test_a_step_is_the_same_in_whatever_order_steps_are_asked_for(steps: list[int]) -> None:
    asked = stream(13, 5)

    for step in steps:
        np.testing.assert_array_equal(asked.batch(step)["row"], stream(13, 5).batch(step)["row"])


@FAST
@given(st.integers(10, 60), SEEDS)
def test_epochs_differ_in_their_order(rows: int, seed: int) -> None:
    seen = rows_of(stream(rows, rows, seed=seed), 3)
    epochs = [tuple(seen[epoch * rows : (epoch + 1) * rows]) for epoch in range(3)]

    assert len(set(epochs)) == 3
    assert tuple(range(rows)) not in epochs


def test_seeds_differ_in_their_order_and_one_seed_does_not() -> None:
    orders = [tuple(stream(50, 50, seed=seed).batch(0)["row"].tolist()) for seed in (0, 1, 2, 0)]

    assert len(set(orders)) == 3
    assert orders[0] == orders[3]


def test_the_order_of_a_seed_is_fixed_for_good() -> None:
    # Recorded runs can only be repeated as long as this stays.
    assert stream(8, 8, seed=0).batch(0)["row"].tolist() == [2, 4, 3, 6, 5, 0, 1, 7]
    assert stream(8, 8, seed=0).batch(1)["row"].tolist() == [1, 3, 7, 6, 0, 4, 2, 5]


def test_a_batch_larger_than_the_split_goes_on_into_the_next_epochs() -> None:
    seen = stream(3, 7).batch(0)["row"].tolist()

    assert sorted(seen[:3]) == sorted(seen[3:6]) == [0, 1, 2]
    assert len(seen) == 7


@FAST
@given(st.integers(1, 64), WORKERS)
def test_a_batch_that_workers_cannot_share_equally_is_refused(batch: int, workers: int) -> None:
    if batch % workers == 0:
        assert len(stream(5, batch, 0, workers).batch(0)["row"]) == batch // workers
        return
    with pytest.raises(InputError) as raised:
        stream(5, batch, 0, workers)
    assert str(raised.value) == (
        f"training: a global batch of {batch} examples cannot be shared equally "
        f"by {workers} workers"
    )


@FAST
@given(ROWS, st.integers(1, 80))
def test_sequential_batches_cover_every_example_once_in_stored_order(rows: int, batch: int) -> None:
    found = list(sequential_batches(numbered(rows), batch))

    assert np.concatenate([part["row"] for part in found]).tolist() == list(range(rows))
    assert [len(part["row"]) for part in found[:-1]] == [batch] * (len(found) - 1)
    assert 1 <= len(found[-1]["row"]) <= batch


def test_shared_training_batches_are_model_ready_and_split_over_the_workers(
    load_quickstart: Callable[..., Config], digits: Dataset
) -> None:
    config = load_quickstart()
    workload = get_workload(config, digits.manifest)
    alone = load_quickstart("training.batch_size_per_worker=32")

    parts = [
        next(iter(SharedBatches(config, workload, "train", Worker(rank, 2)))) for rank in range(2)
    ]
    whole = next(iter(SharedBatches(alone, workload, "train", Worker(0, 1))))

    for features, labels in parts:
        assert (features["image"].shape, features["image"].dtype) == ((16, 8, 8, 1), np.float32)
        assert (labels.shape, labels.dtype) == ((16,), np.int64)
    joined = np.concatenate([features["image"] for features, _ in parts])
    np.testing.assert_array_equal(joined, whole[0]["image"])
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in parts]), whole[1])


def test_shared_eval_batches_give_every_worker_the_whole_split_once(
    quickstart: Config, digits: Dataset
) -> None:
    workload = get_workload(quickstart, digits.manifest)
    stored = digits.columns("eval")["label"]

    for rank in range(2):
        batches = list(SharedBatches(quickstart, workload, "eval", Worker(rank, 2)))
        labels = np.concatenate([labels for _, labels in batches])
        np.testing.assert_array_equal(labels, stored)
        assert {len(labels) for _, labels in batches[:-1]} == {16}


@FAST
@given(ROWS, st.integers(1, 10), WORKERS, st.integers(0, 30), SEEDS, BUFFERS)
def test_the_rows_of_a_step_are_those_of_all_workers_batches_in_rank_order(
    rows: int, batch_per_worker: int, workers: int, step: int, seed: int, buffer: int
) -> None:
    batch = batch_per_worker * workers
    streams = [stream(rows, batch, rank, workers, seed, buffer) for rank in range(workers)]

    joined = np.concatenate([each.batch(step)["row"] for each in streams])

    for each in streams:
        np.testing.assert_array_equal(each.rows(step), joined)


def test_shared_training_batches_begin_after_the_steps_that_are_done(
    quickstart: Config, digits: Dataset
) -> None:
    workload = get_workload(quickstart, digits.manifest)
    unbroken = iter(SharedBatches(quickstart, workload, "train", Worker(1, 2)))

    restarted = iter(SharedBatches(quickstart, workload, "train", Worker(1, 2), start_step=7))

    for (features, labels), (expected, expected_labels) in zip(
        itertools.islice(restarted, 4), itertools.islice(unbroken, 7, None), strict=False
    ):
        np.testing.assert_array_equal(features["image"], expected["image"])
        np.testing.assert_array_equal(labels, expected_labels)


def test_a_process_of_several_replicas_begins_after_the_batches_of_all_of_them(
    quickstart: Config, digits: Dataset
) -> None:
    workload, worker = get_workload(quickstart, digits.manifest), Worker(replicas=2)
    unbroken = iter(SharedBatches(quickstart, workload, "train", worker))

    restarted = iter(SharedBatches(quickstart, workload, "train", worker, start_step=3))

    for (_, labels), (_, expected) in zip(
        itertools.islice(restarted, 4), itertools.islice(unbroken, 6, None), strict=False
    ):
        np.testing.assert_array_equal(labels, expected)


def test_evaluation_begins_at_its_start_whatever_the_steps_that_are_done(
    quickstart: Config, digits: Dataset
) -> None:
    workload = get_workload(quickstart, digits.manifest)

    batches = SharedBatches(quickstart, workload, "eval", Worker(), start_step=7)

    labels = np.concatenate([labels for _, labels in batches])
    np.testing.assert_array_equal(labels, digits.columns("eval")["label"])


def test_the_examples_of_a_step_can_be_looked_up_by_any_worker(
    quickstart: Config, digits: Dataset
) -> None:
    workload = get_workload(quickstart, digits.manifest)
    workers = [SharedBatches(quickstart, workload, "train", Worker(rank, 2)) for rank in range(2)]
    stored = digits.columns("train")["label"]

    rows = workers[0].rows(5)

    assert rows == workers[1].rows(5)
    assert all(type(row) is int for row in rows)  # they are written down as JSON
    read = [next(itertools.islice(each, 5, None))[1] for each in workers]
    np.testing.assert_array_equal(stored[rows], np.concatenate(read))
