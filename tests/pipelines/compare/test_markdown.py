from pipelines.compare import build_report, write_report


def lines_of(report, folder):
    *_, comment = write_report(report, folder)
    return comment.read_text(encoding="utf-8").splitlines()


def test_the_comment_says_what_the_report_found(full_study, tmp_path):
    report = build_report(full_study.runs)
    lines = lines_of(report, tmp_path)
    assert lines[0] == "## quickstart: TensorFlow and PyTorch compared"
    for finding in report.findings:
        said = f"- **{finding.headline}** ({finding.topic}). {finding.statement}"
        assert said in lines
    assert (
        "| weak, 1: ddp / multi_worker_mirrored | 1.09 | 1.05 to 1.11 | PyTorch faster |" in lines
    )
    rows = [line for line in lines if line.startswith("| PyTorch ddp | weak | 2 | 4,420 |")]
    assert len(rows) == 1
    assert f"| {report.scaling[-1].efficiency:.1%} |".replace("%", " %") in rows[0]
    for note in report.notes:
        assert f"- {note}" in lines


def test_what_a_run_is_called_breaks_no_row(study, tmp_path):
    study.repeats("tf", 1, [100, 101], strategy="a|b\n<script>")
    lines = lines_of(build_report(study.runs), tmp_path)
    (row,) = [line for line in lines if line.startswith("| TensorFlow")]
    assert row.startswith("| TensorFlow a\\|b &lt;script> | weak | 1 | ")


def test_failures_are_counted(study, tmp_path):
    study.cell("tf")
    study.cell("tf", repeat=1, status="FAILED", rate=None)
    lines = lines_of(build_report(study.runs), tmp_path)
    assert "1 run does not count; the report has their reasons." in lines
