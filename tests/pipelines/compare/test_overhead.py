"""What running each side costs, from the runs of a study."""

import pytest

from pipelines.compare import build_report
from pipelines.compare.formats import UNKNOWN
from pipelines.compare.html import render_html
from pipelines.compare.overhead_rows import overhead_lines
from pipelines.runs import COMPONENT_WORK_TAG, SLOWEST_WORKER_TAG


def finding(report, topic):
    (found,) = [each for each in report.findings if each.topic.startswith(topic)]
    return found


def test_the_way_to_the_first_step_is_that_of_the_slowest_worker(full_study):
    side = build_report(full_study.runs).overhead["tf"]
    step = 180 * 64 * 2 / 3905.5 / 180
    assert (side.strategy, side.workers) == ("multi_worker_mirrored", 2)
    assert side.first_step == pytest.approx(
        {
            "start": 0.1,
            "import": 3.8,
            "tracking": 1.6,
            "rendezvous": 1.8,
            "build": 1.1,
            "restore": 0.0,
            "compile": 2.8 - step,
            "step": step,
        }
    )
    assert sum(side.first_step.values()) == pytest.approx(side.time_to_first_step_seconds)


def test_the_ledger_adds_up_to_the_wall_clock(full_study):
    for side in build_report(full_study.runs).overhead.values():
        assert sum(side.goodput.values()) == pytest.approx(side.wall_seconds)
        assert side.goodput_share == pytest.approx(side.goodput["step"] / side.wall_seconds)


def test_resources_are_by_step_and_by_example(full_study):
    used = build_report(full_study.runs).overhead["torch"].resources
    assert used.network_bytes_per_step == 2 * 2**10
    assert used.cpu_seconds_per_million_examples == pytest.approx(20 / (200 * 128 / 1e6))
    assert used.joules_per_million_examples is None


def test_without_the_batchs_size_nothing_is_told_by_example(study):
    study.cell("tf", without=("global_batch_size", "warmup_steps"))
    used = build_report(study.runs).overhead["tf"].resources
    assert used.network_bytes_per_step is None
    assert used.cpu_seconds_per_million_examples is None


def test_a_pipeline_is_told_apart_from_its_cached_rerun(full_study):
    again = full_study.rerun("tf")
    dag = build_report(full_study.runs).overhead["tf"].pipeline
    assert (dag.seconds, dag.work_seconds, dag.overhead_seconds) == pytest.approx((54.1, 45.1, 9))
    assert (dag.cached_stages, dag.cached_rerun_seconds) == (0, 6.5)
    assert dag.mlflow_run_ids[1] == again.run_id
    assert dag.component_work["train-step"] == pytest.approx(12.2)


def test_recovery_comes_from_a_run_of_its_own(full_study):
    run = full_study.recovery("torch", recovery_seconds=8.0)
    report = build_report(full_study.runs)
    assert report.overhead["tf"].recovery is None
    back = report.overhead["torch"].recovery
    assert (back.fault, back.notice_seconds, back.recovery_seconds, back.lost_steps) == (
        *("kill -9 of worker 1", 0.1, 8.0, 7),
    )
    assert back.mlflow_run_id == run.run_id
    told = finding(report, "Back after a fault")
    assert told.headline == "PyTorch 8.10 s"
    assert "PyTorch did 7 steps again" in told.statement


def test_what_an_operator_has_to_know_is_counted(full_study):
    full_study.ledger("tf", config_fields=5.0, manifest_lines=812.0)
    known = build_report(full_study.runs).overhead["tf"].operation
    assert (known.processes, known.listening_ports, known.environment_variables) == (4, 2, 11)
    assert (known.config_fields, known.manifest_lines) == (5, 812)
    assert known.ledger_run_id == full_study.runs[-1].run_id


def test_every_line_leads_to_its_runs_and_says_what_was_not_measured(full_study):
    full_study.recovery("tf")
    lines = overhead_lines(build_report(full_study.runs).overhead)
    by_label = {line.label: line for line in lines}
    assert by_label["steps done again"].values == {"tf": "7", "torch": UNKNOWN}
    assert by_label["steps done again"].run_ids["torch"] == []
    for line in lines:
        for framework, value in line.values.items():
            assert bool(line.run_ids[framework]) == (value != UNKNOWN), line
    assert "energy per million examples" not in by_label  # of neither


def test_runs_of_before_there_was_a_ledger_are_still_compared(full_study):
    for run in [each for each in full_study.runs if each.kind in ("cell", "pipeline")]:
        old = {
            name: value
            for name, value in run.metrics.items()
            if not name.startswith(("goodput", "badput", "time_to", "pipeline_w", "pipeline_o"))
        }
        tags = run.tags | {SLOWEST_WORKER_TAG: "[", COMPONENT_WORK_TAG: "7"}
        full_study.change(run, metrics=old, tags=tags)
    report = build_report(full_study.runs)
    side = report.overhead["tf"]
    assert (side.first_step, side.goodput, side.goodput_share) == ({}, {}, None)
    assert side.pipeline.component_work == {}
    assert "Goodput" not in render_html(report).replace("Goodput, and", "")


def test_the_page_shows_both_frameworks_side_by_side(full_study):
    full_study.recovery("tf")
    full_study.recovery("torch")
    report = build_report(full_study.runs)
    page = render_html(report)
    assert "To the first step" in page
    assert "Goodput, and what else takes the wall clock" in page
    assert "kill -9 of worker 1" in page
    assert finding(report, "Goodput of a run").headline == "TensorFlow 36 %, PyTorch 41 %"
