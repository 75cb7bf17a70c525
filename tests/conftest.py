"""Fixtures for every package's tests, in both environments: nothing here imports a framework."""

import logging
import os
import signal
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.config import Config, load_config
from pipelines.environments import PROJECT_ROOT, find_python
from pipelines.errors import InputError
from pipelines.ingest import Dataset, ingest
from pipelines.ledger.warned import Watch
from pipelines.schedule import learning_rates
from pipelines.strategies import FRAMEWORKS
from pipelines.workloads import Vision

QUICKSTART = PROJECT_ROOT / "configs" / "quickstart.yaml"
SMALL = ("training.steps=12", "training.warmup_steps=2", "training.batch_size_per_worker=16")
FROM_THE_LAUNCHER = (
    "RANK",
    "WORLD_SIZE",
    "TF_CONFIG",
    "MLFLOW_RUN_ID",
    "MLFLOW_TRACKING_URI",
    "TANDEM_DEBUG",
)


def pytest_configure(config: pytest.Config) -> None:
    """A job in the background ignores Ctrl-C, and so would every command that a test stops."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.getLogger("tensorflow").addHandler(_DeprecationsAsWarnings())
    if not hasattr(config, "workerinput"):  # workers of xdist hand all they see to its controller
        config.pluginmanager.register(_DeprecationWatch(), "deprecation-watch")


class _DeprecationsAsWarnings(logging.Handler):
    """TensorFlow logs what is deprecated where others warn; so that both are counted alike."""

    def emit(self, record: logging.LogRecord) -> None:
        if "deprecated" in record.getMessage():
            warnings.warn_explicit(
                record.getMessage(), DeprecationWarning, record.pathname, record.lineno
            )


class _DeprecationWatch:
    """What the session's tests warn of, for the maintenance ledger."""

    def __init__(self) -> None:
        self._watch = Watch()

    def pytest_warning_recorded(
        self, warning_message: warnings.WarningMessage, nodeid: str
    ) -> None:
        self._watch.warned(
            warning_message.category,
            str(warning_message.message),
            warning_message.filename,
            nodeid,
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._watch.ran(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        asked = session.config.option
        if not (asked.keyword or asked.maxfail or any("::" in each for each in asked.file_or_dir)):
            self._watch.keep()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine lacks the means for, with the reason."""
    for marker, find_obstacle in {
        "both_frameworks": _missing_framework,
        "network_namespaces": _namespace_obstacle,
    }.items():
        needy = [item for item in items if item.get_closest_marker(marker)]
        reason = find_obstacle() if needy else ""
        for item in needy if reason else ():
            item.add_marker(pytest.mark.skip(reason=reason))


def _missing_framework() -> str:
    try:
        for framework in FRAMEWORKS:
            find_python(framework)
    except InputError as error:
        return str(error)
    return ""


def _namespace_obstacle() -> str:
    """What keeps this user from making namespaces, bridges and shaped links, if anything."""
    name = f"probe{os.getpid()}"
    make = (
        f"ip netns add {name} && ip link add {name} type bridge && "
        f"tc qdisc add dev {name} root tbf rate 1mbit burst 256kb latency 200ms"
    )
    made = subprocess.run(["sh", "-c", make], capture_output=True, text=True, check=False)
    undo = f"ip link del {name}; ip netns del {name}"
    subprocess.run(["sh", "-c", undo], capture_output=True, check=False)
    return "" if made.returncode == 0 else f"no network namespaces here: {made.stderr.strip()}"


@pytest.fixture(autouse=True)
def no_launcher_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see the same environment on a laptop and inside somebody's training pod."""
    for variable in FROM_THE_LAUNCHER:
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def load_quickstart(tmp_path: Path) -> Callable[..., Config]:
    """The shipped quickstart, shrunk, with everything it writes under ``tmp_path``."""

    def load(*overrides: str) -> Config:
        return load_config(QUICKSTART, [f"output={tmp_path / 'out'}", *SMALL, *overrides])

    return load


@pytest.fixture
def quickstart(load_quickstart: Callable[..., Config]) -> Config:
    return load_quickstart()


@pytest.fixture
def digits(quickstart: Config) -> Dataset:
    """The quickstart's dataset, ingested."""
    return ingest(quickstart)[0]


@pytest.fixture(scope="session")
def reference_logits() -> Callable[[Vision, int, np.ndarray], np.ndarray]:
    """The initial network's logits of images (batch, height, width, channels), in plain NumPy.

    Written from the description in ``pipelines.workloads.vision``, not from either framework.
    """
    from scipy.special import erf

    def gelu(x: np.ndarray) -> np.ndarray:
        return x * (1 + erf(x / np.sqrt(2))) / 2

    def logits(workload: Vision, seed: int, images: np.ndarray) -> np.ndarray:
        weights = {
            name: value.astype(np.float64) for name, value in workload.initial_weights(seed).items()
        }

        def convolution(x: np.ndarray, name: str, stride: int = 1) -> np.ndarray:
            kernel = weights[f"{name}/kernel"]
            size = kernel.shape[0]
            padded = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
            strided = windows[:, ::stride, ::stride]  # batch, row, column, input, height, width
            return np.einsum("brcihw,hwio->brco", strided, kernel) + weights[f"{name}/bias"]

        x = convolution(images.astype(np.float64), "stem")
        for block in workload.blocks():
            y = convolution(gelu(x), f"{block.name}_conv1", block.stride)
            y = convolution(gelu(y), f"{block.name}_conv2")
            shortcut = x
            if block.projects:
                shortcut = convolution(x, f"{block.name}_shortcut", block.stride)
            x = shortcut + y
        return gelu(x).mean(axis=(1, 2)) @ weights["head/kernel"] + weights["head/bias"]

    return logits


@pytest.fixture(scope="session")
def reference_losses() -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Each example's cross-entropy in nats, from logits (batch, classes) and labels (batch,)."""
    from scipy.special import logsumexp

    def losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]

    return losses


@pytest.fixture(scope="session")
def reference_updates() -> Callable[..., np.ndarray]:
    """A parameter after the published update rules, in float64, given a gradient per step."""

    def updated(config: Config, weight: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
        asked = config.training.optimizer
        mean, square = np.zeros_like(weight), np.zeros_like(weight)
        for step, (rate, gradient) in enumerate(
            zip(learning_rates(config.training), gradients, strict=False), start=1
        ):
            if asked.name in ("sgd", "momentum"):
                mean = (asked.momentum if asked.name == "momentum" else 0) * mean + gradient
                weight = weight - rate * mean
                continue
            if asked.name == "adamw" and weight.ndim > 1:
                weight = weight * (1 - rate * asked.weight_decay)
            mean = asked.beta1 * mean + (1 - asked.beta1) * gradient
            square = asked.beta2 * square + (1 - asked.beta2) * gradient**2
            corrected = square / (1 - asked.beta2**step)
            change = mean / (1 - asked.beta1**step) / (np.sqrt(corrected) + asked.epsilon)
            weight = weight - rate * change
        return weight

    return updated
