"""Real workers of both frameworks, on the quickstart's network at a small batch."""

import json
from collections.abc import Callable, Iterator

import pytest

from pipelines import tracking
from pipelines.anatomy import measure_anatomy
from pipelines.cell import Cell
from pipelines.cluster import Layout
from pipelines.config import Config, load_config
from pipelines.environments import PROJECT_ROOT
from pipelines.errors import InputError, WorkError
from pipelines.ingest import Dataset, ingest
from pipelines.launch import launch
from pipelines.run_folder import RESULT_NAME
from pipelines.runs import ALL_REDUCE_TAG, RunRecord
from pipelines.step_parts import StepParts, step_parts
from pipelines.strategies import Framework
from pipelines.training_run import Listener

STUDY = "20250601T120000Z"
TIMED_STEPS = 10
OF_THE_STEP = {"lone_step_seconds", "lone_data_wait_seconds", "compute_step_seconds"}
OF_THE_EXCHANGE = {"all_reduce_latency_seconds", "all_reduce_seconds_per_byte"}
LATE_SECONDS = 0.05
"""By which the faults slow a step down."""


def measured(config: Config, dataset: Dataset, cell: Cell) -> RunRecord:
    folder = config.output / "studies" / STUDY
    steps: list[int] = []
    listener = Listener(on_progress=lambda cell, step, steps_in_all: steps.append(step))
    run_id = measure_anatomy(config, dataset, cell, STUDY, folder, listener)
    [run] = tracking.read_runs(config)
    assert run.run_id == run_id
    assert steps[:2] == [0, 1]
    return run


@pytest.mark.slow
@pytest.mark.both_frameworks
@pytest.mark.parametrize(
    ("framework", "strategy"), [("tf", "multi_worker_mirrored"), ("torch", "ddp")]
)
def test_two_workers_steps_and_their_all_reduce_are_measured(
    config: Config, digits: Dataset, framework: Framework, strategy: str
) -> None:
    run = measured(config, digits, Cell(framework, strategy, 2))

    figures = {name: value for name, value in run.metrics.items() if "/" not in name}
    assert set(figures) == OF_THE_STEP | OF_THE_EXCHANGE | {"wall_seconds"}
    assert all(value >= 0 for value in figures.values())
    assert figures["all_reduce_seconds_per_byte"] > 0
    assert 0 < figures["lone_data_wait_seconds"] < figures["lone_step_seconds"]
    # A few steps on a busy machine, so with room: one is a part of the other.
    assert 0 < figures["compute_step_seconds"] < 2 * figures["lone_step_seconds"]
    by_size = {int(size): seconds for size, seconds in json.loads(run.tags[ALL_REDUCE_TAG]).items()}
    assert [*by_size] == [2**10, 2**13, 2**16, 2**19, 2**22]
    assert all(seconds > 0 for seconds in by_size.values())
    assert (run.kind, run.status) == ("anatomy", "FINISHED")
    assert run.name == f"{framework} {strategy} x2 anatomy"
    assert run.params["parameters"] == "19562"
    assert run.params["global_batch_size"] == "32"
    assert run.params["strategy"] == strategy
    assert {"framework_version", "software_build", "training_flops_per_example"} <= set(run.params)


def test_one_worker_has_no_all_reduce_whatever_its_strategy(
    configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("torch.strategy=fsdp", "training.precision=bfloat16")

    run = measured(config, digits, Cell("torch", "fsdp", 1))

    assert {name for name in run.metrics if "/" not in name} == OF_THE_STEP | {"wall_seconds"}
    assert ALL_REDUCE_TAG not in run.tags
    assert run.name == "torch fsdp x1 anatomy"


def test_an_anatomy_whose_worker_fails_is_marked_so(
    write_worker: Callable[..., None], config: Config, digits: Dataset
) -> None:
    write_worker("print('ValueError: no memory'); sys.exit(3)", "torch")

    with pytest.raises(WorkError, match="ValueError: no memory"):
        measured(config, digits, Cell("torch", "ddp", 2))

    [run] = tracking.read_runs(config)
    assert (run.kind, run.status) == ("anatomy", "FAILED")


def test_the_cores_of_a_tpu_are_refused_before_anything_is_tracked(
    configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("tf.strategy=tpu")

    with pytest.raises(InputError, match=r"^tf\.strategy: "):
        measured(config, digits, Cell("tf", "tpu", 2))

    assert not (config.output / "studies").exists()


Split = Callable[[str], StepParts]


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Split]:
    """A step's parts of two workers whose program is a module of tests/faults."""
    folder = tmp_path_factory.mktemp("split")
    quickstart = PROJECT_ROOT / "configs" / "quickstart.yaml"
    small = ["training.steps=12", "training.warmup_steps=2", "training.batch_size_per_worker=16"]
    config = load_config(quickstart, [f"output={folder}", *small])
    ingest(config)
    tracking.prepare_store(config)

    def run(module: str) -> StepParts:
        found = {}
        for variant in ("cell", "alone"):
            output = folder / module / variant
            output.mkdir(parents=True)
            resolved = config.dump(output / "config.yaml")
            arguments = ["train", "--config", str(resolved), "--output", str(output)]
            launch(
                "torch",
                arguments + (["--anatomy", variant] if variant != "cell" else []),
                logs=output,
                layout=Layout(workers=2),
                environment=config.child_variables,
                module=module,
            )
            found[variant] = json.loads((output / RESULT_NAME).read_text())["metrics"]
        return step_parts(found["cell"], found["alone"], TIMED_STEPS)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{PROJECT_ROOT}:{PROJECT_ROOT / 'tests' / 'faults'}")
        yield run


@pytest.mark.slow
def test_a_slow_reader_is_found_in_the_wait_for_input(split: Split) -> None:
    parts = split("torch_slow_reader")

    assert parts.input_seconds is not None
    assert parts.input_seconds > 0.95 * LATE_SECONDS


@pytest.mark.slow
def test_a_slow_all_reduce_is_found_in_the_communication(split: Split) -> None:
    parts = split("torch_slow_all_reduce")

    assert parts.communication_seconds > 0.5 * LATE_SECONDS
    assert parts.communication_seconds > parts.input_seconds
