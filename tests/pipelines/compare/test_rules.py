import pytest

from pipelines.compare import build_report
from pipelines.errors import ComparisonRefusedError, InputError
from pipelines.runs import PARITY_FIELDS, comparable_fields


@pytest.mark.parametrize("field", comparable_fields("weak"))
def test_any_field_that_differs_between_the_frameworks_is_refused_by_name(study, field):
    study.cell("tf", **{field: "one"})
    study.cell("torch", **{field: "another"})
    with pytest.raises(ComparisonRefusedError) as refusal:
        build_report(study.runs)
    assert str(refusal.value) == (f"comparison refused: {field} differs (tf: one, torch: another)")
    assert refusal.value.differences == {field: ["another", "one"]}
    assert refusal.value.exit_code == 3


def test_every_field_that_differs_is_named_in_one_line(study):
    study.cell("tf", reader="native", hardware="x86-64,\n4 cores")
    study.cell("torch")
    with pytest.raises(ComparisonRefusedError) as refusal:
        build_report(study.runs)
    assert set(refusal.value.differences) == {"reader", "hardware"}
    assert "reader differs (tf: native, torch: shared)" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_hashes_are_shortened_in_the_message_but_whole_in_the_differences(study):
    study.cell("tf", dataset_fingerprint="ab" * 32)
    study.cell("torch", dataset_fingerprint="cd" * 32)
    with pytest.raises(ComparisonRefusedError, match=r"tf: abababababab\.\., torch: cd") as refusal:
        build_report(study.runs)
    assert refusal.value.differences["dataset_fingerprint"] == ["ab" * 32, "cd" * 32]


def test_a_field_missing_on_one_side_differs(study):
    study.cell("tf")
    study.cell("torch", without=["precision"])
    with pytest.raises(
        ComparisonRefusedError, match=r"precision differs \(tf: float32, torch: not recorded\)"
    ):
        build_report(study.runs)


def test_a_field_that_nobody_recorded_is_no_agreement(study):
    study.cell("tf", without=["hardware"])
    study.cell("torch", without=["hardware"])
    with pytest.raises(ComparisonRefusedError, match="hardware is not recorded"):
        build_report(study.runs)


def test_runs_of_before_the_code_was_recorded_are_refused_and_the_mend_is_told(study):
    study.cell("tf", without=["code_sha256"])
    study.cell("torch", without=["code_sha256"])
    with pytest.raises(ComparisonRefusedError) as refusal:
        build_report(study.runs)
    assert str(refusal.value) == (
        "comparison refused: code_sha256 is not recorded, as by an older version; "
        "measure them again"
    )


def test_cells_of_two_programs_are_refused(study):
    study.cell("tf", repeat=0)
    study.cell("tf", repeat=1, code_sha256="ab12" * 16)
    with pytest.raises(
        ComparisonRefusedError, match=r"code_sha256 differs \(tf: ab12ab12ab12\.\. and ef56"
    ):
        build_report(study.runs)


def test_a_difference_within_one_framework_is_refused_too(study):
    study.cell("tf", workers=1, hardware="2 cores")
    study.cell("tf", workers=2, hardware="8 cores")
    with pytest.raises(ComparisonRefusedError, match="tf: 2 cores and 8 cores"):
        build_report(study.runs)


def test_versions_may_differ(study):
    study.cell("tf", framework_version="1")
    study.cell("torch", framework_version="2")
    assert len(build_report(study.runs).cells) == 2


def test_a_run_that_does_not_count_cannot_refuse_a_comparison(study):
    study.cell("tf")
    study.cell("torch")
    study.cell("torch", status="FAILED", rate=None, hardware="elsewhere")
    assert len(build_report(study.runs).differences) == 1


def test_pipelines_of_one_study_must_have_read_the_same_dataset(study):
    study.pipeline("tf")
    study.pipeline("torch", dataset_fingerprint="other")
    with pytest.raises(ComparisonRefusedError, match="dataset_fingerprint differs"):
        build_report(study.runs)


def test_pipelines_must_agree_in_what_they_recorded(study):
    study.pipeline("tf", hardware="2 cores")
    study.pipeline("torch", hardware="64 cores")
    with pytest.raises(ComparisonRefusedError, match="hardware differs"):
        build_report(study.runs)


def test_one_framework_alone_is_reported_without_a_comparison(study):
    study.repeats("torch", 1, [10, 11, 12])
    report = build_report(study.runs)
    assert report.differences == []
    assert "Only PyTorch ran in this study, so nothing compares the frameworks." in report.notes
    assert "no run of the other framework" in report.findings[0].statement


def test_nothing_tracked_says_which_command_makes_some():
    with pytest.raises(InputError, match="tandem study --config"):
        build_report([])


@pytest.fixture
def unproven(study):
    study.proven = False
    study.cell("tf")
    study.cell("torch")
    return study


def test_without_a_verdict_of_parity_nothing_is_compared(unproven):
    with pytest.raises(ComparisonRefusedError) as refusal:
        build_report(unproven.runs)
    assert str(refusal.value) == (
        "comparison refused: no verdict of parity says that both frameworks compute the same; "
        "prove it with `tandem parity`"
    )
    assert refusal.value.exit_code == 3
    assert refusal.value.differences == {"parity": ["missing"]}


def test_a_passed_verdict_lets_the_comparison_pass_and_is_named(unproven):
    verdict = unproven.parity()
    report = build_report(unproven.runs)
    assert len(report.differences) == 1
    assert (
        "Both frameworks were shown to compute the same over 200 steps at 1, 2, 4 workers "
        f"(run {verdict.run_id})."
    ) in report.notes


def test_a_failed_verdict_refuses_and_is_named(unproven):
    verdict = unproven.parity(passed=False)
    with pytest.raises(ComparisonRefusedError, match=f"found to differ.*{verdict.run_id}"):
        build_report(unproven.runs)


def test_the_newest_verdict_counts(unproven):
    unproven.parity(passed=True)
    unproven.parity(passed=False)
    with pytest.raises(ComparisonRefusedError, match="found to differ"):
        build_report(unproven.runs)
    unproven.parity(passed=True)
    assert build_report(unproven.runs).differences


@pytest.mark.parametrize("status", ["RUNNING", "FAILED", "KILLED"])
def test_a_verdict_that_was_not_finished_is_none(unproven, status):
    unproven.parity(status=status)
    with pytest.raises(ComparisonRefusedError, match="no verdict of parity"):
        build_report(unproven.runs)


@pytest.mark.parametrize(
    "field",
    [
        *PARITY_FIELDS,
        "tf_strategy",
        "torch_strategy",
        "tf_strategy_options",
        "torch_strategy_options",
        "tf_framework_version",
        "torch_framework_version",
        "tf_software_build",
        "torch_software_build",
    ],
)
def test_a_verdict_on_something_else_does_not_count_and_says_what(unproven, field):
    unproven.parity(**{field: "another"})
    with pytest.raises(
        ComparisonRefusedError,
        match=rf"on something else \({field}: another, here .*`tandem parity`",
    ):
        build_report(unproven.runs)


def test_each_kind_of_cell_needs_its_own_verdict(unproven):
    unproven.parity()
    unproven.cell("torch", workers=2, framework_version="2.14.0")
    with pytest.raises(ComparisonRefusedError, match=r"torch_framework_version: 2\.13\.0, here 2"):
        build_report(unproven.runs)
    unproven.parity(torch_framework_version="2.14.0")
    assert build_report(unproven.runs).cells


def test_one_framework_alone_needs_no_verdict(study):
    study.proven = False
    study.repeats("torch", 1, [10, 11, 12])
    assert build_report(study.runs).cells


def test_asynchronous_training_stands_apart_and_needs_no_verdict(study):
    study.proven = False
    study.repeats("tf", 2, [900, 910, 920], strategy="parameter_server")
    study.repeats("torch", 2, [10, 11, 12])

    report = build_report(study.runs)

    assert {cell.strategy for cell in report.cells} == {"parameter_server", "ddp"}
    assert report.differences == []
    (speed,) = [finding for finding in report.findings if finding.topic == "Throughput, 2 workers"]
    assert speed.headline == "Not compared"
    assert "asynchronous" in speed.statement
    assert any(note.startswith("parameter_server is asynchronous") for note in report.notes)


def test_a_synchronous_strategy_speaks_for_a_framework_that_has_one(study):
    study.repeats("tf", 2, [900, 910, 920], strategy="parameter_server")
    study.repeats("tf", 2, [20, 21, 22])
    study.repeats("torch", 2, [10, 11, 12])

    report = build_report(study.runs)

    assert [each.tf_strategy for each in report.differences] == ["multi_worker_mirrored"]
    (speed,) = [finding for finding in report.findings if finding.topic == "Throughput, 2 workers"]
    assert "multi_worker_mirrored trained 21 examples/s" in speed.statement
