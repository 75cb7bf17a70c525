import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import erf
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipelines.ingest import Dataset
from pipelines.workload_config import WorkloadConfig
from pipelines.workloads.vision import Convolution, Vision
from pipelines.workloads.vision_presets import PRESETS, VisionSize
from torch_pipeline.model import build_model, weights_of
from torch_pipeline.workloads.vision import fit, preprocess

Arrays = dict[str, np.ndarray]

CASES = {
    "tiny": Vision("tiny", (8, 8, 1), 10, PRESETS["tiny"]),
    "not square": Vision("x", (9, 6, 3), 5, VisionSize((4, 6), (2, 1), "basic", "none", "relu")),
    "batch norm": Vision("x", (6, 5, 2), 4, VisionSize((4, 8), (1, 2), "basic", "batch", "gelu")),
    "group norm": Vision("x", (6, 5, 2), 4, VisionSize((48, 40), (1, 1), "basic", "group", "gelu")),
    "bottleneck": Vision(
        "x", (7, 6, 3), 4, VisionSize((8, 16), (2, 1), "bottleneck", "batch", "relu")
    ),
    "large images": Vision(
        "x", (65, 64, 3), 4, VisionSize((4, 8), (1, 1), "basic", "batch", "relu", True)
    ),
}

PROGRAM = """
import json
import numpy as np
import torch
from torch import distributed
from pipelines.workloads.vision import Vision
from pipelines.workloads.vision_presets import VisionSize
from torch_pipeline.model import build_model, weights_of

distributed.init_process_group("gloo")
rank = distributed.get_rank()
size = VisionSize((4, 8), (1, 2), "basic", "batch", "gelu")
model = build_model(Vision("x", (6, 5, 2), 4, size), 0).double()
images = np.random.default_rng(1).standard_normal((4, 6, 5, 2)).astype("f4")
mine = torch.from_numpy(images)[2 * rank : 2 * rank + 2]
logits = model({"image": mine.double()})
weights = {name: value.tolist() for name, value in weights_of(model).items()}
print(json.dumps({"logits": logits.tolist(), "weights": weights}))
distributed.destroy_process_group()
"""


def in_float64(workload: Vision, weights: Arrays) -> nn.Module:
    model = build_model(workload, 0).double()
    with torch.no_grad():
        for path, module in model.named_modules():
            layer = path.rpartition(".")[2]
            for name, tensor in [
                *module.named_parameters(recurse=False),
                *module.named_buffers(recurse=False),
            ]:
                value = weights[f"{layer}/{kind(layer, name)}"]
                axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[value.ndim]
                tensor.copy_(torch.from_numpy(value.transpose(axes)))
    return model


def kind(layer: str, name: str) -> str:
    weight = "scale" if "norm" in layer else "kernel"
    kinds = {"weight": weight, "running_mean": "mean", "running_var": "variance"}
    return kinds.get(name, name)


def forward(model: nn.Module, images: np.ndarray, training: bool) -> np.ndarray:
    with torch.no_grad():
        dtype = next(model.parameters()).dtype
        return model.train(training)({"image": torch.from_numpy(images).to(dtype)}).numpy()


def gradients_of_squares(model: nn.Module, images: np.ndarray) -> Arrays:
    model.train()({"image": torch.from_numpy(images).double()}).square().sum().backward()
    gradients = {}
    for path, parameter in model.named_parameters():
        *_, layer, name = path.split(".")
        axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[parameter.ndim]
        gradients[f"{layer}/{kind(layer, name)}"] = parameter.grad.permute(axes).numpy()
    return gradients


def transform(workload: Vision, train: Arrays, raw: Arrays) -> Arrays:
    """The columns, transformed as the train split says."""
    config = workload.transform_config()
    fitted = fit(as_tensors(workload, train), config)
    transformed = preprocess(as_tensors(workload, raw), config, fitted)
    return {name: value.numpy() for name, value in transformed.items()}


def as_tensors(workload: Vision, columns: Arrays) -> dict[str, Tensor]:
    return {name: torch.tensor(columns[name]) for name in workload.columns if name in columns}


def normalise(
    workload: Vision, weights: Arrays, name: str, x: np.ndarray, training: bool
) -> np.ndarray:
    if not workload.normalizes:
        return x
    if workload.size.normalization == "batch":
        mean, variance = weights[f"{name}/mean"], weights[f"{name}/variance"]
        if training:
            mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
            weights[f"{name}/mean"] = 0.9 * weights[f"{name}/mean"] + 0.1 * mean
            weights[f"{name}/variance"] = 0.9 * weights[f"{name}/variance"] + 0.1 * variance
        x = (x - mean) / np.sqrt(variance + 1e-5)
    else:
        groups = x.reshape(*x.shape[:3], workload.groups(x.shape[3]), -1)
        mean, variance = (f(groups, (1, 2, 4), keepdims=True) for f in (np.mean, np.var))
        x = ((groups - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
    return x * weights[f"{name}/scale"] + weights[f"{name}/bias"]


def windows(x: np.ndarray, size: int, stride: int, around: float) -> np.ndarray:
    """(batch, row, column, channel, height, width) of what each output pixel sees."""
    pad = ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0))
    padded = np.pad(x, pad, constant_values=around)
    seen = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    return seen[:, ::stride, ::stride]


def reference(workload: Vision, weights: Arrays, images: np.ndarray, training: bool) -> np.ndarray:
    """Logits in plain NumPy, from the description in pipelines.workloads.vision.

    Training moves the running statistics among the weights.
    """

    def convolve(x: np.ndarray, conv: Convolution) -> np.ndarray:
        seen = windows(x, conv.size, conv.stride, 0)
        y = np.einsum("brcihw,hwio->brco", seen, weights[f"{conv.name}/kernel"])
        return y if workload.normalizes else y + weights[f"{conv.name}/bias"]

    def activate(x: np.ndarray, norm: str) -> np.ndarray:
        x = normalise(workload, weights, norm, x, training)
        gelu = workload.size.activation == "gelu"
        return x * (1 + erf(x / np.sqrt(2))) / 2 if gelu else np.maximum(x, 0)

    x = convolve(images.astype(np.float64), workload.stem)
    if workload.shrinks:
        x = windows(x, 3, 2, -np.inf).max((4, 5))
    for block in workload.blocks():
        entering = activate(x, block.norms[0])
        y = convolve(entering, block.convolutions[0])
        for norm, conv in list(zip(block.norms, block.convolutions, strict=True))[1:]:
            y = convolve(activate(y, norm), conv)
        if block.projects:
            x = convolve(entering if workload.normalizes else x, block.shortcut)
        x = x + y
    return activate(x, "norm").mean((1, 2)) @ weights["head/kernel"] + weights["head/bias"]


def images_for(workload: Vision, count: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, *workload.image_shape)).astype("f4")


def far_from_initial(workload: Vision) -> Arrays:
    """Weights whose scales, shifts and statistics all make a difference."""
    random = np.random.default_rng(2)
    return {
        name: value + random.uniform(0, 0.1, value.shape)
        for name, value in workload.initial_weights(0).items()
    }


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_the_network_computes_the_reference_logits(case: str, training: bool) -> None:
    workload, images = CASES[case], images_for(CASES[case], 3)
    weights = far_from_initial(workload)
    model = in_float64(workload, weights)

    logits = forward(model, images, training)

    assert logits.shape == (3, workload.classes)
    expected = reference(workload, weights, images, training)
    np.testing.assert_allclose(logits, expected, rtol=1e-12, atol=1e-12)


def test_training_keeps_nine_tenths_of_the_running_statistics() -> None:
    workload = CASES["batch norm"]
    images, weights = images_for(workload, 3), far_from_initial(workload)
    model = in_float64(workload, weights)

    forward(model, images, training=True)

    reference(workload, weights, images, training=True)
    for name, value in weights_of(model).items():
        np.testing.assert_allclose(value, weights[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("case", CASES)
def test_weights_come_back_as_they_went_in(case: str) -> None:
    initial, found = CASES[case].initial_weights(3), weights_of(build_model(CASES[case], 3))

    assert set(found) == set(initial)
    for name, value in initial.items():
        np.testing.assert_array_equal(found[name], value)


def test_logits_are_float32_at_the_initial_weights_and_the_seed_decides_them() -> None:
    images = images_for(CASES["tiny"], 2)
    first, again, other = (
        forward(build_model(CASES["tiny"], seed), images, False) for seed in (0, 0, 1)
    )

    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.parametrize("case", CASES)
def test_an_image_is_judged_alone_whatever_else_is_in_its_batch(case: str) -> None:
    images = images_for(CASES[case], 3)
    model = build_model(CASES[case], 0)

    alone = np.concatenate([forward(model, images[[row]], False) for row in range(3)])

    np.testing.assert_allclose(forward(model, images, False), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["tiny", "batch norm", "group norm"])
def test_gradients_agree_with_the_references_slope(case: str) -> None:
    """Along a random direction of all trainable weights, by central differences."""
    workload, images = CASES[case], images_for(CASES[case], 3)
    weights, random = far_from_initial(workload), np.random.default_rng(4)

    gradients = gradients_of_squares(in_float64(workload, weights), images)

    way = {name: random.standard_normal(value.shape) for name, value in gradients.items()}
    step = 1e-6

    def squares(at: float) -> float:
        moved = {name: value + at * way.get(name, 0) for name, value in weights.items()}
        return float((reference(workload, moved, images, True) ** 2).sum())

    slope = (squares(step) - squares(-step)) / (2 * step)
    assert sum((gradients[name] * way[name]).sum() for name in way) == pytest.approx(
        slope, rel=1e-6
    )


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_preprocessing_equals_what_the_shared_reader_prepares(digits: Dataset, dtype: str) -> None:
    workload = Vision.build(WorkloadConfig(), digits.manifest)
    train, raw = ({**digits.columns(split)} for split in ("train", "eval"))
    for columns in (train, raw):
        columns["image"] = columns["image"].astype(dtype)

    transformed = transform(workload, train, raw)

    features, target = workload.prepare(raw, digits.manifest.statistics["train"])
    np.testing.assert_allclose(transformed["image"], features["image"], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(transformed["target"], target)
    assert {name: value.dtype for name, value in transformed.items()} == {
        "image": np.float32,
        "target": np.int64,
    }


def test_preprocessing_without_labels_gives_features_alone(digits: Dataset) -> None:
    workload = Vision.build(WorkloadConfig(), digits.manifest)
    train = digits.columns("train")

    transformed = transform(workload, train, {"image": digits.columns("eval")["image"][:2]})

    assert {name: value.shape for name, value in transformed.items()} == {"image": (2, 8, 8, 1)}


def test_two_workers_normalise_by_the_global_batch(
    run_workers: Callable[[str, int], list[str]],
) -> None:
    workload = CASES["batch norm"]
    images, initial = images_for(workload, 4), workload.initial_weights(0)
    weights = {name: value.astype(np.float64) for name, value in initial.items()}

    printed = run_workers(PROGRAM, 2)

    logits = reference(workload, weights, images, training=True)
    for rank, text in enumerate(printed):
        found = json.loads(text.splitlines()[-1])
        np.testing.assert_allclose(found["logits"], logits[2 * rank : 2 * rank + 2], rtol=1e-10)
        for name, value in weights.items():
            np.testing.assert_allclose(found["weights"][name], value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_the_flops_are_what_torch_counts(case: str) -> None:
    workload = CASES[case]
    model = build_model(workload, 0).eval()

    with FlopCounterMode(display=False) as counter:
        forward(model, images_for(workload, 2), False)

    assert counter.get_total_flops() == 2 * workload.forward_flops_per_example()


def test_a_compiled_program_for_serving_takes_any_batch() -> None:
    workload = CASES["large images"]
    model, images = build_model(workload, 0).eval(), images_for(workload, 3)
    example = {"image": torch.from_numpy(images[:2])}
    batch = {"image": {0: torch.export.Dim("batch")}}

    program = torch.export.export(model, (example,), dynamic_shapes=(batch,)).module()

    with torch.no_grad():
        served = program({"image": torch.from_numpy(images)}).numpy()
    np.testing.assert_allclose(served, forward(model, images, False), rtol=1e-5, atol=1e-6)


def test_half_precision_gives_logits_of_its_own_type() -> None:
    workload = CASES["group norm"]
    model, images = build_model(workload, 0), images_for(workload, 2)

    with torch.autocast("cpu", torch.bfloat16):
        logits = model({"image": torch.from_numpy(images)})

    assert logits.dtype == torch.bfloat16
    whole = forward(model, images, True)
    np.testing.assert_allclose(logits.detach().float().numpy(), whole, atol=0.05 * abs(whole).max())
