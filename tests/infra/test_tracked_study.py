"""The study of `make demo`, shrunk, logged to the tracking server as shipped.

Every test reads what one run of ``tandem run`` has left there, and on this machine.
"""

import base64
import gzip
import json
import re
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipelines.chart_view import SUMMARY_PARAM, VIEW_TAG
from pipelines.config import Config, load_config
from pipelines.environments import PROJECT_ROOT
from pipelines.run_folder import RESULT_NAME
from pipelines.runs import RunRecord
from pipelines.strategies import FRAMEWORKS
from pipelines.tracking import experiment_tags, read_runs
from tests.infra.secret_scan import command_lines, files_under, holding
from tests.infra.tracking_server import READER, STEPS, TrackingServer, User

pytestmark = [
    pytest.mark.services,
    pytest.mark.both_frameworks,
    pytest.mark.timeout(1800),
]

QUICKSTART = PROJECT_ROOT / "configs" / "quickstart.yaml"
STEPS_OF_TRAINING, REPEATS, WORKERS = 60, 1, [2]
OVERRIDES = [
    f"training.steps={STEPS_OF_TRAINING}",
    "training.warmup_steps=10",
    f"study.repeats={REPEATS}",
    f"study.workers={WORKERS}",
    "workload.thresholds={eval_accuracy: 0.5}",
]
KINDS = {
    "cell": 2 * len(WORKERS) * REPEATS,
    "anatomy": 2 * len(WORKERS),
    "recovery": 2,
    "pipeline": 4,  # each once more, from its cache
    "parity": 1,
    "ledger": 2,
    "summary": 4,  # a curve and the costs of each framework
}
ARTIFACTS = {
    "cell": {"config.yaml", "workers.json"},
    "anatomy": {"config.yaml"},
    "recovery": {"config.yaml", "workers.json"},
    "parity": {"parity.html", "parity.json"},
    "ledger": {"ledger.json"},
}

Done = subprocess.CompletedProcess[str]


def tandem(
    server: TrackingServer, user: User | None, output: Path, *arguments: str, **variables: str
) -> Done:
    """The command, with credentials as a user gives them."""
    settings = [f"output={output}", *OVERRIDES]
    return subprocess.run(
        [
            *(sys.executable, "-c", "from pipelines.cli import main; main()"),
            *(*arguments, "--config", str(QUICKSTART)),
            *(word for setting in settings for word in ("--set", setting)),
        ],
        cwd=PROJECT_ROOT,
        env=server.variables(user) | {"NO_COLOR": "1"} | variables,
        capture_output=True,
        text=True,
    )


@dataclass(frozen=True)
class Study:
    """What was said of it and what it has left."""

    config: Config
    said: Done
    command_lines: set[bytes]
    report: dict[str, Any]
    runs: dict[str, RunRecord]
    client: MlflowClient

    def history(self, run_id: str, metric: str) -> dict[int, float]:
        """Step -> value; of each step there is one."""
        points = self.client.get_metric_history(run_id, metric)
        found = {point.step: point.value for point in points}
        assert len(found) == len(points)
        return found


@pytest.fixture(scope="module")
def study(server: TrackingServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    output = tmp_path_factory.mktemp("study") / "out"
    with command_lines() as seen:
        said = tandem(server, STEPS, output, "run", "--json")
    assert said.returncode == 0, said.stderr
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.variables(STEPS).items():
            patch.setenv(name, value)
        uri = f"tracking.uri={server.url}"
        config = load_config(QUICKSTART, [f"output={output}", uri, *OVERRIDES])
        yield Study(
            config,
            said,
            seen,
            json.loads((output / "report.json").read_text()),
            {run.run_id: run for run in read_runs(config)},
            MlflowClient(server.url),
        )


def run_ids(told: Any) -> set[str]:
    """All that a report's part names, however deep."""
    if isinstance(told, list):
        return set().union(*map(run_ids, told))
    if not isinstance(told, dict):
        return set()
    found = set().union(*map(run_ids, told.values()))
    found |= {told["mlflow_run_id"]} if told.get("mlflow_run_id") else set()
    return found | set(told.get("mlflow_run_ids") or [])


def left_behind(
    server: TrackingServer, output: Path, said: Done, command_lines: set[bytes]
) -> dict[str, bytes]:
    """All that others could read, by where it is."""
    dump = server.dump()
    views = re.findall(rb"deflate;([A-Za-z0-9+/=]+)", dump)
    return {
        "the database": dump,
        "the prepared charts": b"".join(zlib.decompress(base64.b64decode(each)) for each in views),
        "the server's log": server.log.read_bytes(),
        "standard output": said.stdout.encode(),
        "standard error": said.stderr.encode(),
        "command lines": b"\n".join(command_lines),
        **server.objects(),
        **files_under(output),
    }


def test_every_run_of_the_study_has_ended_well_on_the_server(study: Study) -> None:
    assert Counter(run.kind for run in study.runs.values()) == KINDS
    assert {run.status for run in study.runs.values()} == {"FINISHED"}
    cells = sorted(
        (run.params["framework"], int(run.params["workers"]), int(run.params["repeat"]))
        for run in study.runs.values()
        if run.kind == "cell"
    )
    assert cells == [
        (framework, workers, repeat)
        for framework in sorted(FRAMEWORKS)
        for workers in WORKERS
        for repeat in range(REPEATS)
    ]


def test_every_figure_of_the_report_leads_to_a_run_on_the_server(study: Study) -> None:
    told = run_ids(study.report)

    # The comparison's own runs are made of the report, not it of them.
    assert told == {run.run_id for run in study.runs.values() if run.kind != "summary"}
    assert study.report["failed"] == []
    assert json.loads(study.said.stdout) == study.report
    for cell in study.report["cells"]:
        rates = [study.runs[each].metrics["examples_per_second"] for each in cell["mlflow_run_ids"]]
        assert rates == cell["repeats"]


def test_no_local_store_is_beside_it(study: Study) -> None:
    assert not (study.config.output / "mlflow.db").exists()
    assert not (study.config.output / "artifacts").exists()


def test_every_step_of_every_training_run_is_on_the_server(study: Study) -> None:
    results = [
        json.loads(path.read_text())
        for path in (study.config.output / "studies").rglob(RESULT_NAME)
    ]
    trained = {result["run_id"]: result for result in results}
    kinds = ("cell", "anatomy", "recovery")
    assert set(trained) == {run.run_id for run in study.runs.values() if run.kind in kinds}
    for run_id, result in trained.items():
        run = study.runs[run_id]
        assert result["metrics"].items() <= run.metrics.items()
        if run.kind != "anatomy":
            losses = dict(enumerate(result["train_loss"], start=1))
            assert len(losses) == int(run.params["steps"]) == STEPS_OF_TRAINING
            assert study.history(run_id, "train_loss") == losses


def test_the_prepared_charts_have_their_curves(study: Study) -> None:
    view = json.loads(experiment_tags(study.config)[VIEW_TAG])
    packed = view["state"].removeprefix("deflate;")
    state = json.loads(zlib.decompress(base64.b64decode(packed)))
    charts = [card["metricKey"] for card in state["compareRunCharts"]]
    curves = [run for run in study.runs.values() if SUMMARY_PARAM in run.params]

    assert {"examples_per_second", "scaling_efficiency", "eval_accuracy"} <= set(charts)
    assert state["searchFilter"] == f"params.{SUMMARY_PARAM} = '{study.report['study_id']}'"
    assert sorted(run.params["framework"] for run in curves) == sorted(FRAMEWORKS)
    medians = {
        (cell["framework"], cell["workers"]): cell["median"] for cell in study.report["cells"]
    }
    for run in curves:
        assert run.params[SUMMARY_PARAM] == study.report["study_id"]
        for metric in charts:
            assert list(study.history(run.run_id, metric)) == WORKERS
        for workers, value in study.history(run.run_id, "examples_per_second").items():
            assert value == medians[run.params["framework"], workers]


def test_every_artifact_lies_in_the_object_store_and_is_read_through_the_server(
    server: TrackingServer, study: Study
) -> None:
    [experiment] = {run.experiment_id for run in study.runs.values()}
    folder = f"artifacts/{experiment}/"
    objects = {key: each for key, each in server.objects().items() if key.startswith(folder)}

    assert set(objects) == {
        f"{folder}{run.run_id}/artifacts/{name}"
        for run in study.runs.values()
        for name in ARTIFACTS.get(run.kind, ())
    }
    for key, content in objects.items():
        address = f"api/2.0/mlflow-artifacts/{key}"
        assert server.get(address, STEPS).content == content
        assert server.get(address, None).status_code == 401
    for run in study.runs.values():
        listed = {each.path for each in study.client.list_artifacts(run.run_id)}
        assert listed == ARTIFACTS.get(run.kind, set())


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_password_in_the_servers_address_is_seen_by_nobody_either(
    server: TrackingServer, study: Study, framework: str, tmp_path: Path
) -> None:
    address = server.url.replace("://", "://{}:{}@".format(*STEPS))
    mine = [f"data.output={study.config.dataset_dir}", f"name=address-{framework}"]
    with command_lines() as seen:
        said = tandem(
            server,
            None,
            tmp_path / "out",
            *("train", framework, "--workers", "2", "--json"),
            *(word for setting in mine for word in ("--set", setting)),
            MLFLOW_TRACKING_URI=address,
        )

    assert said.returncode == 0, said.stderr
    config = study.config.model_copy(update={"name": f"address-{framework}"})
    [run] = read_runs(config)
    assert (run.status, run.params["workers"]) == ("FINISHED", "2")
    assert json.loads(said.stdout)["eval_accuracy"] == run.metrics["eval_accuracy"]
    left = left_behind(server, tmp_path / "out", said, seen)
    assert holding(left, server.passwords, [STEPS[0]]) == []


@pytest.mark.parametrize("user", [None, (STEPS[0], READER[1])])
def test_who_is_not_known_there_compares_nothing_and_is_told_in_a_line(
    server: TrackingServer, study: Study, user: User | None, tmp_path: Path
) -> None:
    """Without credentials, and with a wrong password."""
    refused = tandem(server, user, tmp_path / "out", "compare")

    assert refused.returncode == 2
    assert refused.stdout == ""
    [line] = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert line == refused.stderr.splitlines()[-1]
    assert line.startswith(f"error: tracking.uri: {server.url} refuses these credentials; give ")
    assert not holding({"said": refused.stderr.encode()}, server.passwords)
    assert not (tmp_path / "out" / "report.json").exists()


def test_who_may_only_read_there_compares_and_logs_nothing(
    server: TrackingServer, study: Study, tmp_path: Path
) -> None:
    before = read_runs(study.config)

    done = tandem(server, READER, tmp_path / "out", "compare", "--json")

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    for part in ("study_id", "cells", "scaling", "maintenance"):
        assert report[part] == study.report[part]
    assert (tmp_path / "out" / "report.html").exists()
    [line] = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert "this user may only read" in line
    assert read_runs(study.config) == before


def test_without_credentials_no_work_is_begun(
    server: TrackingServer, study: Study, tmp_path: Path
) -> None:
    refused = tandem(server, None, tmp_path / "out", "run")

    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith(f"error: tracking.uri: {server.url} refuses")
    assert not (tmp_path / "out" / "pipelines" / "tf" / "logs").exists()


def test_no_secret_is_in_anything_that_the_study_left_or_said(
    server: TrackingServer, study: Study
) -> None:
    left = left_behind(server, study.config.output, study.said, study.command_lines)

    # What is searched is what it should be.
    assert all(run_id.encode() in left["the database"] for run_id in study.runs)
    assert SUMMARY_PARAM.encode() in left["the prepared charts"]
    assert len([line for line in study.command_lines if b"_pipeline\0train\0" in line]) > 2
    assert len([path for path in left if path.endswith(".log")]) > 2 * KINDS["cell"]
    users = [server.admin[0], STEPS[0], READER[0]]
    assert holding(left, server.passwords, users) == []


@pytest.mark.parametrize("packed", [bytes, gzip.compress])
@pytest.mark.parametrize("form", [b"secret", base64.b64encode(b"bob:secret")])
def test_a_secret_would_be_found(packed: Any, form: bytes) -> None:
    contents = {"here": packed(b"say " + form + b" again"), "there": packed(b"say nothing")}
    assert holding(contents, ["secret"], ["ann", "bob"]) == ["here"]
