"""Parity finds real faults: each is put into one side, and must fail at the step it acts on.

A fault is a program of this folder that breaks one thing and then is the framework's side. The
healthy other side, and the self-noise, are run once for all that share a configuration.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.config import Config, load_config
from pipelines.environments import PROJECT_ROOT
from pipelines.ingest import ingest
from pipelines.parity.members import Member, run_member
from pipelines.parity.model import Comparison
from pipelines.parity.probe import Probe
from pipelines.parity.trace import Trace
from pipelines.parity.verdict import compare_traces, measure_floor, rule_for
from pipelines.strategies import Framework

OVERRIDES = [
    "training.batch_size_per_worker=16",
    "training.optimizer={name: adamw, learning_rate: 0.003, weight_decay: 0.01}",
    "training.schedule={name: cosine, warmup_steps: 4}",
    "parity.steps=12",
]
NORMALIZED = "workload.vision.normalization=batch"

Run = Callable[..., Trace]
Judge = Callable[..., Comparison]


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.both_frameworks,
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Train one side once for each way in which it is asked for."""
    folder = tmp_path_factory.mktemp("faults")
    done: dict[tuple[object, ...], Trace] = {}

    def configure(*overrides: str) -> Config:
        quickstart = PROJECT_ROOT / "configs" / "quickstart.yaml"
        return load_config(quickstart, [f"output={folder}", *OVERRIDES, *overrides])

    def train(
        framework: Framework,
        *overrides: str,
        workers: int = 1,
        fault: str = "",
        perturbation: int | None = None,
    ) -> Trace:
        key = (framework, overrides, workers, fault, perturbation)
        if key not in done:
            member = Member(framework, workers, Probe(perturbation=perturbation))
            modules = {framework: fault} if fault else {}
            done[key] = run_member(
                configure(*overrides), member, _new(folder), lambda step, steps: None, modules
            )
        return done[key]

    ingest(configure())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(PROJECT_ROOT)
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        yield train


@pytest.fixture(scope="module")
def judge(run: Run) -> Judge:
    """Compare two runs by the rule and the self-noise that `tandem parity` goes by."""

    def compare(left: Trace, right: Trace, *overrides: str) -> Comparison:
        noise = [run("torch", *overrides, perturbation=1)]
        floor = measure_floor(run("torch", *overrides), noise)
        sides = ("left", left), ("right", right)
        return compare_traces("frameworks", *sides, rule_for("float32"), floor, _ONE_PREDICTION)

    return compare


_ONE_PREDICTION = {"eval_accuracy": 1 / 362}


def _new(folder: Path) -> Path:
    return folder / "runs" / str(len(list((folder / "runs").glob("*"))))


@pytest.mark.parametrize("overrides", [(), (NORMALIZED,)], ids=["plain", "normalized"])
def test_healthy_sides_agree(run: Run, judge: Judge, overrides: tuple[str, ...]) -> None:
    found = judge(run("tf", *overrides), run("torch", *overrides), *overrides)

    assert found.divergence is None, found.divergence


def test_healthy_workers_agree_with_one_alone(run: Run, judge: Judge) -> None:
    found = judge(run("torch", workers=2), run("torch"))

    assert found.divergence is None, found.divergence


@pytest.mark.parametrize(
    ("fault", "quantity"),
    [
        # What a fault in the update moves first is the norm of all weights after it.
        ("torch_coupled_decay", "weight_norm"),
        ("torch_no_bias_correction", "weight_norm"),
        ("tf_late_schedule", "weight_norm"),
        ("tf_other_gelu", "loss"),
        ("torch_dropped_example", "loss"),
    ],
)
def test_a_fault_in_one_side_is_named_at_its_first_step(
    run: Run, judge: Judge, fault: str, quantity: str
) -> None:
    broken: Framework = "tf" if fault.startswith("tf_") else "torch"
    other: Framework = "torch" if broken == "tf" else "tf"

    found = judge(run(broken, fault=fault), run(other)).divergence

    assert found is not None
    assert (found.step, found.quantity) == (1, quantity)
    assert found.difference > 2 * found.bound


@pytest.mark.parametrize(
    ("fault", "quantity"),
    [
        # The running statistics, which training itself never reads.
        ("torch_batch_norm_momentum", "weight_norm"),
        # In this batch the changes to the loss happen to cancel, all but 7e-7 of it.
        ("torch_batch_norm_epsilon", "gradient_norm"),
    ],
)
def test_a_fault_in_batch_normalisation_is_named_at_its_first_step(
    run: Run, judge: Judge, fault: str, quantity: str
) -> None:
    found = judge(run("torch", NORMALIZED, fault=fault), run("tf", NORMALIZED), NORMALIZED)

    assert found.divergence is not None
    assert (found.divergence.step, found.divergence.quantity) == (1, quantity)
    assert found.divergence.difference > 2 * found.divergence.bound


def test_a_sum_over_workers_is_named_though_adam_would_hide_it(run: Run, judge: Judge) -> None:
    found = judge(run("torch", workers=2, fault="torch_sum_over_workers"), run("tf")).divergence

    assert found is not None
    assert (found.step, found.quantity) == (1, "gradient_norm")
    assert found.left == pytest.approx(2 * found.right, rel=1e-5)


def test_unscaled_accumulation_is_named_though_adam_would_hide_it(run: Run, judge: Judge) -> None:
    parts = "training.gradient_accumulation=2"
    fault = "torch_unscaled_accumulation"

    # Parts or none, the mean over the batch is the same: the healthy side needs no second run.
    found = judge(run("torch", parts, fault=fault), run("tf")).divergence

    assert found is not None
    assert (found.step, found.quantity) == (1, "gradient_norm")
    assert found.left == pytest.approx(2 * found.right, rel=1e-5)
