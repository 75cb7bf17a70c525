"""Both frameworks' whole pipelines, as a user runs them, for the workloads beside the demo's."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.environments import PROJECT_ROOT
from pipelines.strategies import FRAMEWORKS

TANDEM = Path(sys.executable).with_name("tandem")
SMALL = {
    "text": [
        "training.steps=40",
        "training.batch_size_per_worker=8",
        "data.text.sequence_length=32",
        "workload.thresholds.eval_perplexity=100",
    ],
    "tabular": [
        "training.steps=60",
        "data.synthetic.rows=20000",
        "workload.thresholds.eval_auc=0.6",
    ],
}
WORKERS = {"text": 2, "tabular": 1}
"""On which a DAG's training step trains."""
METRICS = {"text": {"eval_loss", "eval_perplexity"}, "tabular": {"eval_loss", "eval_auc"}}


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.both_frameworks,
]


@pytest.fixture(scope="module", params=list(SMALL))
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, dict[str, Any]]]:
    """A workload, and what ``tandem pipeline`` says of each framework's DAG."""
    workload: str = request.param
    folder = tmp_path_factory.mktemp(workload)
    settings = [f"output={folder / 'out'}", "training.warmup_steps=5", *SMALL[workload]]
    options = [word for setting in settings for word in ("--set", setting)]
    config = PROJECT_ROOT / "configs" / f"{workload}.yaml"
    found = {}
    for framework in FRAMEWORKS:
        command = [str(TANDEM), "pipeline", framework, "--json", "--config", str(config), *options]
        command += ["--workers", str(WORKERS[workload])]
        environment = {**os.environ, "NO_COLOR": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found[framework] = json.loads(done.stdout)
        # Workers of their own print through the step, whose output is the DAG's log.
        log = (folder / "out" / "pipelines" / framework / "logs" / "rank0.log").read_text()
        trained = {rank for rank in range(4) if f"[rank{rank}] " in log}
        assert trained == (set(range(WORKERS[workload])) if WORKERS[workload] > 1 else set())
    return workload, found


def test_both_pipelines_judge_by_the_workloads_metrics_and_publish(
    results: tuple[str, dict[str, dict[str, Any]]],
) -> None:
    workload, found = results

    for result in found.values():
        assert set(result["metrics"]) == METRICS[workload]
        assert result["blessed"]
        assert Path(result["pushed_to"]).is_dir()


def test_both_pipelines_models_are_about_as_good(
    results: tuple[str, dict[str, dict[str, Any]]],
) -> None:
    # Each trains on its own transform's order of examples, so they are alike, not the same.
    _, found = results

    losses = [result["metrics"]["eval_loss"] for result in found.values()]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
