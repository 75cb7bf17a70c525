from pipelines.cell import Cell, cell_params
from pipelines.config import Config
from pipelines.ingest import Dataset
from pipelines.runs import COMPARABLE_FIELDS, KIND_TAG, RunRecord


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
    assert set(COMPARABLE_FIELDS) - set(params) == {"software_build"}
    assert len(set(COMPARABLE_FIELDS)) == len(COMPARABLE_FIELDS)


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

    assert [name for name in COMPARABLE_FIELDS if one.get(name) != two.get(name)] == []
