"""``tandem predict`` on a real tracking store that holds a synthetic study."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import tracking
from pipelines.cli import main
from pipelines.config import load_config
from pipelines.environments import PROJECT_ROOT
from pipelines.runs import STUDY_TAG

QUICKSTART = PROJECT_ROOT / "configs" / "quickstart.yaml"


@pytest.fixture
def tandem(tmp_path, monkeypatch):
    """The installed command, run in an empty folder."""
    for variable in ("FORCE_COLOR", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)

    def run(*arguments):
        command = [str(Path(sys.executable).with_name("tandem")), "predict", *arguments]
        around = {**os.environ, "NO_COLOR": "1", "COLUMNS": "160"}
        where = ("--config", str(QUICKSTART), "--set", f"output={tmp_path}")
        return subprocess.run(
            [*command, *where], cwd=tmp_path, env=around, capture_output=True, text=True
        )

    return run


@pytest.fixture
def tracked(tmp_path, monkeypatch):
    """Puts synthetic runs into the store that the command reads."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = load_config(QUICKSTART, [f"output={tmp_path}"])

    def keep(known):
        tracking.prepare_store(config)
        for run in known.runs:
            study_id = run.tags.get(STUDY_TAG, "")
            run_id = tracking.create_run(config, run.name, run.kind, study_id, run.params)
            tracking.log_metrics(config, run_id, run.metrics, run.tags)
            tracking.finish_run(config, run_id, run.status)

    return keep


def test_a_prediction_is_labelled_for_people_and_whole_for_programs(tandem, tracked, world):
    known = world(spread=(0.99, 1.0, 1.02), hidden_seconds=0.0).study()
    tracked(known)

    done = tandem("--workers", "8,64,256,1024", "--network", "100gbit", "--json")

    assert done.returncode == 0, done.stderr
    assert "PREDICTION, not a measurement" in done.stderr
    prediction = json.loads(done.stdout)
    assert prediction["network"] == "100gbit"
    assert [each["framework"] for each in prediction["forecasts"]] == ["tf", "torch"]
    for forecast in prediction["forecasts"]:
        assert [point["workers"] for point in forecast["points"]] == [8, 64, 256, 1024]
        eight = forecast["points"][0]
        low, high = eight["step_seconds_interval95"]
        assert low < known.step_seconds(8) < high


def test_a_study_without_anatomies_is_told_what_to_run(tandem, tracked, world):
    known = world()
    known.cells("tf", 2)
    known.cells("torch", 2)
    known.prove()
    tracked(known)

    done = tandem("--workers", "8")

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: no anatomy of TensorFlow")
    assert "`tandem study`" in done.stderr


def test_studies_that_did_not_do_the_same_work_are_refused(tandem, tracked, world):
    known = world().study()
    known.runs[0].params["hardware"] = "another machine"
    tracked(known)

    done = tandem("--workers", "8")

    assert done.returncode == 3
    assert "hardware" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--workers", "8,many"), "--workers 8,many: not a list of worker counts"),
        (("--workers", "0,8"), "--workers 0,8: "),
        (("--workers", ""), "--workers : "),
        (("--workers", "8", "--network", "fast"), "--network fast: not a rate"),
        (("--workers", "8", "--latency", "2us"), "--latency 2us: of which network?"),
        (("--workers", "8", "--network", "1gbit", "--latency", "2"), "--latency 2: not a time"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_it(monkeypatch, tmp_path, capsys, options, told):
    monkeypatch.chdir(tmp_path)
    arguments = ["tandem", "predict", *options, "--config", str(QUICKSTART)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    assert said.err.splitlines()[-1].startswith(f"error: {told}")
    assert [*tmp_path.iterdir()] == []
