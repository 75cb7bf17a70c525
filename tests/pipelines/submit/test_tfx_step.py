import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import InputError
from pipelines.submit import tfx_step
from pipelines.submit.tfx_step import localised, put_back


def artifact(uri: str) -> dict[str, Any]:
    return {"artifacts": [{"name": "x", "uri": uri, "metadata": {"span": 0}}]}


def test_tfx_is_given_the_folders_that_the_launcher_fetches_to() -> None:
    described = {
        "inputs": {
            "artifacts": {"examples": artifact("minio://pipelines/root/1/examples")},
            "parameterValues": {"run_fn": "tf_pipeline.train.run_fn"},
        },
        "outputs": {
            "artifacts": {
                "model": artifact("gs://bucket/root/2/model"),
                "model_run": artifact("s3://bucket/root/2/run"),
                "here": artifact("/tmp/root/here"),
            },
            "outputFile": "/tmp/kfp_outputs/output_metadata.json",
        },
    }

    remote = localised(described)

    inputs, outputs = described["inputs"]["artifacts"], described["outputs"]["artifacts"]
    assert inputs["examples"] == artifact("/minio/pipelines/root/1/examples")
    assert outputs["model"] == artifact("/gcs/bucket/root/2/model")
    assert outputs["model_run"] == artifact("/s3/bucket/root/2/run")
    assert outputs["here"] == artifact("/tmp/root/here")
    assert remote["/gcs/bucket/root/2/model"] == "gs://bucket/root/2/model"


def test_what_tfx_reports_bears_the_addresses_again(tmp_path: Path) -> None:
    report = tmp_path / "output_metadata.json"
    report.write_text(json.dumps({"artifacts": {"model": artifact("/gcs/bucket/model")}}))

    put_back(report, {"/gcs/bucket/model": "gs://bucket/model"})

    assert json.loads(report.read_text())["artifacts"]["model"] == artifact("gs://bucket/model")


def test_a_component_that_fails_as_expected_ends_in_one_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_module(*arguments: Any, **options: Any) -> None:
        raise InputError("dataset has anomalies: train: label: it is not there")

    monkeypatch.setattr(tfx_step.runpy, "run_module", run_module)
    monkeypatch.setattr("sys.argv", ["tfx_step"])

    with pytest.raises(SystemExit) as ended:
        tfx_step.main(["--json_serialized_invocation_args", "{}"])

    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: dataset has anomalies: train: label: it is not there\n"
    )
