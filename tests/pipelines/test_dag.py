import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipelines import dag
from pipelines.config import Config
from pipelines.dag import STAGES, PipelineResult, Stage, cache_key

STAGE_OF: dict[str, Stage] = {
    "ExampleGen": "validate",
    "StatisticsGen": "validate",
    "Transform": "transform",
    "Trainer": "train",
    "Evaluator": "evaluate",
    "Pusher": "push",
}


def collect(components: dict[str, float]) -> PipelineResult:
    return PipelineResult.collect(
        components,
        STAGE_OF,
        cached=["Transform"],
        blessed=True,
        metrics={"eval_accuracy": 0.97},
        pushed_to="serving/1",
        processes=6,
    )


def test_components_add_up_to_their_stages() -> None:
    result = collect({"ExampleGen": 1.5, "StatisticsGen": 2.25, "Transform": 4.0, "Trainer": 8.0})

    assert result.stages == {
        "validate": 3.75,
        "transform": 4.0,
        "train": 8.0,
        "evaluate": 0.0,
        "push": 0.0,
    }
    assert sum(result.stages.values()) == sum(result.components.values())


def test_stages_and_components_keep_their_order() -> None:
    result = collect({"Trainer": 8.0, "ExampleGen": 1.5})

    assert list(result.components) == ["Trainer", "ExampleGen"]
    assert tuple(result.stages) == STAGES


def test_a_component_without_a_stage_is_refused() -> None:
    with pytest.raises(KeyError, match="Tuner"):
        collect({"Tuner": 1.0})


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    result = collect({"ExampleGen": 0.1, "Pusher": 0.2})

    result.write(tmp_path)

    assert PipelineResult.read(tmp_path) == result
    assert [path.name for path in tmp_path.iterdir()] == [dag.RESULT_NAME]


def test_a_result_of_a_model_that_was_not_blessed_names_no_folder(tmp_path: Path) -> None:
    result = PipelineResult.collect(
        {}, {}, cached=[], blessed=False, metrics={}, pushed_to=None, processes=0
    )
    result.write(tmp_path)

    assert PipelineResult.read(tmp_path).pushed_to is None


def test_a_result_with_fields_of_its_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / dag.RESULT_NAME).write_text('{"components": {}, "speed": 3}')

    with pytest.raises(ValidationError, match="speed"):
        PipelineResult.read(tmp_path)


def test_the_cache_key_is_the_same_for_the_same_work(quickstart: Config) -> None:
    key = cache_key("torch_pipeline", quickstart, "ab12")

    assert key == cache_key("torch_pipeline", quickstart, "ab12")
    assert len(key) == 64


@pytest.mark.parametrize(
    "override",
    [
        "training.seed=5",
        "training.steps=13",
        "training.optimizer.learning_rate=0.5",
        "workload.thresholds.eval_accuracy=0.1",
    ],
)
def test_the_cache_key_changes_with_the_settings_of_a_step(
    load_quickstart: Callable[..., Config], override: str
) -> None:
    key = cache_key("torch_pipeline", load_quickstart(), "ab12")

    assert cache_key("torch_pipeline", load_quickstart(override), "ab12") != key


@pytest.mark.parametrize(
    "override",
    [
        "study.workers=[1]",
        "study.repeats=9",
        "name=other",
        "output=elsewhere",
        "tracking.uri=http://x:1",
    ],
)
def test_the_cache_key_ignores_settings_that_no_step_reads(
    load_quickstart: Callable[..., Config], override: str
) -> None:
    key = cache_key("torch_pipeline", load_quickstart(), "ab12")

    assert cache_key("torch_pipeline", load_quickstart(override), "ab12") == key


def test_the_cache_key_changes_with_the_data(quickstart: Config) -> None:
    assert cache_key("torch_pipeline", quickstart, "ab12") != cache_key(
        "torch_pipeline", quickstart, "ab13"
    )


def test_the_cache_key_changes_with_the_frameworks_code_and_with_shared_code(
    quickstart: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dag, "PROJECT_ROOT", tmp_path)
    for package in ("tf_pipeline", "torch_pipeline", "pipelines/workloads", "pipelines/ingest"):
        (tmp_path / package).mkdir(parents=True)
        (tmp_path / package / "code.py").write_text("STEP = 1\n")
    before = {
        name: cache_key(name, quickstart, "ab12") for name in ("tf_pipeline", "torch_pipeline")
    }

    (tmp_path / "tf_pipeline" / "code.py").write_text("STEP = 2\n")
    after = {name: cache_key(name, quickstart, "ab12") for name in before}
    assert after["tf_pipeline"] != before["tf_pipeline"]
    assert after["torch_pipeline"] == before["torch_pipeline"]

    seen = {before["torch_pipeline"]}
    for file in ("pipelines/workloads/code.py", "pipelines/schedule.py"):
        (tmp_path / file).write_text("STEP = 2\n")
        seen.add(cache_key("torch_pipeline", quickstart, "ab12"))
    assert len(seen) == 3


def test_the_cache_key_changes_with_what_is_installed(
    quickstart: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = cache_key("torch_pipeline", quickstart, "ab12")

    monkeypatch.setattr(dag, "installed_digest", lambda python: f"other packages of {python}")

    other = cache_key("torch_pipeline", quickstart, "ab12")
    assert other != key
    monkeypatch.setattr(sys, "executable", "/another/python")
    assert cache_key("torch_pipeline", quickstart, "ab12") not in (key, other)
