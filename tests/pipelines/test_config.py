from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipelines.config import Config, load_config, parse_config
from pipelines.environments import PROJECT_ROOT
from pipelines.errors import InputError
from pipelines.prices import DEFAULT_PRICES
from pipelines.scorecard_config import CRITERIA

SHIPPED = sorted(set((PROJECT_ROOT / "configs").glob("*.yaml")) - {DEFAULT_PRICES})
"""All of the folder but the prices, which are no study."""
WriteConfig = Callable[[str], Path]


@pytest.fixture
def write_config(tmp_path: Path) -> WriteConfig:
    def write(text: str) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(text)
        return path

    return write


def refusal(path: Path, *overrides: str) -> str:
    """The message of the error that loading ends with: always one line."""
    with pytest.raises(InputError) as raised:
        load_config(path, list(overrides))
    message = str(raised.value)
    assert len(message.splitlines()) == 1, message
    return message


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_config_loads_and_is_named_after_its_file(path: Path) -> None:
    assert load_config(path).name == path.stem


def test_quickstart_is_shipped() -> None:
    assert "quickstart.yaml" in [path.name for path in SHIPPED]


def test_a_name_is_all_that_a_config_must_give(write_config: WriteConfig) -> None:
    config = load_config(write_config("name: small"))

    assert (config.workload.name, config.workload.preset) == ("vision", "tiny")
    assert config.workload.thresholds == {}
    assert (config.data.source, config.data.reader, config.data.rows_per_shard) == (
        "digits",
        "shared",
        262_144,
    )
    assert (config.data.splits.train, config.data.splits.eval) == (0.8, 0.2)
    assert (config.training.steps, config.training.warmup_steps) == (200, 20)
    assert config.training.optimizer.learning_rate == 1e-3
    assert config.study.workers == [1, 2]
    assert config.study.repeats == 3
    assert config.strategy("tf") == "multi_worker_mirrored"
    assert config.strategy("torch") == "ddp"
    assert (config.checkpoint.every_steps, config.checkpoint.every_minutes) == (None, None)
    assert (config.checkpoint.keep, config.checkpoint.asynchronous) == (3, False)
    assert config.torch.timeout_seconds is None


def test_folders_and_the_tracking_store_follow_the_output_folder(write_config: WriteConfig) -> None:
    config = load_config(write_config("name: small"), ["output=/elsewhere/here"])

    assert config.dataset_dir == Path("/elsewhere/here/data")
    assert config.tracking_uri == "sqlite:////elsewhere/here/mlflow.db"


def test_folders_and_the_tracking_store_can_be_named_one_by_one(write_config: WriteConfig) -> None:
    config = load_config(
        write_config("name: small"), ["data.output=rows", "tracking.uri=http://tracking:5000"]
    )

    assert config.dataset_dir == Path("rows")
    assert config.tracking_uri == "http://tracking:5000"


def test_the_global_batch_grows_with_the_workers(write_config: WriteConfig) -> None:
    config = load_config(write_config("name: small"), ["training.batch_size_per_worker=24"])

    assert [config.global_batch_size(workers) for workers in (1, 2, 4)] == [24, 48, 96]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("name=other", ("name", "other")),
        ("training.steps=33", ("training", "steps", 33)),
        ("training.optimizer.learning_rate=1e-2", ("training", "optimizer", "learning_rate", 0.01)),
        ("study.workers=[1, 2, 4]", ("study", "workers", [1, 2, 4])),
        ("data.splits={train: 0.9, eval: 0.1}", ("data", "splits", {"train": 0.9, "eval": 0.1})),
        (
            "workload.thresholds.eval_accuracy=0.5",
            ("workload", "thresholds", {"eval_accuracy": 0.5}),
        ),
        ("tracking.uri=http://host:1/a=b", ("tracking", "uri", "http://host:1/a=b")),
        ("tracking.uri=null", ("tracking", "uri", None)),
    ],
)
def test_an_override_replaces_the_files_value(
    write_config: WriteConfig, override: str, expected: tuple[object, ...]
) -> None:
    config = load_config(write_config("name: small\ntraining: {steps: 99}"), [override])

    found = config.model_dump(mode="json")
    for key in expected[:-1]:
        found = found[key]
    assert found == expected[-1]


def test_an_override_leaves_its_sections_other_fields_alone(write_config: WriteConfig) -> None:
    path = write_config("name: small\ntraining: {steps: 99, seed: 7}")

    config = load_config(path, ["training.steps=50"])

    assert (config.training.steps, config.training.seed) == (50, 7)


def test_of_two_overrides_of_a_field_the_later_one_counts(write_config: WriteConfig) -> None:
    config = load_config(write_config("name: a"), ["training.steps=50", "training.steps=60"])

    assert config.training.steps == 60


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("training.steps", "must read section.field=value"),
        ("=3", "must read section.field=value"),
        ("training..steps=3", "must read section.field=value"),
        (".steps=3", "must read section.field=value"),
        ("study.workers=[1, 2", "the value is not valid YAML"),
        ("name=2024-99-99", "the value is not valid YAML"),
        ("name.first=a", "'name' is not a section"),
    ],
)
def test_a_malformed_override_is_named_in_the_error(
    write_config: WriteConfig, override: str, complaint: str
) -> None:
    message = refusal(write_config("name: small"), override)

    assert message == f"--set {override}: {complaint}"


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("training.stepz=3", "training.stepz: unknown key; did you mean 'steps'?"),
        (
            "training.optimizer.learning_rat=3",
            "training.optimizer.learning_rat: unknown key; did you mean 'learning_rate'?",
        ),
        (
            "torch.zzz=3",
            "torch.zzz: unknown key; known keys: strategy, timeout_seconds, ddp, fsdp, deepspeed",
        ),
        ("traning.steps=3", "traning: unknown key; did you mean 'training'?"),
        (
            "training.batch_size_per_worker=-4",
            "training.batch_size_per_worker: input should be greater than 0, not -4",
        ),
        (
            "training.batch_size_per_worker=many",
            "training.batch_size_per_worker: input should be a valid integer, "
            "unable to parse string as an integer, not 'many'",
        ),
        (
            "checkpoint.every_steps=0",
            "checkpoint.every_steps: input should be greater than 0, not 0",
        ),
        ("checkpoint.keep=0", "checkpoint.keep: input should be greater than 0, not 0"),
        ("checkpoint.every=5", "checkpoint.every: unknown key; did you mean 'every_steps'?"),
        ("study.workers=[1, 0]", "study.workers.1: input should be greater than 0, not 0"),
        (
            "data.source=cifar",
            "data.source: input should be 'digits', 'synthetic', 'csv', 'parquet', 'tfrecord', "
            "'images' or 'text', not 'cifar'",
        ),
        ("data.source=csv", "data: source 'csv' needs a path: a file, glob or URL"),
        ("data.path=a.csv", "data: source 'digits' reads no files; leave path out"),
        ("name=null", "name: input should be a valid string, not None"),
        (
            "training.steps=20",
            "training: steps (20) must exceed warmup_steps (20), or nothing is left to time",
        ),
        ("data.splits.train=0.7", "data.splits: train + eval must be 1, not 0.9"),
        (
            "tf.strategy=ddp",
            "tf.strategy: TensorFlow has no strategy 'ddp'; "
            "it has: one_device, mirrored, multi_worker_mirrored, parameter_server, tpu",
        ),
        (
            "torch.strategy=mirrored",
            "torch.strategy: PyTorch has no strategy 'mirrored'; "
            "it has: single, ddp, fsdp, deepspeed_zero1, deepspeed_zero2, deepspeed_zero3",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_file_field_and_mend(
    write_config: WriteConfig, override: str, complaint: str
) -> None:
    path = write_config("name: small")

    assert refusal(path, override) == f"{path}: {complaint}"


@pytest.mark.parametrize(
    "override",
    [
        "training.optimizer.learning_rate=.nan",
        "training.optimizer.learning_rate=.inf",
        "training.optimizer.weight_decay=.inf",
        "workload.thresholds.eval_accuracy=.nan",
        "checkpoint.every_minutes=.inf",
    ],
)
def test_a_number_that_is_not_finite_is_refused(write_config: WriteConfig, override: str) -> None:
    path = write_config("name: small")

    assert refusal(path, override).startswith(f"{path}: {override.partition('=')[0]}: ")


@pytest.mark.parametrize(
    ("framework", "strategy"),
    [("tf", "one_device"), ("torch", "single")],
)
def test_a_single_worker_strategy_is_refused_for_two_workers(
    write_config: WriteConfig, framework: str, strategy: str
) -> None:
    path = write_config("name: small")
    override = f"{framework}.strategy={strategy}"

    message = refusal(path, override, "study.workers=[1, 2]")

    assert message.startswith(f"{path}: ")
    assert f"{framework}.strategy '{strategy}' runs one worker" in message
    assert "study.workers asks for 2" in message
    assert load_config(path, [override, "study.workers=[1]"]).study.workers == [1]


@pytest.mark.parametrize("override", ["study.workers=[1, 2, 1]", "study.scaling=[weak, weak]"])
def test_a_cell_that_would_be_measured_twice_is_refused(
    write_config: WriteConfig, override: str
) -> None:
    path = write_config("name: small")

    assert refusal(path, override).startswith(f"{path}: {override.partition('=')[0]}: ")


@pytest.mark.parametrize("name", ["", "two words", "-dash", "a/b", "a\nb"])
def test_a_name_that_cannot_name_a_folder_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"^here: name: string should match pattern") as raised:
        parse_config({"name": name}, "here")
    assert len(str(raised.value).splitlines()) == 1


def test_a_missing_name_is_said_to_be_required(write_config: WriteConfig) -> None:
    path = write_config("training: {steps: 50}")

    assert refusal(path) == f"{path}: name: required, but not given"


def test_several_errors_are_counted_and_listed_in_one_line(write_config: WriteConfig) -> None:
    path = write_config("name: small\ntraining: {steps: 0, seed: -1}\nmood: blue")

    message = refusal(path)

    assert message.startswith(
        f"{path}: training.steps: input should be greater than 0, not 0 (and 2 more: "
    )
    assert "training.seed: input should be greater than or equal to 0, not -1" in message
    assert "mood: unknown key; known keys: name, output, " in message


def test_a_missing_file_is_named_with_where_to_find_others(tmp_path: Path) -> None:
    path = tmp_path / "absent.yaml"

    assert refusal(path) == f"{path}: no such file; shipped configs are in configs/"


def test_a_folder_is_no_config(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith(f"{tmp_path}: cannot be read: ")


def test_bytes_that_are_no_text_are_no_config(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(b"name: \xff\xfe\n")

    assert refusal(path).startswith(f"{path}: cannot be read: ")


def test_a_section_that_stands_twice_is_refused_and_not_half_forgotten(
    write_config: WriteConfig,
) -> None:
    path = write_config("name: a\ncluster:\n  workers_per_pod: 4\ncluster: {namespace: b}\n")

    assert refusal(path) == (
        f"{path}: not valid YAML: 'cluster' stands in line 2 and again in line 4; put both into one"
    )


def test_what_a_merged_mapping_gives_may_be_given_again(write_config: WriteConfig) -> None:
    text = "name: a\ntraining:\n  <<: {steps: 50, seed: 7}\n  steps: 60\n"

    config = load_config(write_config(text))

    assert (config.training.steps, config.training.seed) == (60, 7)


@pytest.mark.parametrize(
    "text",
    ["name: [unclosed", "name: a\n  b: c\n d: e", "name: @a", "name: a\x00", "name: 2024-99-99"],
)
def test_text_that_is_no_yaml_is_refused(write_config: WriteConfig, text: str) -> None:
    path = write_config(text)

    assert refusal(path).startswith(f"{path}: not valid YAML: ")


@pytest.mark.parametrize("text", ["", "- name: small", "small", "3"])
def test_yaml_that_is_no_mapping_is_refused(write_config: WriteConfig, text: str) -> None:
    path = write_config(text)

    assert refusal(path) == f"{path}: must be a mapping of sections, such as 'name: quickstart'"


def test_a_section_that_is_no_mapping_is_refused(write_config: WriteConfig) -> None:
    path = write_config("name: small\ntraining: fast")

    assert refusal(path).startswith(f"{path}: training: ")


def test_a_config_cannot_be_changed_once_it_is_checked() -> None:
    config = parse_config({"name": "small"}, "here")

    with pytest.raises(ValueError, match="frozen"):
        config.training.steps = 1


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "output=elsewhere",
        "workload.thresholds.eval_accuracy=0.5",
        "data.splits={train: 0.7, eval: 0.3}",
        "data.reader=native",
        "training.steps=201",
        "training.optimizer.weight_decay=0.1",
        "tf.strategy=one_device",
        "torch.strategy=single",
        "study.repeats=4",
    ],
)
def test_the_digest_changes_with_every_value(write_config: WriteConfig, override: str) -> None:
    path = write_config("name: small\nstudy: {workers: [1]}")
    config, changed = load_config(path), load_config(path, [override])

    assert changed.digest() != config.digest()


def test_the_digest_depends_on_values_alone_not_on_how_they_were_written(
    write_config: WriteConfig, tmp_path: Path
) -> None:
    config = load_config(write_config("name: small\ntraining: {steps: 200, seed: 0}"))
    written_otherwise = tmp_path / "other.yaml"
    written_otherwise.write_text("# a comment\ntraining:\n  seed: 0\nname: 'small'\n")

    assert load_config(written_otherwise).digest() == config.digest()
    assert len(config.digest()) == 64


def test_criteria_that_are_not_named_weigh_the_same(write_config: WriteConfig) -> None:
    text = "name: small\nscorecard: {weights: {ecosystem: 2, debugging: 0}}"
    scorecard = load_config(write_config(text)).scorecard

    assert scorecard.weight("ecosystem") == 2
    assert scorecard.weight("debugging") == 0
    assert scorecard.weight("stability") == 1


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("{ecosytem: 2}", "scorecard.weights.ecosytem: input should be 'production_readiness', "),
        ("{ecosystem: -1}", "scorecard.weights.ecosystem: input should be greater than or equal"),
    ],
)
def test_a_weight_that_cannot_be_is_named(
    write_config: WriteConfig, weights: str, message: str
) -> None:
    path = write_config("name: small")

    assert refusal(path, f"scorecard.weights={weights}").startswith(f"{path}: {message}")


def test_something_must_weigh(write_config: WriteConfig) -> None:
    path = write_config("name: small")
    nothing = ", ".join(f"{criterion}: 0" for criterion in CRITERIA)

    assert refusal(path, f"scorecard.weights={{{nothing}}}") == (
        f"{path}: scorecard: weights: at least one criterion must weigh something"
    )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_dumped_config_loads_as_the_same_config(path: Path, tmp_path: Path) -> None:
    config = load_config(path, ["workload.thresholds.eval_accuracy=0.5", "data.output=a b/Zürich"])

    written = config.dump(tmp_path / "new" / "folder" / "config.yaml")

    assert load_config(written) == config
    assert load_config(written).digest() == config.digest()


def test_a_tracking_servers_password_is_shown_to_its_workers_alone(tmp_path: Path) -> None:
    uri = "postgresql+psycopg2://tandem:s3cret@db/runs"
    config = parse_config({"name": "small", "tracking": {"uri": uri}}, "here")

    assert config.child_variables["MLFLOW_TRACKING_URI"] == uri
    assert config.shown_tracking_uri == "postgresql+psycopg2://***@db/runs"
    assert "s3cret" not in config.dump(tmp_path / "config.yaml").read_text()
    assert config.digest() == parse_config({"name": "small"}, "here").digest()


def test_a_dump_states_every_field_also_those_left_to_default(tmp_path: Path) -> None:
    written = parse_config({"name": "small"}, "here").dump(tmp_path / "config.yaml")

    stated = yaml.safe_load(written.read_text())

    assert list(stated) == [field for field in Config.model_fields if field != "tracking"]
    assert stated["training"]["optimizer"] == {
        "name": "adamw",
        "learning_rate": 0.001,
        "momentum": 0.9,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-8,
        "weight_decay": 0.0,
        "clip_norm": None,
    }


def test_what_is_written_down_holds_no_credentials_of_a_source(tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text(
        "name: s\ndata:\n  source: csv\n  path: ['https://me:word@host/a.csv?sig=word', b.csv]\n"
        "  runner: {name: dask, options: ['--dask_client_address=tls://me:word@host:1']}\n"
    )
    config = load_config(path)

    assert config.data.path == ["https://me:word@host/a.csv?sig=word", "b.csv"]
    assert "word" not in config.dump(tmp_path / "dumped.yaml").read_text()
    written = config.without_secrets()["data"]
    assert written["path"] == ["https://host/a.csv", "b.csv"]
    assert written["runner"]["options"] == ["--dask_client_address=tls://host:1"]
