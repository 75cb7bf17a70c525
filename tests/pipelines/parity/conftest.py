"""Made-up traces, healthy and not."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.parity.trace import Trace
from pipelines.parity.verdict import Floor, measure_floor

STEPS = 40


@pytest.fixture
def make_trace() -> Callable[..., Trace]:
    def make(noise: float = 0.0, seed: int = 0, steps: int = STEPS, **changes: object) -> Trace:
        """A falling loss and what goes with it, every value moved by up to ``noise`` of it."""
        generator = np.random.default_rng(seed)

        def moved(values: np.ndarray) -> np.ndarray:
            return values * (1 + noise * generator.uniform(-1, 1, values.shape))

        step = np.arange(steps, dtype=np.float64)
        trace = Trace(
            series={
                "loss": moved(2.3 * np.exp(-step / 50)),
                "gradient_norm": moved(1.5 + np.cos(step)),
                "weight_norm": moved(10 + step / 100),
            },
            weights={
                "head/kernel": moved(np.linspace(-1, 1, 20).reshape(4, 5)).astype(np.float32),
                "norm/mean": moved(np.ones(3)).astype(np.float32),
            },
            metrics={"eval_loss": float(moved(np.array(0.4))), "eval_accuracy": 0.9},
        )
        return Trace(**{**trace.__dict__, **changes})

    return make


@pytest.fixture
def floor(make_trace: Callable[..., Trace]) -> Floor:
    """Of a framework whose noise is 1e-7 from the first step to the last."""
    return measure_floor(make_trace(), [make_trace(noise=1e-7, seed=seed) for seed in (1, 2, 3)])


WORKER = """
import json, os, sys
from pathlib import Path

import numpy as np
import yaml

arguments = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
config = yaml.safe_load(Path(arguments["--config"]).read_text())
probe = json.loads(Path(arguments["--probe"]).read_text())
framework = __package__.removesuffix("_pipeline")
rank = int(os.environ["RANK"]) if framework == "torch" else (
    json.loads(os.environ["TF_CONFIG"])["task"]["index"])
steps = config["training"]["steps"]
loss = 2.3 * np.exp(-np.arange(steps) / 50)
if probe["perturbation"] is not None or probe["permutation"] is not None:
    loss = loss * (1 + 1e-7)
{change}
print("::tandem " + json.dumps(dict(event="step", step=steps, steps=steps)), flush=True)
if rank == 0:
    np.savez(
        Path(arguments["--output"]) / "trace.npz", loss=loss, gradient_norm=loss, weight_norm=loss,
        **{{"weights/a/kernel": np.ones(3), "metric/eval_loss": 0.5, "metric/eval_accuracy": 0.9}},
    )
"""


@pytest.fixture
def frameworks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Both frameworks' packages, in ``tmp_path``: they train nothing but leave a trace.

    What is given for a framework runs before its trace is written.
    """

    def write(**changes: str) -> None:
        monkeypatch.chdir(tmp_path)
        for framework in ("tf", "torch"):
            monkeypatch.setenv(f"TANDEM_{framework.upper()}_PYTHON", sys.executable)
            package = tmp_path / f"{framework}_pipeline"
            package.mkdir(exist_ok=True)
            (package / "__init__.py").touch()
            program = WORKER.format(change=changes.get(framework, ""))
            (package / "__main__.py").write_text(program)
            said = {"framework_version": f"{framework} 1.0", "software_build": "cpu"}
            (package / "strategy.py").write_text(f"def describe_software():\n    return {said}\n")

    write()
    return write
