import pytest

from pipelines.compare import build_report
from pipelines.errors import ComparisonRefusedError, InputError
from pipelines.runs import COMPARABLE_FIELDS


@pytest.mark.parametrize("field", COMPARABLE_FIELDS)
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
