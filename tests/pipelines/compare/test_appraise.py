from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from pipelines.compare import Report, appraise, build_report, print_report
from pipelines.compare.html import render_html
from pipelines.compare.indicators import indicators_of
from pipelines.compare.markdown import render_markdown
from pipelines.compare.overhead_model import Operation, Recovery
from pipelines.compare.scorecard import Indicator
from pipelines.config import Config
from pipelines.prices import Prices

HARDWARE = "AMD EPYC, 2 cores, 20 GiB"  # 0.20 an hour, by the shipped prices

AddOverhead = Callable[..., Report]


@pytest.fixture
def study(full_study: Any) -> Any:
    """The realistic study, with figures for each of its repeats, and a ledger."""
    for run in list(full_study.runs):
        if run.kind == "cell":
            torch, repeat = run.params["framework"] == "torch", int(run.params["repeat"])
            more = {
                "goodput_share": 0.5 + 0.01 * repeat,
                "time_to_first_step_seconds": (8.0 if torch else 12.0) + 0.1 * repeat,
            }
            full_study.change(
                run, params=run.params | {"hardware": HARDWARE}, metrics=run.metrics | more
            )
    full_study.ledger("tf")
    full_study.ledger("torch", total_dependencies=164.0, code_lines=1488.0)
    return full_study


@pytest.fixture
def appraised(
    study: Any, add_overhead: AddOverhead, quickstart: Config, prices: Prices
) -> Callable[..., Report]:
    def appraise_with(config: Config = quickstart, **overhead: Any) -> Report:
        report = add_overhead(build_report(study.runs), **overhead)
        return appraise(report, study.runs, config, prices)

    return appraise_with


def indicators(report: Report) -> dict[str, Indicator]:
    assert report.scorecard is not None
    return {each.name: each for one in report.scorecard.criteria for each in one.indicators}


def test_costs_are_those_of_the_told_cells_by_the_configs_thresholds(
    appraised: Callable[..., Report], load_quickstart: Callable[..., Config], dag: Any
) -> None:
    # The repeats reach 0.964, 0.966 and 0.968.
    strict = load_quickstart("workload.thresholds.eval_accuracy=0.965")

    cost = appraised(strict, pipeline=dag()).cost

    assert list(cost) == ["tf", "torch"]
    tf = cost["tf"]
    assert (tf.runs, tf.runs_that_met, tf.thresholds) == (3, 2, {"eval_accuracy": 0.965})
    assert tf.per_run.total.amount == pytest.approx(0.002)
    assert tf.per_million_examples.total.amount == pytest.approx(0.002 / 0.0256)  # 200 x 128
    assert tf.per_model.training.amount == pytest.approx(0.003)
    # 1 package x 4 h and 205 with it x 0.1 h, 1,488 lines x 8 h per thousand, 339 x 0.05 h; 100 an
    # hour, 100 models
    upkeep = 4 + 20.5 + 1.488 * 8 + 339 * 0.05
    assert tf.per_model.total.amount == pytest.approx(0.003 + 0.001 + upkeep)


def test_what_a_million_examples_cost_is_told_at_the_top(
    appraised: Callable[..., Report], prices: Prices
) -> None:
    told = appraised().findings[-1]

    assert told.topic == "A million examples in USD, example prices"
    assert told.headline == "TensorFlow 0.0781, PyTorch 0.0781"
    assert "at prices of 2026-11-25. Of TensorFlow's, 25 % is lost goodput." in told.statement


def test_without_a_price_for_the_machine_no_cost_is_told(
    appraised: Callable[..., Report], study: Any
) -> None:
    for run in list(study.runs):
        if run.kind == "cell":
            study.change(run, params=run.params | {"hardware": "unheard of"})

    assert not any(each.topic.startswith("A million") for each in appraised().findings)


def test_a_study_of_another_workload_has_no_known_thresholds(
    appraised: Callable[..., Report], load_quickstart: Callable[..., Config]
) -> None:
    other = load_quickstart("workload.name=tabular")

    assert appraised(other).cost["tf"].thresholds == {}


def test_without_prices_there_is_a_scorecard_and_no_cost(
    study: Any, quickstart: Config, add_overhead: AddOverhead
) -> None:
    report = appraise(add_overhead(build_report(study.runs)), study.runs, quickstart, None)

    assert report.cost == {}
    assert report.scorecard is not None


def test_a_report_without_training_runs_has_neither(
    new_study: Callable[[], Any], quickstart: Config, prices: Prices
) -> None:
    study = new_study()
    study.pipeline("tf")

    report = appraise(build_report(study.runs), study.runs, quickstart, prices)

    assert (report.cost, report.scorecard) == ({}, None)


def test_the_report_with_both_round_trips(appraised: Callable[..., Report]) -> None:
    report = appraised()

    assert Report.model_validate_json(report.model_dump_json()) == report


def test_throughput_has_the_reports_verdict_and_its_runs(appraised: Callable[..., Report]) -> None:
    report = appraised()

    speed = indicators(report)["examples/s at 2 workers"]

    assert (speed.tf.value, speed.torch.value) == (3905.5, 4420.1)
    assert speed.ratio == pytest.approx(4420.1 / 3905.5)
    assert (speed.basis, speed.better) == ("repeats", "torch")
    cells = {cell.framework: cell for cell in report.cells if cell.workers == 2}
    assert speed.torch.mlflow_run_ids == cells["torch"].mlflow_run_ids


def test_scaling_efficiency_is_tested_over_the_repeats(appraised: Callable[..., Report]) -> None:
    efficiency = indicators(appraised())["scaling efficiency at 2 workers"]

    assert efficiency.tf.value == pytest.approx(3905.5 / (2 * 2310.4))
    assert efficiency.torch.value == pytest.approx(4420.1 / (2 * 2512.7))
    assert efficiency.better == "no difference"
    assert len(efficiency.tf.mlflow_run_ids) == 6


def test_repeats_of_which_less_is_better_go_to_the_side_with_less(
    appraised: Callable[..., Report],
) -> None:
    found = indicators(appraised())

    first_step = found["time to first step"]
    assert (first_step.tf.value, first_step.torch.value) == pytest.approx((12.1, 8.1))
    assert first_step.better == "torch"
    assert found["goodput, share of the wall clock"].better == "no difference"


def test_counts_go_to_the_smaller_one_and_equal_ones_to_neither(
    appraised: Callable[..., Report],
) -> None:
    report = appraised()
    found = indicators(report)

    packages = found["packages that come with it"]
    assert (packages.tf.value, packages.torch.value, packages.better) == (205, 164, "torch")
    assert packages.ratio == pytest.approx(0.8)
    assert packages.torch.mlflow_run_ids == [report.maintenance["torch"].mlflow_run_id]
    assert found["lines of the twin"].better == "no difference"


def test_what_was_measured_once_calls_no_side(appraised: Callable[..., Report], dag: Any) -> None:
    report = appraised(pipeline=dag())
    slower = report.overhead["tf"].model_copy(update={"pipeline": dag(seconds=90.0)})

    found = indicators(appraised(pipeline=dag()))
    assert found["whole DAG, nothing cached"].better == "no difference"
    assert found["start-up of a DAG's component, mean"].tf.value == 6.0  # (8 + 4) / 2

    changed = report.model_copy(update={"overhead": report.overhead | {"tf": slower}})
    (whole, *_) = indicators_of(changed, [])["time_to_deploy"]
    assert (whole.tf.value, whole.torch.value) == (90.0, 58.0)
    assert (whole.better, whole.remark) == ("not comparable", "measured once")


def test_an_images_size_is_counted_and_its_build_was_timed_once(
    study: Any, add_overhead: AddOverhead, quickstart: Config
) -> None:
    study.ledger("tf", image_bytes=4e9, image_build_seconds=400.0)
    study.ledger("torch", image_bytes=2e9, image_build_seconds=300.0)

    report = appraise(add_overhead(build_report(study.runs)), study.runs, quickstart, None)

    size, build = (
        indicators(report)[name] for name in ("container image", "building the container image")
    )
    assert (size.tf.value, size.torch.value, size.better) == (4e9, 2e9, "torch")
    assert (build.tf.value, build.torch.value) == (400.0, 300.0)
    assert (build.better, build.remark) == ("not comparable", "measured once")


def test_what_an_operator_must_know_is_counted(appraised: Callable[..., Report]) -> None:
    nothing = dict.fromkeys(Operation.model_fields)
    known = Operation(**nothing | {"environment_variables": 11})

    found = indicators(appraised(operation=known))

    assert found["variables that a worker needs"].torch.value == 11
    assert found["lines of manifest"].better == "not measured"


def test_recoveries_from_different_faults_do_not_compare(appraised: Callable[..., Report]) -> None:
    def recovery(fault: str) -> Recovery:
        return Recovery(
            fault=fault,
            notice_seconds=None,
            recovery_seconds=9.0,
            lost_steps=5,
            mlflow_run_id="f" * 32,
        )

    report = appraised(recovery=recovery("kill"))
    same = indicators(report)["steps lost to a fault"]
    assert (same.tf.value, same.better) == (5, "no difference")
    other = report.overhead["tf"].model_copy(update={"recovery": recovery("cut network")})
    changed = report.model_copy(update={"overhead": report.overhead | {"tf": other}})
    lost = indicators_of(changed, [])["production_readiness"][3]
    assert (lost.better, lost.remark) == ("not comparable", "not the same fault")


def test_a_figure_of_one_side_alone_compares_with_nothing(
    study: Any, add_overhead: AddOverhead, quickstart: Config
) -> None:
    ledgers = [run for run in study.runs if run.kind == "ledger"]
    runs = [run for run in study.runs if run not in ledgers[:1]]

    report = appraise(add_overhead(build_report(runs)), runs, quickstart, None)

    lines = indicators(report)["lines of the twin"]
    assert (lines.tf.value, lines.better, lines.remark) == (None, "not comparable", "PyTorch only")


def test_failed_runs_count_for_their_framework(
    study: Any, add_overhead: AddOverhead, quickstart: Config
) -> None:
    failed = study.cell("tf", 2, 3, rate=None, status="FAILED", hardware=HARDWARE)

    report = appraise(add_overhead(build_report(study.runs)), study.runs, quickstart, None)

    failures = indicators(report)["runs that failed"]
    assert (failures.tf.value, failures.torch.value) == (1, 0)
    assert failures.tf.mlflow_run_ids[0] == failed.run_id
    assert (failures.better, failures.remark) == ("not comparable", "measured once")


def test_how_many_strategies_this_project_took_up_speaks_for_no_framework(
    appraised: Callable[..., Report],
) -> None:
    strategies = indicators(appraised())["strategies offered here"]

    assert (strategies.tf.value, strategies.torch.value) == (5, 6)
    assert (strategies.better, strategies.remark) == ("not comparable", "this project's choice")


def test_debugging_is_not_measured(appraised: Callable[..., Report]) -> None:
    card = appraised().scorecard

    assert card is not None
    assert card.criteria[-1].title == "Debugging"
    assert (card.criteria[-1].indicators, card.criteria[-1].better) == ([], "not measured")


def test_weights_come_from_the_configuration(
    appraised: Callable[..., Report], load_quickstart: Callable[..., Config]
) -> None:
    card = appraised(load_quickstart("scorecard.weights.ecosystem=3")).scorecard

    assert card is not None
    assert {each.criterion: each.weight for each in card.criteria}["ecosystem"] == 3


def test_the_page_marks_example_prices_and_links_every_run(
    appraised: Callable[..., Report], prices: Prices, study: Any, quickstart: Config, dag: Any
) -> None:
    report = appraised(pipeline=dag())
    page = render_html(report)
    mine = prices.model_copy(update={"example": False, "currency": "EUR"})
    plain = report.model_copy(update={"findings": []})
    own = render_html(appraise(plain, study.runs, quickstart, mine))

    assert page.count("example prices") > 2 * 10  # each figure of both sides
    assert "example prices" not in own
    assert "Cost, EUR" in own
    assert report.scorecard is not None
    assert report.scorecard.conclusion in page
    for cost in report.cost.values():
        assert all(run_id in page for run_id in cost.per_model.total.mlflow_run_ids)


def test_the_comment_and_the_terminal_have_the_sums(
    appraised: Callable[..., Report], capsys: pytest.CaptureFixture[str]
) -> None:
    report = appraised()
    comment = render_markdown(report)
    print_report(report, Console(width=80))
    terminal = capsys.readouterr().out

    for text in (comment, terminal):
        assert text.count("0.00200 (example prices)") == 4  # a run, and a model's training
    assert "a model, in all, with maintenance as assumed | – | – |" in comment  # no DAG was timed
    assert "Debugging                    not measured" in terminal
