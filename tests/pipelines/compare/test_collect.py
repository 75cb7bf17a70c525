import math
from dataclasses import replace

import pytest

from pipelines.compare import build_report
from pipelines.compare.collect import select
from pipelines.errors import ComparisonRefusedError, InputError
from pipelines.metrics import PHASES
from pipelines.runs import KIND_TAG, PREEMPTED_TAG, RESUMED_TAG, RunRecord


def cell_of(report, framework, workers):
    (cell,) = [c for c in report.cells if (c.framework, c.workers) == (framework, workers)]
    return cell


def test_a_cell_holds_its_repeats_in_order_and_their_medians(full_study):
    report = build_report(full_study.runs[::-1])
    cell = cell_of(report, "tf", 2)
    assert cell.repeats == [3905.5, 3760.2, 4012.8]
    assert cell.median == 3905.5
    assert cell.interval95 == (3760.2, 4012.8)
    assert cell.strategy == "multi_worker_mirrored"
    assert list(cell.phases) == list(PHASES)
    assert cell.phases["rendezvous_seconds"] == pytest.approx(1.8)
    assert cell.eval_metrics == pytest.approx({"eval_accuracy": 0.966})
    assert cell.peak_memory_bytes == 611 * 2**20
    by_id = {run.run_id: run for run in full_study.runs}
    assert [
        by_id[run_id].metrics["examples_per_second"] for run_id in cell.mlflow_run_ids
    ] == cell.repeats


def test_rows_read_by_workers_then_framework(full_study):
    report = build_report(full_study.runs)
    assert [(cell.workers, cell.framework) for cell in report.cells] == [
        (1, "tf"), (1, "torch"), (2, "tf"), (2, "torch"),
    ]  # fmt: skip


def test_common_facts_come_from_the_parameters(full_study):
    report = build_report(full_study.runs)
    assert report.study == "quickstart"
    assert report.dataset.model_dump() == {
        "fingerprint": "ab12" * 16, "rows": 1797, "source": "digits",
    }  # fmt: skip
    assert report.environment.hardware == "x86-64, 2 cores"
    torch = report.environment.software[-1]
    assert (torch.framework, torch.framework_version) == ("torch", "2.13.0")
    assert report.settings.batch_size_per_worker == 64
    assert (report.settings.steps, report.settings.warmup_steps) == (200, 20)
    assert report.settings.reader == "shared"


def test_a_slow_repeat_is_kept(study):
    study.repeats("tf", 1, [100, 5, 101])
    (cell,) = build_report(study.runs).cells
    assert cell.repeats == [100, 5, 101]
    assert cell.interval95 == (5, 101)


def test_the_latest_study_counts_unless_another_is_asked_for(study):
    study.cell("tf", rate=1, study="20250101T000000Z")
    study.cell("tf", rate=2, study="20250301T000000Z")
    study.cell("tf", rate=3, study="20250201T000000Z")
    assert build_report(study.runs).cells[0].repeats == [2]
    assert build_report(study.runs, ["20250101T000000Z"]).cells[0].repeats == [1]


def test_several_studies_are_put_together_repeat_by_repeat(study):
    study.repeats("tf", 1, [100, 101], study="20250101T000000Z")
    study.repeats("tf", 1, [102, 103], study="20250301T000000Z")
    study.repeats("torch", 1, [300, 301], study="20250201T000000Z")
    report = build_report(study.runs, ["20250101T000000Z", "20250201T000000Z"])
    assert [cell.repeats for cell in report.cells] == [[100, 101], [300, 301]]
    assert report.study_id == "20250101T000000Z, 20250201T000000Z"
    three = ["20250101T000000Z", "20250301T000000Z", "20250201T000000Z"]
    assert build_report(study.runs, three).cells[0].repeats == [100, 101, 102, 103]


def test_studies_of_other_data_are_refused(study):
    study.repeats("tf", 1, [100], study="20250101T000000Z")
    study.repeats("tf", 1, [102], study="20250301T000000Z", dataset_fingerprint="cd34" * 16)
    with pytest.raises(ComparisonRefusedError, match=r"dataset_fingerprint differs \(tf: ab12"):
        build_report(study.runs, ["20250101T000000Z", "20250301T000000Z"])


def test_strong_scaling_stands_beside_weak(study):
    for framework in ("tf", "torch"):
        study.repeats(framework, 1, [100, 101, 102])
        study.repeats(framework, 2, [190, 191, 192])
        for workers, rates in ((1, [100, 101, 102]), (2, [150, 151, 152])):
            batch = {"batch_size_per_worker": str(64 // workers), "global_batch_size": "64"}
            study.repeats(framework, workers, rates, scaling="strong", **batch)
    report = build_report(study.runs)
    efficiency = {(p.scaling, p.framework, p.workers): p.efficiency for p in report.scaling}
    assert efficiency["weak", "tf", 2] == pytest.approx(191 / 101 / 2)
    assert efficiency["strong", "torch", 2] == pytest.approx(151 / 101 / 2)
    assert {(d.scaling, d.workers) for d in report.differences} == {
        ("weak", 1), ("weak", 2), ("strong", 1), ("strong", 2),
    }  # fmt: skip
    assert report.settings.batch_size_per_worker == 64
    assert report.settings.global_batch_size == 64


def test_strong_scaling_with_two_global_batches_is_refused(study):
    study.cell("tf", scaling="strong", global_batch_size="64")
    study.cell("tf", 2, scaling="strong", global_batch_size="128")
    with pytest.raises(ComparisonRefusedError, match=r"global_batch_size differs"):
        build_report(study.runs)


def test_an_unknown_study_is_answered_with_those_there_are(study):
    study.cell("tf", study="20250101T000000Z")
    with pytest.raises(InputError, match=r"no study 'x'.*'20250101T000000Z'"):
        build_report(study.runs, ["x"])


def test_strangers_and_summaries_are_ignored(study):
    study.cell("tf")
    study.runs.append(RunRecord("a" * 32, "notebook", "FINISHED", 0.0))
    study.runs.append(RunRecord("b" * 32, "tf", "FINISHED", 0.0, tags={KIND_TAG: "summary"}))
    report = build_report(study.runs)
    assert len(report.cells) == 1
    assert report.failed == []


def test_a_failed_cell_is_listed_and_counts_for_nothing(study):
    study.repeats("tf", 1, [100, 101])
    failed = study.cell("tf", repeat=2, rate=9999, status="FAILED")
    report = build_report(study.runs)
    (listed,) = report.failed
    assert (listed.run_id, listed.name, listed.status) == (failed.run_id, failed.name, "FAILED")
    assert listed.kind == "cell"
    assert listed.retried is False
    assert report.cells[0].repeats == [100, 101]


def test_a_retry_takes_the_failed_run_s_place_and_the_failure_stays_listed(study):
    study.cell("tf", repeat=0, rate=None, status="KILLED")
    study.cell("tf", repeat=0, rate=100)
    report = build_report(study.runs)
    assert report.cells[0].repeats == [100]
    assert [(run.status, run.retried) for run in report.failed] == [("KILLED", True)]


def test_of_two_finished_runs_of_a_repeat_the_latest_counts_and_the_other_is_noted(study):
    first = study.cell("tf", repeat=0, rate=100)
    study.cell("tf", repeat=0, rate=200)
    report = build_report(study.runs)
    assert report.cells[0].repeats == [200]
    assert any(first.run_id in note for note in report.notes)


def test_a_later_failure_does_not_unseat_a_finished_run(study):
    study.cell("tf", repeat=0, rate=100)
    study.cell("tf", repeat=0, rate=None, status="FAILED")
    report = build_report(study.runs)
    assert report.cells[0].repeats == [100]
    assert len(report.failed) == 1


@pytest.mark.parametrize(
    ("tags", "metrics", "reason"),
    [
        ({PREEMPTED_TAG: "150"}, {}, "was interrupted, so that it has no honest clock"),
        ({RESUMED_TAG: '{"workers": "1"}'}, {}, "went on as something else than it began as"),
        ({}, {"restarts": 1.0}, "was interrupted, so that it has no honest clock"),
    ],
)
def test_a_finished_run_that_was_no_whole_measurement_is_listed_and_counts_for_nothing(
    study, tags, metrics, reason
):
    study.cell("tf", repeat=0, rate=100)
    run = study.cell("tf", repeat=1, rate=500)
    study.change(run, tags=run.tags | tags, metrics=run.metrics | metrics)
    report = build_report(study.runs)
    assert report.cells[0].repeats == [100]
    assert [(each.status, each.reason) for each in report.failed] == [("FINISHED", reason)]


@pytest.mark.parametrize("rate", [None, math.nan, math.inf, 0.0, -1.0])
def test_a_finished_run_without_a_usable_throughput_is_listed(study, rate):
    study.cell("tf", repeat=0, rate=100)
    run = study.cell("tf", repeat=1, rate=100)
    metrics = {} if rate is None else {"examples_per_second": rate}
    study.change(run, metrics=metrics)
    report = build_report(study.runs)
    assert report.cells[0].repeats == [100]
    assert report.failed[0].reason == "finished without a usable examples_per_second"


@pytest.mark.parametrize(
    "broken", [{"workers": "two"}, {"workers": "0"}, {"repeat": ""}, {"framework": "jax"}]
)
def test_a_finished_run_that_fits_no_cell_is_listed(study, broken):
    study.cell("tf", rate=100)
    run = study.cell("tf", repeat=1)
    study.change(run, params=run.params | broken)
    report = build_report(study.runs)
    assert report.cells[0].repeats == [100]
    assert "lacks usable" in report.failed[0].reason


def test_a_run_that_failed_before_it_logged_anything_is_listed(study):
    run = study.cell("tf", status="FAILED", rate=None)
    study.change(run, params={})
    study.cell("tf")
    report = build_report(study.runs)
    assert len(report.cells) == 1
    assert [run.status for run in report.failed] == ["FAILED"]


def test_a_study_without_a_finished_cell_is_no_report(study):
    failed = study.cell("tf", status="FAILED", rate=None)
    study.cell("torch", status="RUNNING", rate=None)
    said = f"nothing finished; of 2 runs the first is {failed.name}, FAILED, which did not finish"
    with pytest.raises(InputError, match=said):
        build_report(study.runs)
    study.pipeline("tf")  # which does not stand in for the cells
    with pytest.raises(InputError, match=said):
        build_report(study.runs)


def test_unfinished_pipelines_alone_are_no_report(study):
    study.pipeline("torch", status="FAILED")
    with pytest.raises(InputError, match=r"nothing finished; of 1 runs"):
        build_report(study.runs)


def test_runs_with_other_versions_are_told_apart(study):
    tf = study.cell("tf")
    old = [study.cell("torch", repeat=repeat, framework_version="2.12.0") for repeat in range(2)]
    new = study.cell("torch", repeat=2)
    found = [
        (each.framework, each.framework_version, each.python_version, each.mlflow_run_ids)
        for each in build_report(study.runs).environment.software
    ]
    assert found == [
        ("tf", "2.21.0", "3.11.9", [tf.run_id]),
        ("torch", "2.12.0", "3.11.9", [run.run_id for run in old]),
        ("torch", "2.13.0", "3.11.9", [new.run_id]),
    ]


def test_a_run_has_an_address_where_all_are_of_one_experiment(study):
    def address(experiment_id: str) -> str:
        return f"http://mlflow/#/experiments/{experiment_id}/runs/"

    study.change(study.cell("tf"), experiment_id="7")
    study.change(study.cell("torch"), experiment_id="7")
    assert build_report(study.runs).run_address is None
    addressed = build_report(study.runs, run_address=address)
    assert addressed.run_address == "http://mlflow/#/experiments/7/runs/"
    study.change(study.cell("tf", 2), experiment_id="8")
    assert build_report(study.runs, run_address=address).run_address is None


def test_cells_with_fewer_repeats_than_others_are_noted(study):
    study.repeats("tf", 1, [1, 2, 3])
    study.repeats("torch", 1, [1, 2])
    notes = build_report(study.runs).notes
    assert "PyTorch ddp at 1 worker has 2 finished repeats, where other cells have 3." in notes


def test_two_strategies_of_one_framework_are_two_cells_and_two_differences(study):
    study.repeats("tf", 2, [100, 100, 100])
    study.repeats("torch", 2, [100, 100, 100])
    study.repeats("torch", 2, [50, 50, 50], strategy="fsdp")
    report = build_report(study.runs)
    assert [cell.strategy for cell in report.cells] == ["multi_worker_mirrored", "ddp", "fsdp"]
    assert [(d.torch_strategy, d.ratio) for d in report.differences] == [("ddp", 1), ("fsdp", 0.5)]
    assert "PyTorch ddp" in report.findings[0].statement


def test_pipelines_are_read_whole(full_study):
    pipeline = build_report(full_study.runs).pipelines["tf"]
    assert pipeline.seconds == pytest.approx(54.1)
    assert list(pipeline.stages) == ["validate", "transform", "train", "evaluate", "push"]
    assert pipeline.components["validate-step"] == 9.1
    assert pipeline.blessed is True
    assert pipeline.cached_stages == 0
    assert pipeline.mlflow_run_id == full_study.runs[0].run_id


def test_the_newest_pipeline_of_the_study_counts(study):
    study.pipeline("tf", metrics={"pipeline_seconds": 1.0})
    study.pipeline("tf", metrics={"pipeline_seconds": 2.0})
    study.pipeline("tf", metrics={"pipeline_seconds": 3.0}, study="")
    study.cell("tf")
    assert build_report(study.runs).pipelines["tf"].seconds == 2.0


def test_without_one_the_newest_that_read_the_same_dataset_counts_and_is_noted(study):
    study.cell("tf")
    study.pipeline("tf", metrics={"pipeline_seconds": 1.0}, study="")
    study.pipeline("tf", metrics={"pipeline_seconds": 2.0}, study="", hardware="elsewhere")
    study.pipeline("tf", study="", dataset_fingerprint="other")
    report = build_report(study.runs)
    assert report.pipelines["tf"].seconds == 1.0
    assert any("is not part of this study" in note for note in report.notes)


CACHED = {"cached_stages": 5.0, "pipeline_seconds": 4.0}


def test_the_pipeline_that_counts_is_the_one_that_took_least_from_its_cache(full_study):
    rerun = full_study.pipeline("tf", metrics=CACHED)
    earlier = full_study.pipeline("torch", metrics=CACHED, study="20250531T120000Z")
    selection = select(full_study.runs)

    assert selection.pipelines["tf"].metrics["cached_stages"] == 0
    assert selection.reruns == {"tf": rerun}
    assert earlier not in selection.pipelines.values()


def test_where_all_was_cached_an_earlier_study_that_did_the_same_work_is_told_of(study):
    study.cell("tf")
    study.pipeline("tf", study="20250531T120000Z", workers="2", metrics={"pipeline_seconds": 9.0})
    study.pipeline("tf", study="20250530T120000Z", workers="1", metrics={"pipeline_seconds": 8.0})
    cached = study.pipeline("tf", workers="1", metrics=CACHED)
    report = build_report(study.runs)

    assert report.pipelines["tf"].seconds == 8.0
    assert any("is not part of this study" in note for note in report.notes)
    assert select(study.runs).reruns == {"tf": cached}


def test_where_all_was_cached_and_nothing_else_is_known_the_cached_one_counts(study):
    study.cell("tf")
    study.pipeline("tf", metrics=CACHED)
    cached = study.pipeline("tf", metrics=CACHED | {"pipeline_seconds": 3.0})
    selection = select(study.runs)

    assert selection.pipelines == selection.reruns == {"tf": cached}


def test_a_rerun_of_which_a_component_ran_is_none(study):
    study.cell("tf")
    study.pipeline("tf", metrics={"cached_stages": 4.0})
    failed = study.pipeline("tf", metrics=CACHED, status="FAILED")
    odd = study.pipeline("tf", metrics=CACHED)
    study.change(odd, tags=odd.tags | {"tandem.components": "not json"})

    assert failed.metrics["cached_stages"] == 5
    assert select(study.runs).reruns == {}


def test_the_newest_recovery_of_the_study_counts(study):
    cell = study.cell("tf")
    metrics = {"notice_seconds": 0.1, "recovery_seconds": 9.0, "lost_steps": 7.0}

    def recovery(study_id=cell.tags["tandem.study_id"], **fields):
        number = len(study.runs)
        kind = {KIND_TAG: "recovery", "tandem.study_id": study_id}
        run = replace(cell, run_id=f"{number:032x}", start_time=1.8e9 + number, tags=kind)
        study.runs.append(replace(run, **({"metrics": metrics} | fields)))
        return study.runs[-1]

    recovery()
    newest = recovery()
    recovery(metrics={"wall_seconds": 30.0})  # its fault came too late
    recovery(status="FAILED")
    recovery("20250531T120000Z")

    assert select(study.runs).recoveries == {"tf": newest}
    assert build_report(study.runs).cells[0].mlflow_run_ids == [cell.run_id]


def test_a_failed_pipeline_is_listed(full_study):
    failed = full_study.pipeline("torch", status="FAILED", metrics={"pipeline_seconds": 1.0})
    report = build_report(full_study.runs)
    assert report.pipelines["torch"].seconds == pytest.approx(25.5)
    assert [(run.run_id, run.kind) for run in report.failed] == [(failed.run_id, "pipeline")]


def test_cached_components_and_a_missing_blessing_are_said(full_study):
    first = next(run for run in full_study.runs if run.params.get("framework") == "tf")
    cached = first.metrics | {"cached_stages": 3.0, "blessed": 0.0}
    full_study.change(first, metrics=cached)
    report = build_report(full_study.runs)
    assert report.pipelines["tf"].cached_stages == 3
    assert report.pipelines["tf"].blessed is False
    assert any("took 3 components from its cache" in note for note in report.notes)
    assert "not blessed" in report.findings[-1].statement


def test_pipelines_alone_are_reported(study):
    study.pipeline("tf", study="")
    report = build_report(study.runs)
    assert report.cells == []
    assert list(report.pipelines) == ["tf"]
    assert [finding.topic for finding in report.findings] == ["Whole pipeline, one run each"]


@pytest.mark.parametrize("tag", ["", "not json", "[1]", '{"a": null}'])
def test_components_that_cannot_be_read_are_left_out(study, tag):
    run = study.pipeline("tf")
    study.change(run, tags=run.tags | {"tandem.components": tag})
    assert build_report(study.runs).pipelines["tf"].components == {}


def test_the_last_finding_is_what_keeping_each_side_costs(full_study):
    old = full_study.ledger("tf", total_dependencies=300.0)
    kept = [full_study.ledger("tf"), full_study.ledger("torch", total_dependencies=71.0)]
    unfinished = full_study.ledger("torch", total_dependencies=1.0)
    full_study.change(unfinished, status="FAILED")
    report = build_report(full_study.runs)
    assert [each.mlflow_run_id for each in report.maintenance.values()] == [r.run_id for r in kept]
    assert old.run_id not in report.model_dump_json()
    finding = report.findings[-1]
    assert finding.headline == "TensorFlow 205, PyTorch 71"
    assert "asks for 1 and gets 205, 2.0 GiB in all; its own code is 1,488 lines" in (
        finding.statement
    )
    start_up, goodput, pipelines = report.findings[-4:-1]
    assert start_up.topic == "To the first step, 2 workers"
    assert goodput.topic == "Goodput of a run, 2 workers"
    assert pipelines.topic == "Whole pipeline, one run each"


def test_the_way_to_the_first_step_is_told_for_one_worker_too(study):
    study.repeats("tf", 1, [100, 100, 100])
    study.repeats("torch", 1, [100, 100, 100])
    finding = build_report(study.runs).findings[1]
    assert finding.topic == "To the first step, 1 worker"
    assert finding.headline == "TensorFlow 9.90 s, PyTorch 6.70 s"
    assert (
        "Of PyTorch's 6.70 s, 4.20 s went to import and 1.50 s went to tracking."
        in finding.statement
    )


def test_the_scaling_finding_is_about_the_cells_whose_speed_is_told(study):
    study.repeats("torch", 1, [100, 100, 100])
    study.repeats("torch", 2, [180, 180, 180])
    study.repeats("torch", 1, [50, 50, 50], strategy="fsdp")
    study.repeats("torch", 2, [99, 99, 99], strategy="fsdp")
    speed, scaling = build_report(study.runs).findings[:2]
    assert "PyTorch ddp trained 180 examples/s" in speed.statement
    assert scaling.headline == "PyTorch 90 %"
    assert scaling.topic == "Weak scaling, 1 to 2 workers"
