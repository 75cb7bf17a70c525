from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import tracking
from pipelines.compare import Report, appraise, build_report, log_costs, log_summaries
from pipelines.config import Config
from pipelines.prices import Prices


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for the module, since making one takes a second; every test has its study."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def config(uri: str, tmp_path: Path, load_quickstart: Callable[..., Config]) -> Config:
    made = load_quickstart(f"name={tmp_path.name}", f"tracking.uri={uri}")
    tracking.prepare_store(made)
    return made


@pytest.fixture
def reported(
    full_study: Any, config: Config, prices: Prices, add_overhead: Callable[..., Report]
) -> Callable[[float], Report]:
    """The study at a price of its machine's hour."""

    def report(machine_hour: float) -> Report:
        compute = prices.compute.model_copy(update={"machine_hour": machine_hour})
        mine = prices.model_copy(update={"compute": compute})
        told = add_overhead(build_report(full_study.runs))
        return appraise(told, full_study.runs, config, mine)

    return report


def test_each_framework_has_a_run_with_its_known_costs(
    config: Config, reported: Callable[[float], Report], prices: Prices
) -> None:
    added = log_costs(config, reported(1.0), [])

    tf, torch = runs = tracking.read_runs(config)
    assert [run.run_id for run in runs] == added
    assert [run.name for run in runs] == ["tf cost", "torch cost"]
    assert {(run.kind, run.status) for run in runs} == {("summary", "FINISHED")}
    assert tf.params["prices_as_of"] == prices.as_of.isoformat()
    assert (tf.params["prices_currency"], tf.params["prices_example"]) == ("USD", "True")
    assert (torch.params["strategy"], torch.params["workers"]) == ("ddp", "2")
    # No DAG was timed and no ledger tracked, so a model has no sum.
    assert tf.metrics == pytest.approx(
        {
            "cost_per_run": 0.01,
            "cost_per_million_examples": 0.01 / 0.0256,
            "cost_compute": 0.0075,
            "cost_lost_goodput": 0.0025,
        }
    )


def test_the_same_costs_twice_add_nothing(
    config: Config, reported: Callable[[float], Report]
) -> None:
    first = log_costs(config, reported(1.0), [])

    assert log_costs(config, reported(1.0), tracking.read_runs(config)) == []
    assert {run.run_id for run in tracking.read_runs(config)} == set(first)


def test_other_prices_replace_them(config: Config, reported: Callable[[float], Report]) -> None:
    log_costs(config, reported(1.0), [])

    added = log_costs(config, reported(2.0), tracking.read_runs(config))

    assert {run.run_id for run in tracking.read_runs(config)} == set(added)
    assert [run.metrics["cost_per_run"] for run in tracking.read_runs(config)] == pytest.approx(
        [0.02, 0.02]
    )


def test_costs_and_curves_leave_each_other_alone(
    config: Config, reported: Callable[[float], Report]
) -> None:
    report = reported(1.0)
    curves = log_summaries(config, report, [])
    costs = log_costs(config, report, tracking.read_runs(config))

    records = tracking.read_runs(config)
    assert log_summaries(config, report, records) == []
    assert log_costs(config, report, records) == []
    assert {run.run_id for run in tracking.read_runs(config)} == {*curves, *costs}
