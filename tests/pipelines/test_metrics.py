import pytest

from pipelines.dag import STAGES
from pipelines.metrics import METRICS, PHASES, reduce_over_workers


def test_every_metric_is_filed_under_its_own_name() -> None:
    assert [metric.name for metric in METRICS.values()] == list(METRICS)


def test_every_metric_says_what_it_means_and_in_which_unit() -> None:
    for metric in METRICS.values():
        assert metric.unit, metric.name
        assert metric.meaning.strip() == metric.meaning != "", metric.name


def test_a_name_that_ends_in_a_unit_is_measured_in_it() -> None:
    units = {"_seconds": "s", "_bytes": "B", "_per_second": "1/s"}
    for suffix, unit in units.items():
        named = [metric for name, metric in METRICS.items() if name.endswith(suffix)]
        assert named
        assert {metric.unit for metric in named} == {unit}


def test_phases_stand_in_the_order_of_a_workers_life() -> None:
    assert PHASES == (
        "start_seconds",
        "import_seconds",
        "tracking_seconds",
        "rendezvous_seconds",
        "build_seconds",
        "restore_seconds",
        "first_step_seconds",
        "warmup_seconds",
        "train_seconds",
        "checkpoint_seconds",
        "evaluate_seconds",
        "report_seconds",
        "exit_seconds",
    )


def test_every_stage_of_the_dags_has_a_metric() -> None:
    assert {f"{stage}_stage_seconds" for stage in STAGES} <= set(METRICS)


def test_each_metric_is_reduced_over_the_workers_in_its_own_way() -> None:
    workers = [
        {"train_loss": 0.5, "cpu_seconds": 1.5, "data_wait_seconds": 2.0, "train_seconds": 9.0},
        {"train_loss": 0.7, "cpu_seconds": 2.0, "data_wait_seconds": 5.0, "train_seconds": 8.0},
        {"train_loss": 0.9, "cpu_seconds": 4.0, "data_wait_seconds": 3.0, "train_seconds": 7.0},
    ]

    assert reduce_over_workers(workers) == {
        "train_loss": 0.5,
        "cpu_seconds": 7.5,
        "data_wait_seconds": 5.0,
        "train_seconds": 9.0,
    }


def test_one_workers_values_are_the_runs() -> None:
    values = {name: float(number) for number, name in enumerate(METRICS)}

    assert reduce_over_workers([values]) == values


def test_reduced_metrics_stand_in_the_tables_order() -> None:
    assert list(reduce_over_workers([{"cpu_seconds": 1.0, "train_loss": 2.0}])) == [
        "train_loss",
        "cpu_seconds",
    ]


def test_names_that_the_table_does_not_know_are_refused() -> None:
    values = {"train_loss": 1.0, "zeal": 1.0, "luck": 1.0}

    with pytest.raises(KeyError, match="not in the metrics table: luck, zeal"):
        reduce_over_workers([values])


def test_a_worker_that_lacks_a_metric_is_not_passed_over() -> None:
    with pytest.raises(KeyError, match="cpu_seconds"):
        reduce_over_workers([{"cpu_seconds": 1.0}, {}])
