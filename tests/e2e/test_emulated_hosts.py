"""Training over emulated hosts, whose links are as slow as asked for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.environments import PROJECT_ROOT
from pipelines.strategies import FRAMEWORKS, Framework

TANDEM = Path(sys.executable).with_name("tandem")
SMALL = ("steps=12", "warmup_steps=4", "batch_size_per_worker=16")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.both_frameworks,
    pytest.mark.network_namespaces,
]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for both frameworks, so that they ingest once."""
    return tmp_path_factory.mktemp("hosts") / "out"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_two_workers_train_over_a_link_between_two_hosts(
    framework: Framework, output: Path
) -> None:
    settings = [f"output={output}", *(f"training.{setting}" for setting in SMALL)]
    ended = subprocess.run(
        [
            *(TANDEM, "train", framework, "--json", "--workers", "2"),
            *("--hosts", "2", "--bandwidth", "50mbit"),
            *("--config", PROJECT_ROOT / "configs" / "quickstart.yaml"),
            *(word for setting in settings for word in ("--set", setting)),
        ],
        cwd=output.parent,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["examples_per_second"] > 0
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("quickstart")
    runs = client.search_runs([experiment.experiment_id])
    (run,) = [run for run in runs if run.data.params["framework"] == framework]
    assert run.info.status == "FINISHED"
    assert run.data.params["network"] == "emulated: 2 hosts, 50mbit"
    losses = client.get_metric_history(run.info.run_id, "train_loss")
    assert len(losses) == 12
    assert losses[-1].value < losses[0].value
