import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config import Config
from pipelines.ingest import Dataset
from pipelines.ingest.manifest import Split
from pipelines.ingest.reader import SharedBatches
from pipelines.worker import Worker
from pipelines.workloads import Vision
from tf_pipeline.data import open_dataset

Batch = tuple[np.ndarray, np.ndarray]
Open = Callable[..., Iterator[Batch]]
Example = tuple[bytes, int]


@pytest.fixture
def batches(
    config: Config,
    workload: Vision,
    dataset: Dataset,
    to_numpy: Callable[[Any, Any], Batch],
) -> Open:
    """The first batches of a split, or all of them, as arrays."""

    def read(
        split: Split,
        first: int | None = None,
        worker: Worker | None = None,
        transformed: Path | None = None,
        asked: Config = config,
        start_step: int = 0,
    ) -> Iterator[Batch]:
        opened = open_dataset(asked, workload, split, worker or Worker(), transformed, start_step)
        return (to_numpy(*batch) for batch in itertools.islice(opened, first))

    return read


@pytest.fixture
def stored(dataset: Dataset) -> Callable[[Split], list[Example]]:
    """Pixels and label of every example of a split, in stored order."""

    def read(split: Split) -> list[Example]:
        columns = dataset.columns(split)
        return examples(columns["image"], columns["label"])

    return read


@pytest.fixture
def as_stored(dataset: Dataset) -> Callable[[Batch], list[Example]]:
    """Standardised examples, back in pixels, with their labels."""
    fitted = dataset.manifest.statistics["train"]["image"]

    def restore(batch: Batch) -> list[Example]:
        pixels = batch[0] * fitted.std + fitted.mean
        np.testing.assert_allclose(pixels, pixels.round(), atol=1e-3)
        return examples(pixels.round(), batch[1])

    return restore


def examples(images: np.ndarray, labels: np.ndarray) -> list[Example]:
    return [
        (image.astype(np.uint8).tobytes(), int(label))
        for image, label in zip(images, labels, strict=True)
    ]


@pytest.mark.parametrize("worker", [Worker(), Worker(1, 3)], ids=["alone", "second of three"])
def test_shared_training_batches_are_exactly_the_readers(
    config: Config, workload: Vision, batches: Open, worker: Worker
) -> None:
    expected = iter(SharedBatches(config, workload, "train", worker))

    for images, labels in batches("train", 4, worker):
        features, expected_labels = next(expected)
        np.testing.assert_array_equal(images, features["image"])
        np.testing.assert_array_equal(labels, expected_labels)
        assert (images.shape, images.dtype) == ((16, 8, 8, 1), np.float32)
        assert (labels.shape, labels.dtype) == ((16,), np.int64)


def test_two_workers_shared_batches_make_up_the_batch_of_one(
    load_shrunk: Callable[..., Config], batches: Open
) -> None:
    doubled = load_shrunk("training.batch_size_per_worker=32")

    whole = batches("train", 3, asked=doubled)
    parts = zip(*(batches("train", 3, Worker(rank, 2)) for rank in range(2)), strict=True)

    for expected, part in zip(whole, parts, strict=True):
        for column in range(2):
            joined = np.concatenate([batch[column] for batch in part])
            np.testing.assert_array_equal(joined, expected[column])


def test_shared_training_batches_go_on_beyond_an_epoch(
    dataset: Dataset, load_shrunk: Callable[..., Config], batches: Open
) -> None:
    large = load_shrunk("training.batch_size_per_worker=1000")

    sizes = [len(labels) for _, labels in batches("train", 4, asked=large)]

    assert dataset.manifest.rows("train") < 2000
    assert sizes == [1000] * 4


@pytest.mark.parametrize("rank", [0, 1])
def test_shared_evaluation_yields_every_example_once_to_every_worker(
    batches: Open,
    stored: Callable[[Split], list[Example]],
    as_stored: Callable[[Batch], list[Example]],
    rank: int,
) -> None:
    read = list(batches("eval", worker=Worker(rank, 2)))

    assert [example for batch in read for example in as_stored(batch)] == stored("eval")


def test_native_training_batches_are_never_short_and_go_on_beyond_an_epoch(
    dataset: Dataset,
    load_shrunk: Callable[..., Config],
    batches: Open,
    transformed: Path,
) -> None:
    asked = load_shrunk("training.batch_size_per_worker=50")
    an_epoch, left_over = divmod(dataset.manifest.rows("train"), 50)
    shapes = {
        (images.shape, images.dtype.name, labels.shape, labels.dtype.name)
        for images, labels in batches(
            "train", 2 * an_epoch + 2, transformed=transformed, asked=asked
        )
    }

    assert left_over
    assert shapes == {((50, 8, 8, 1), "float32", (50,), "int64")}


def test_native_training_examples_are_standardised_and_keep_their_labels(
    batches: Open,
    stored: Callable[[Split], list[Example]],
    as_stored: Callable[[Batch], list[Example]],
    transformed: Path,
) -> None:
    examples = stored("train")
    read = [
        example
        for batch in batches("train", len(examples) // 16, transformed=transformed)
        for example in as_stored(batch)
    ]

    assert not Counter(read) - Counter(examples)  # all are known, none came twice in an epoch
    assert {label for _, label in read} == set(range(10))
    assert read != examples[: len(read)]  # shuffled


def test_native_training_gives_two_workers_different_halves(
    batches: Open,
    stored: Callable[[Split], list[Example]],
    as_stored: Callable[[Batch], list[Example]],
    transformed: Path,
) -> None:
    examples = stored("train")
    whole_batches = len(examples) // 2 // 16
    halves = [
        Counter(
            example
            for batch in batches("train", whole_batches, Worker(rank, 2), transformed)
            for example in as_stored(batch)
        )
        for rank in range(2)
    ]

    assert [half.total() for half in halves] == [whole_batches * 16] * 2
    assert not (halves[0] + halves[1]) - Counter(examples)


@pytest.mark.parametrize("rank", [0, 1])
def test_native_evaluation_yields_every_example_once_to_every_worker(
    batches: Open,
    stored: Callable[[Split], list[Example]],
    as_stored: Callable[[Batch], list[Example]],
    transformed: Path,
    rank: int,
) -> None:
    read = list(batches("eval", worker=Worker(rank, 2), transformed=transformed))

    found = Counter(example for batch in read for example in as_stored(batch))
    assert found == Counter(stored("eval"))
    assert {label for _, label in found} == set(range(10))


def test_native_training_is_repeatable_and_seeded(
    load_shrunk: Callable[..., Config], batches: Open, transformed: Path
) -> None:
    def labels(seed: int) -> list[list[int]]:
        asked = load_shrunk(f"training.seed={seed}")
        read = batches("train", 3, transformed=transformed, asked=asked)
        return [labels.tolist() for _, labels in read]

    assert labels(0) == labels(0)
    assert labels(0) != labels(1)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("worker", [Worker(), Worker(rank=1, workers=2)])
def test_training_that_goes_on_gets_the_batches_that_it_would_have_got(
    batches: Open, transformed: Path, worker: Worker, native: bool
) -> None:
    folder = transformed if native else None
    whole = [*batches("train", 7, worker, folder)]

    rest = [*batches("train", 3, worker, folder, start_step=4)]

    for (images, labels), (expected_images, expected_labels) in zip(rest, whole[4:], strict=True):
        np.testing.assert_array_equal(images, expected_images)
        np.testing.assert_array_equal(labels, expected_labels)
