"""What a report says of cells that were taken apart, and of worker counts beyond them."""

import json

import pytest

from pipelines.compare import build_report, write_report
from pipelines.runs import ALL_REDUCE_TAG, KIND_TAG


def take_apart(study, framework, workers, **seconds):
    """An anatomy of the cell, whose lone step takes 4 ms, and computation 3 of them."""
    cell = study.cell(framework, workers)
    all_reduce = {} if workers == 1 else {ALL_REDUCE_TAG: json.dumps({"1024": 1e-4, "65536": 2e-4})}
    metrics = {
        "lone_step_seconds": 0.004,
        "lone_data_wait_seconds": 0.0005,
        "compute_step_seconds": 0.003,
    }
    return study.change(
        cell,
        params=cell.params | {"parameters": "16384"},
        tags=cell.tags | {KIND_TAG: "anatomy"} | all_reduce,
        metrics=metrics | seconds,
    )


@pytest.fixture
def taken_apart(study):
    for framework in ("tf", "torch"):
        for workers, step in ((1, 0.0045), (2, 0.006)):
            for repeat in range(3):
                cell = study.cell(framework, workers, repeat, 64 * workers / step)
                study.change(
                    cell,
                    params=cell.params | {"parameters": "16384"},
                    metrics=cell.metrics | {"data_wait_seconds": 180 * 0.001, "step_seconds": step},
                )
            take_apart(study, framework, workers)
    return study


def test_a_steps_parts_add_up_to_it(taken_apart):
    report = build_report(taken_apart.runs)
    assert [(s.workers, s.framework) for s in report.splits] == [
        (1, "tf"), (1, "torch"), (2, "tf"), (2, "torch"),
    ]  # fmt: skip
    split = report.splits[-1]
    assert split.compute_seconds == pytest.approx(0.003)
    assert split.host_seconds == pytest.approx(0.0005)
    assert split.input_seconds == pytest.approx(0.001)
    assert split.communication_seconds == pytest.approx(0.006 - 0.001 - 0.0035)
    (finding,) = [each for each in report.findings if each.topic.startswith("Computing")]
    assert finding.headline == "TensorFlow 50 %, PyTorch 50 %"
    assert "25 % communication, 17 % input, 8 % its training loop" in finding.statement


def test_a_step_is_not_told_apart_where_its_parts_took_longer_than_it_did(taken_apart):
    for run in list(taken_apart.runs):
        if run.kind == "anatomy" and run.params["framework"] == "torch":
            slow = {"lone_step_seconds": 0.008, "compute_step_seconds": 0.007}
            taken_apart.change(run, metrics=run.metrics | slow)
    report = build_report(taken_apart.runs)
    assert report.splits[-1].communication_seconds == pytest.approx(0.006 - 0.001 - 0.0075)
    (finding,) = [each for each in report.findings if each.topic.startswith("Computing")]
    assert finding.headline == "TensorFlow 50 %, PyTorch unclear"
    assert "PyTorch's step of 6.0 ms cannot be told apart" in finding.statement


def test_worker_counts_beyond_the_measured_ones_are_predicted(taken_apart, tmp_path):
    report = build_report(taken_apart.runs)
    assert report.prediction is not None
    assert {
        (forecast.framework, *(point.workers for point in forecast.points))
        for forecast in report.prediction.forecasts
    } == {("tf", 4, 8, 16, 64), ("torch", 4, 8, 16, 64)}
    html, *_ = write_report(report, tmp_path)
    page = html.read_text(encoding="utf-8")
    assert "Prediction, not a measurement" in page
    assert "PyTorch ddp, PREDICTED" in page
    assert 'id="chart-splits"' in page


def test_findings_never_mix_the_two_kinds_of_scaling(study):
    for framework, weak, strong in (("tf", 2000.0, 1500.0), ("torch", 3000.0, 1000.0)):
        for workers in (1, 2):
            study.repeats(framework, workers, [weak, weak + 1, weak + 2])
            batch = {"batch_size_per_worker": str(64 // workers), "global_batch_size": "64"}
            rates = [strong, strong + 1, strong + 2]
            study.repeats(framework, workers, rates, scaling="strong", **batch)
    speed, scaling, *_ = build_report(study.runs).findings
    assert speed.headline == "PyTorch 1.50× as fast"
    assert "trained 3,001 examples/s" in speed.statement
    assert scaling.statement.count("kept") == 2


def test_findings_on_strong_scaling_alone_say_so(study):
    for framework in ("tf", "torch"):
        for workers, rate in ((1, 1000.0), (2, 1500.0)):
            batch = {"batch_size_per_worker": str(64 // workers), "global_batch_size": "64"}
            rates = [rate, rate + 1, rate + 2]
            study.repeats(framework, workers, rates, scaling="strong", **batch)
    _, scaling, *_ = build_report(study.runs).findings
    assert scaling.topic == "Strong scaling, 1 to 2 workers"
    assert scaling.statement.startswith("With a fixed global batch, ")


def test_nothing_is_predicted_where_nothing_was_taken_apart(full_study):
    report = build_report(full_study.runs)
    assert report.prediction is None
    assert report.splits == []
    assert report.laws == []


def test_an_anatomy_on_other_hardware_is_refused(taken_apart):
    from pipelines.errors import ComparisonRefusedError

    odd = next(run for run in taken_apart.runs if run.kind == "anatomy")
    taken_apart.change(odd, params=odd.params | {"hardware": "another"})
    with pytest.raises(ComparisonRefusedError, match="hardware differs"):
        build_report(taken_apart.runs)


def test_four_worker_counts_have_a_law(study):
    for framework, contention in (("tf", 0.02), ("torch", 0.1)):
        for workers in (1, 2, 4, 8):
            rate = 1000 * workers / (1 + contention * (workers - 1))
            study.repeats(framework, workers, [rate * 0.99, rate, rate * 1.01])
    laws = {fitted.framework: fitted.law for fitted in build_report(study.runs).laws}
    assert laws["tf"].contention == pytest.approx(0.02, abs=1e-6)
    assert laws["torch"].contention == pytest.approx(0.1, abs=1e-6)


def test_the_finding_on_speed_tells_every_worker_count(full_study):
    (speed,) = [
        each for each in build_report(full_study.runs).findings if "Throughput" in each.topic
    ]
    assert "At 1 worker: PyTorch 1.09× as fast." in speed.statement
