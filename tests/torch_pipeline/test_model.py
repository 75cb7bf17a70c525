from dataclasses import dataclass

import numpy as np
import pytest

from pipelines.workloads import Vision, Weights
from pipelines.workloads.vision_presets import PRESETS
from torch_pipeline.model import build_model, weights_of

TINY = Vision("tiny", (8, 8, 1), 10, PRESETS["tiny"])


@dataclass(frozen=True)
class WithSpareWeights(Vision):
    def initial_weights(self, seed: int) -> Weights:
        return {**super().initial_weights(seed), "spare/bias": np.zeros(1, np.float32)}


def test_every_weight_comes_back_by_name_in_the_workloads_layout() -> None:
    initial = TINY.initial_weights(3)

    found = weights_of(build_model(TINY, 3))

    assert set(found) == set(initial)
    for name, value in initial.items():
        np.testing.assert_array_equal(found[name], value)


def test_a_weight_that_the_network_has_no_place_for_is_an_error() -> None:
    workload = WithSpareWeights("tiny", (8, 8, 1), 10, PRESETS["tiny"])

    with pytest.raises(ValueError, match="the network has no spare/bias"):
        build_model(workload, 0)
