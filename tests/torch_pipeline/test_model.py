from dataclasses import dataclass

import numpy as np
import pytest
import torch

from pipelines.workloads import Text, Vision, Weights, Workload
from pipelines.workloads.vision_presets import PRESETS
from torch_pipeline.loss import mean_loss
from torch_pipeline.model import build_model, weights_of

TINY = Vision("tiny", (8, 8, 1), 10, PRESETS["tiny"])

SHORT = Text("tiny", layers=3, width=24, heads=3, vocabulary=11, sequence_length=6)


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


@pytest.mark.parametrize("workload", [TINY, SHORT], ids=["vision", "text"])
def test_activations_computed_again_give_the_same_gradients(workload: Workload) -> None:
    generator = np.random.default_rng(1)
    if workload is SHORT:
        features = {"tokens": torch.from_numpy(generator.integers(0, 11, (4, 6)))}
        target = torch.from_numpy(generator.integers(0, 11, (4, 6)))
    else:
        features = {"image": torch.from_numpy(generator.normal(size=(4, 8, 8, 1)).astype("f4"))}
        target = torch.from_numpy(generator.integers(0, 10, 4))
    gradients, kept = [], []
    for recompute in (False, True):
        model, saved = build_model(workload, 3, recompute), []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, saved=saved: saved.append(tensor.numel()) or tensor, lambda x: x
        ):
            loss = mean_loss(workload, model(features), target)
        kept.append(sum(saved))
        loss.backward()
        gradients.append([each.grad.numpy() for each in model.parameters()])

    assert kept[1] < kept[0] / 2
    for again, before in zip(*reversed(gradients), strict=True):
        assert np.abs(before).max() > 0
        np.testing.assert_array_equal(again, before)
