from collections.abc import Callable

from pipelines.cell import Cell, cell_params, run_identity
from pipelines.config import Config
from pipelines.ingest import Dataset
from pipelines.runs import KIND_TAG, RunRecord, comparable_fields
from pipelines.strategies import Framework


def record(tags: dict[str, str]) -> RunRecord:
    return RunRecord(run_id="1", name="a run", status="FINISHED", start_time=0.0, tags=tags)


def test_a_runs_kind_is_read_from_its_tag() -> None:
    assert record({KIND_TAG: "cell"}).kind == "cell"
    assert record({KIND_TAG: "summary", "other": "tag"}).kind == "summary"


def test_a_strangers_run_has_no_kind() -> None:
    assert record({"mlflow.user": "somebody"}).kind == ""


def test_runs_share_no_values_by_default() -> None:
    one = RunRecord("1", "one", "FINISHED", 0.0)
    one.metrics["train_loss"] = 1.0

    assert RunRecord("2", "two", "FINISHED", 0.0).metrics == {}


def test_every_field_that_runs_are_compared_by_is_logged_with_each_run(
    quickstart: Config, digits: Dataset
) -> None:
    params = cell_params(quickstart, digits.manifest, Cell("torch", "ddp", workers=2))

    # The framework itself knows its build; all else is logged the same for both.
    assert set(comparable_fields("weak")) - set(params) == {"software_build"}
    assert "global_batch_size" in comparable_fields("strong")


def test_a_cells_parameters_say_what_was_trained_on_what(
    quickstart: Config, digits: Dataset
) -> None:
    cell = Cell("tf", "multi_worker_mirrored", workers=2, repeat=1)

    params = cell_params(quickstart, digits.manifest, cell)

    assert cell.name == "tf multi_worker_mirrored x2 #2"
    assert params["workload"] == "vision/tiny"
    assert params["dataset_fingerprint"] == digits.manifest.fingerprint
    assert params["dataset_rows"] == 1797
    assert params["batch_size_per_worker"] == 16
    assert params["global_batch_size"] == 32
    assert params["config_sha256"] == quickstart.digest()


def test_two_cells_of_one_study_agree_in_every_compared_field(
    quickstart: Config, digits: Dataset
) -> None:
    one = cell_params(quickstart, digits.manifest, Cell("torch", "ddp", workers=1))
    two = cell_params(quickstart, digits.manifest, Cell("tf", "one_device", 2, repeat=1))

    assert [name for name in comparable_fields("weak") if one.get(name) != two.get(name)] == []


def test_a_run_that_would_train_otherwise_is_another_run(
    load_quickstart: Callable[..., Config], digits: Dataset
) -> None:
    def identity(*overrides: str) -> dict[str, str]:
        config = load_quickstart("torch.strategy=fsdp", *overrides)
        return run_identity(config, digits.manifest, Cell("torch", "fsdp", workers=2))

    for override in (
        "training.steps=13",
        "training.seed=1",
        "training.batch_size_per_worker=8",
        "training.optimizer.learning_rate=0.1",
        "training.precision=bfloat16",
        "data.shuffle_buffer=7",
        "data.reader=native",
        "workload.vision.normalization=batch",
        "torch.fsdp.sharding=hybrid",
    ):
        assert identity(override) != identity(), override


def test_what_does_not_change_the_training_does_not_make_it_another_run(
    load_quickstart: Callable[..., Config], digits: Dataset
) -> None:
    def identity(*overrides: str) -> dict[str, str]:
        return run_identity(load_quickstart(*overrides), digits.manifest, Cell("torch", "ddp", 2))

    for override in ("name=other", "checkpoint.every_steps=3", "torch.timeout_seconds=9"):
        assert identity(override) == identity(), override


def test_a_run_may_go_on_with_other_workers_as_long_as_they_share_the_same_batch(
    load_quickstart: Callable[..., Config], digits: Dataset
) -> None:
    two = load_quickstart("training.batch_size_per_worker=16")
    four = load_quickstart("training.batch_size_per_worker=8")

    begun = run_identity(two, digits.manifest, Cell("torch", "ddp", workers=2))

    assert run_identity(four, digits.manifest, Cell("torch", "ddp", workers=4)) == begun
    assert run_identity(two, digits.manifest, Cell("torch", "ddp", workers=4)) != begun


def test_a_run_whose_state_or_batches_depend_on_the_workers_keeps_their_number(
    load_quickstart: Callable[..., Config], digits: Dataset
) -> None:
    cases: tuple[tuple[Framework, str, str], ...] = (
        ("torch", "deepspeed_zero2", "torch.strategy=deepspeed_zero2"),
        ("tf", "parameter_server", "tf.strategy=parameter_server"),
        ("torch", "ddp", "data.reader=native"),
    )
    for framework, strategy, override in cases:
        two = load_quickstart(override, "training.batch_size_per_worker=16")
        four = load_quickstart(override, "training.batch_size_per_worker=8")

        begun = run_identity(two, digits.manifest, Cell(framework, strategy, workers=2))

        assert begun["workers"] == "2", strategy
        assert run_identity(four, digits.manifest, Cell(framework, strategy, workers=4)) != begun
