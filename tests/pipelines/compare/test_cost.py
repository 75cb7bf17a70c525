from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pipelines.compare.cost import Cost, cost_of
from pipelines.compare.maintenance import Maintenance
from pipelines.compare.overhead_model import Overhead
from pipelines.hardware import Machine
from pipelines.prices import Prices

MACHINE = Machine(cores=2, memory_gib=20, accelerators={})  # 2 x 0.05 + 20 x 0.005 = 0.20 an hour
LEDGER = Maintenance(
    direct_dependencies=3, code_lines=1500, cyclomatic_complexity=340, mlflow_run_id="e" * 32
)
THRESHOLDS = {"eval_accuracy": 0.95}
RUNS = ("a" * 32, "b" * 32, "c" * 32)


def evaluations(*accuracies: float) -> list[dict[str, float]]:
    return [{"eval_accuracy": accuracy} for accuracy in accuracies]


@pytest.fixture
def cost(
    prices: Prices, make_overhead: Callable[..., Overhead], dag: Callable[..., Any]
) -> Callable[..., Cost]:
    """36 s of wall clock of which 27 s count, 25,600 examples, two of three runs converged."""

    def computed(
        overhead: dict[str, Any] | None = None,
        ledger: Maintenance | None = LEDGER,
        evaluated: Sequence[dict[str, float]] = evaluations(0.96, 0.94, 0.97),
        thresholds: dict[str, float] | None = THRESHOLDS,
        examples: int | None = 25_600,
        machine: Machine = MACHINE,
    ) -> Cost:
        told = make_overhead("torch", RUNS, **{"pipeline": dag()} | (overhead or {}))
        return cost_of(told, ledger, evaluated, thresholds, examples, machine, 1, prices)

    return computed


def test_a_run_costs_its_wall_clock_whether_it_counts_or_is_lost(cost: Callable[..., Cost]) -> None:
    run = cost().per_run

    assert cost().price_per_hour == pytest.approx(0.2)
    assert run.total.amount == run.training.amount == pytest.approx(0.002)  # 36 s at 0.20
    assert run.compute.amount == pytest.approx(0.0015)  # 27 s
    assert run.lost_goodput.amount == pytest.approx(0.0005)  # 9 s
    assert run.pipeline_overhead is None
    assert run.maintenance is None


def test_a_million_examples_are_as_many_runs_as_it_takes(cost: Callable[..., Cost]) -> None:
    examples = cost().per_million_examples

    assert examples.total.amount == pytest.approx(0.002 / 0.0256)
    assert examples.compute.amount == pytest.approx(0.0015 / 0.0256)
    assert examples.lost_goodput.amount == pytest.approx(0.0005 / 0.0256)
    assert examples.total.inputs == pytest.approx(
        {"wall_seconds": 36.0, "examples_per_run": 25_600, "price_per_hour": 0.2}
    )


def test_a_model_pays_for_the_runs_that_did_not_converge_its_dag_and_its_upkeep(
    cost: Callable[..., Cost],
) -> None:
    model = cost().per_model

    assert (cost().runs, cost().runs_that_met) == (3, 2)
    assert model.training.amount == pytest.approx(0.003)  # 0.002 / (2 / 3)
    assert model.compute.amount == pytest.approx(0.00225)
    assert model.lost_goodput.amount == pytest.approx(0.00075)
    assert model.pipeline_overhead is not None
    assert model.pipeline_overhead.amount == pytest.approx(0.001)  # 18 s at 0.20
    assert model.maintenance is not None
    assert model.maintenance.amount == pytest.approx(41.0)  # 12 + 12 + 17 h at 100, 100 models
    assert model.total.amount == pytest.approx(41.004)


def test_every_figure_has_its_inputs_and_the_runs_they_were_measured_in(
    cost: Callable[..., Cost],
) -> None:
    model = cost().per_model

    assert model.compute.inputs == pytest.approx(
        {"goodput_seconds": 27.0, "runs": 3, "runs_that_met": 2, "price_per_hour": 0.2}
    )
    assert model.lost_goodput.inputs["lost_seconds"] == 9.0
    assert model.training.mlflow_run_ids == list(RUNS)
    assert model.pipeline_overhead is not None
    assert model.pipeline_overhead.inputs["pipeline_overhead_seconds"] == 18.0
    assert model.pipeline_overhead.mlflow_run_ids == ["d" * 32]
    assert model.maintenance is not None
    assert model.maintenance.mlflow_run_ids == ["e" * 32]
    assert model.total.mlflow_run_ids == [*RUNS, "d" * 32, "e" * 32]


def test_without_a_run_that_converged_no_model_has_a_cost_and_the_reason_is_told(
    cost: Callable[..., Cost],
) -> None:
    found = cost(evaluated=evaluations(0.5, 0.6, 0.7))

    assert found.per_model.training.amount is None
    assert found.per_model.compute.amount is None
    assert found.per_model.total.amount is None
    assert found.per_model.total.reason == "training: none of 3 runs met eval_accuracy 0.95"
    assert found.per_run.total.amount == pytest.approx(0.002)


@pytest.mark.parametrize(
    "unknown",
    [{"thresholds": None}, {"evaluated": [{"eval_accuracy": 0.96}, {}, {}]}, {"evaluated": []}],
)
def test_whether_runs_converged_may_not_be_known(
    cost: Callable[..., Cost], unknown: dict[str, Any]
) -> None:
    found = cost(**unknown)

    assert found.per_model.training.amount is None
    assert "the runs met the workload's thresholds" in found.per_model.training.reason


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [
        ({"overhead": {"pipeline": None}}, "pipeline overhead: not measured"),
        ({"ledger": None}, "maintenance: no ledger is tracked"),
        ({"ledger": Maintenance(mlflow_run_id="e" * 32)}, "maintenance: the ledger has no rows"),
    ],
)
def test_a_part_that_is_missing_leaves_no_sum_but_the_others_stand(
    cost: Callable[..., Cost], lacking: dict[str, Any], reason: str
) -> None:
    model = cost(**lacking).per_model

    assert model.total.amount is None
    assert model.total.reason == reason
    assert model.training.amount == pytest.approx(0.003)


def test_without_a_goodput_ledger_a_run_still_has_its_cost(cost: Callable[..., Cost]) -> None:
    run = cost({"goodput": {}}).per_run

    assert run.total.amount == pytest.approx(0.002)
    assert (run.compute.amount, run.compute.reason) == (None, "not measured")
    assert run.lost_goodput.amount is None


def test_a_machine_without_a_price_costs_nothing_known(cost: Callable[..., Cost]) -> None:
    found = cost(machine=Machine(2, 20, {"NVIDIA B200": 8}))

    assert found.price_per_hour is None
    assert found.per_run.total.amount is None
    assert found.per_run.total.reason == "compute.accelerator_hour has no price of NVIDIA B200"
    assert found.per_model.pipeline_overhead is not None
    assert found.per_model.pipeline_overhead.amount is None


def test_without_the_number_of_examples_a_million_of_them_has_no_cost(
    cost: Callable[..., Cost],
) -> None:
    examples = cost(examples=None).per_million_examples

    assert examples.total.amount is None
    assert examples.total.reason == "how many examples a run trains on is not known"


def test_prices_are_told_with_their_date_and_that_they_are_examples(
    cost: Callable[..., Cost], prices: Prices
) -> None:
    found = cost()

    assert (found.as_of, found.currency, found.example) == (prices.as_of, "USD", True)
