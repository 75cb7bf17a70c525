import io

import numpy as np
import pytest
import torch
from scipy.special import erf, log_softmax
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipelines.workloads.text import Text
from torch_pipeline.loss import mean_loss
from torch_pipeline.model import build_model, weights_of
from torch_pipeline.workloads.text import fit, preprocess

SMALL = Text("tiny", layers=2, width=24, heads=3, vocabulary=11, sequence_length=6)
SEED = 5

Arrays = dict[str, np.ndarray]

NOISE = np.random.default_rng(2)
WEIGHTS: Arrays = {
    name: value + NOISE.normal(0, 0.3, value.shape).astype(np.float32)
    for name, value in SMALL.initial_weights(SEED).items()
}
"""Away from where every bias is zero and every token gets much the same logits."""


def examples(count: int) -> tuple[Arrays, np.ndarray]:
    tokens = np.random.default_rng(1).integers(0, 11, (count, 7))
    return SMALL.prepare({"tokens": tokens}, {})


def reference_logits(weights: Arrays, tokens: np.ndarray) -> np.ndarray:
    """In plain NumPy and float64, from the description in ``pipelines.workloads.text``."""
    weights = {name: value.astype(np.float64) for name, value in weights.items()}

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
        return scaled * weights[f"{name}/scale"] + weights[f"{name}/bias"]

    def attention(x: np.ndarray) -> np.ndarray:
        mixed = np.zeros((*x.shape[:2], SMALL.width))
        wide = SMALL.width // SMALL.heads
        for head in range(SMALL.heads):
            starts = (part * SMALL.width + head * wide for part in range(3))
            query, key, value = (x[..., start : start + wide] for start in starts)
            for place in range(x.shape[1]):
                seen = slice(place + 1)
                scores = np.einsum("bh,bth->bt", query[:, place], key[:, seen]) / np.sqrt(wide)
                shares = np.exp(log_softmax(scores, axis=-1))
                mixed[:, place, head * wide : (head + 1) * wide] = np.einsum(
                    "bt,bth->bh", shares, value[:, seen]
                )
        return mixed

    def gelu(x: np.ndarray) -> np.ndarray:
        return x * (1 + erf(x / np.sqrt(2))) / 2

    x = weights["token_embedding/embedding"][tokens] + weights["position_embedding/embedding"]
    for block in ("block1", "block2"):
        y = dense(norm(x, f"{block}_attention_norm"), f"{block}_attention_in")
        x = x + dense(attention(y), f"{block}_attention_out")
        y = dense(norm(x, f"{block}_mlp_norm"), f"{block}_mlp_in")
        x = x + dense(gelu(y), f"{block}_mlp_out")
    return norm(x, "final_norm") @ weights["token_embedding/embedding"].T


def reference_loss(weights: Arrays, tokens: np.ndarray, target: np.ndarray) -> float:
    logs = log_softmax(reference_logits(weights, tokens), axis=-1)
    return float(-np.take_along_axis(logs, target[..., None], axis=-1).mean())


def network(monkeypatch: pytest.MonkeyPatch, precision: str = "float32") -> nn.Module:
    monkeypatch.setattr(Text, "initial_weights", lambda self, seed: dict(WEIGHTS))
    model = build_model(SMALL, SEED)
    return model.double() if precision == "float64" else model


def apply(model: nn.Module, tokens: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return model({"tokens": torch.from_numpy(tokens)}).numpy()


def gradients(model: nn.Module, tokens: np.ndarray, target: np.ndarray) -> Arrays:
    """Of the mean loss, by the parameters' names and in the workload's layouts."""
    loss = mean_loss(SMALL, model({"tokens": torch.from_numpy(tokens)}), torch.from_numpy(target))
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.grad)
    return weights_of(model)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 2e-5), ("float64", 1e-12)])
def test_the_network_computes_the_reference_logits(
    monkeypatch: pytest.MonkeyPatch, precision: str, tolerance: float
) -> None:
    features, _ = examples(3)

    logits = apply(network(monkeypatch, precision), features["tokens"])

    assert (logits.shape, logits.dtype) == ((3, 6, 11), precision)
    expected = reference_logits(WEIGHTS, features["tokens"])
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(logits, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("float64", 1e-7)])
def test_the_gradient_is_the_slope_of_the_reference_loss(
    monkeypatch: pytest.MonkeyPatch, precision: str, tolerance: float
) -> None:
    features, target = examples(3)
    weights = {name: value.astype(np.float64) for name, value in WEIGHTS.items()}

    found = gradients(network(monkeypatch, precision), features["tokens"], target)

    assert found.keys() == weights.keys()
    dice = np.random.default_rng(3)
    for name, gradient in found.items():
        assert gradient.shape == weights[name].shape
        assert np.isfinite(gradient).all()
        direction = dice.standard_normal(gradient.shape)
        ahead, behind = (
            reference_loss(
                {**weights, name: weights[name] + step * direction}, features["tokens"], target
            )
            for step in (1e-5, -1e-5)
        )
        slope = (ahead - behind) / 2e-5
        assert (gradient * direction).sum() == pytest.approx(slope, rel=tolerance, abs=tolerance)


def test_a_token_is_predicted_from_those_before_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = examples(2)[0]["tokens"]
    other = tokens.copy()
    other[:, 3] = (other[:, 3] + 1) % 11
    model = network(monkeypatch)

    difference = np.abs(apply(model, tokens) - apply(model, other)).max(axis=(0, 2))

    assert (difference[:3] == 0).all()
    assert (difference[3:] > 1e-3).all()


def test_weights_survive_the_way_into_the_network_and_out() -> None:
    expected = SMALL.initial_weights(SEED)

    found = weights_of(build_model(SMALL, SEED))

    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_in_mixed_precision_logits_and_gradients_keep_the_parameters_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features, target = examples(3)
    model = network(monkeypatch)

    with torch.autocast("cpu", torch.bfloat16):
        logits = apply(model, features["tokens"])
        found = gradients(model, features["tokens"], target)

    assert logits.dtype == np.float32
    expected = reference_logits(WEIGHTS, features["tokens"])
    assert 1e-3 < np.abs(logits - expected).max() / np.abs(expected).max() < 3e-2
    assert {gradient.dtype for gradient in found.values()} == {np.dtype("float32")}
    assert all(np.isfinite(gradient).all() for gradient in found.values())


def test_the_exported_network_takes_any_number_of_examples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = network(monkeypatch)
    features = {"tokens": torch.from_numpy(examples(2)[0]["tokens"])}
    shapes = {"features": {"tokens": {0: torch.export.Dim("batch")}}}
    buffer = io.BytesIO()

    torch.export.save(torch.export.export(model, (features,), dynamic_shapes=shapes), buffer)
    buffer.seek(0)
    exported = torch.export.load(buffer).module()

    for count in (1, 5):
        tokens = examples(count)[0]["tokens"]
        np.testing.assert_allclose(apply(exported, tokens), apply(model, tokens), atol=1e-5)


def test_preprocess_gives_what_prepare_gives() -> None:
    tokens = np.random.default_rng(1).integers(0, 11, (4, 7))
    inputs = {"tokens": torch.from_numpy(tokens)}
    config = SMALL.transform_config()

    fitted = fit(inputs, config)
    found = preprocess(inputs, config, fitted)

    features, target = SMALL.prepare({"tokens": tokens}, {})
    assert fitted == {}
    assert list(found) == ["tokens", "target"]
    np.testing.assert_array_equal(found["tokens"].numpy(), features["tokens"])
    np.testing.assert_array_equal(found["target"].numpy(), target)


def test_pytorch_counts_the_stated_flops() -> None:
    text = Text("tiny", layers=3, width=32, heads=4, vocabulary=50, sequence_length=16)
    model = build_model(text, SEED)

    # The fused kernel for CPUs is not among those it knows.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model({"tokens": torch.zeros((2, 16), dtype=torch.int64)})

    assert counter.get_total_flops() == 2 * text.forward_flops_per_example()
