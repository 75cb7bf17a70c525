from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from pipelines.config import Config
from pipelines.ingest import Dataset
from pipelines.ingest.cache import mapped_columns
from pipelines.parity.probe import Probe, probed
from pipelines.workloads import Workload, get_workload


@pytest.fixture
def workload(quickstart: Config, digits: Dataset) -> Workload:
    return get_workload(quickstart, digits.manifest)


def test_a_probe_round_trips(tmp_path: Path) -> None:
    probe = Probe(perturbation=3, precision="float64")

    assert Probe.load(probe.dump(tmp_path / "probe.json")) == probe


def test_a_probe_knows_its_keys(tmp_path: Path) -> None:
    file = tmp_path / "probe.json"
    file.write_text('{"pertubation": 3}')

    with pytest.raises(ValidationError):
        Probe.load(file)


def test_an_empty_probe_changes_nothing(workload: Workload) -> None:
    plain = probed(workload, Probe())

    assert plain == workload
    for name, value in workload.initial_weights(5).items():
        assert np.array_equal(plain.initial_weights(5)[name], value)


@pytest.mark.parametrize(
    ("precision", "least", "most"),
    [
        ("float32", 2.0**-24, 2.0**-23),
        ("float64", 2.0**-53, 2.0**-52),
        ("bfloat16", 0.99 * 2**-8, 1.01 * 2**-8),
        ("float16", 0.99 * 2**-11, 1.01 * 2**-11),
    ],
)
def test_every_weight_moves_by_one_rounding_up_or_down(
    workload: Workload, precision: str, least: float, most: float
) -> None:
    moved = probed(workload, Probe(perturbation=1, precision=precision)).initial_weights(0)

    for name, value in workload.initial_weights(0).items():
        exact = value.astype(np.float64)
        apart = (moved[name].astype(np.float64) - exact)[exact != 0] / exact[exact != 0]
        assert (np.abs(apart) >= least * 0.999).all()
        assert (np.abs(apart) <= most * 1.001).all()
        if apart.size > 50:
            assert 0.2 < (apart > 0).mean() < 0.8
        if precision in ("float32", "float64"):
            assert moved[name].dtype == precision


def test_perturbations_differ_by_seed_and_repeat_by_seed(workload: Workload) -> None:
    def weights(seed: int) -> np.ndarray:
        return probed(workload, Probe(perturbation=seed)).initial_weights(0)["head/kernel"]

    assert np.array_equal(weights(1), weights(1))
    assert not np.array_equal(weights(1), weights(2))


@pytest.mark.parametrize("rows", [1, 16, 37])
def test_a_permutation_keeps_every_example_with_its_target(
    workload: Workload, digits: Dataset, rows: int
) -> None:
    columns = {name: values[:rows] for name, values in mapped_columns(digits, "train").items()}
    statistics = digits.manifest.statistics["train"]

    features, target = workload.prepare(columns, statistics)
    permuted, moved = probed(workload, Probe(permutation=1)).prepare(columns, statistics)

    def examples(images: np.ndarray, labels: np.ndarray) -> list[tuple[bytes, int]]:
        return [(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)]

    [name] = features
    before, after = examples(features[name], target), examples(permuted[name], moved)
    assert sorted(before) == sorted(after)
    assert rows == 1 or before != after


def test_the_workload_itself_stays_as_it_was(workload: Workload) -> None:
    before = workload.initial_weights(0)
    changed = probed(workload, Probe(perturbation=1, permutation=1))

    assert type(changed) is type(workload)
    assert changed.title == workload.title
    for name, value in workload.initial_weights(0).items():
        assert np.array_equal(value, before[name])
