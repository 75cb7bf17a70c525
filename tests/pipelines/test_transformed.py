import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines import transformed
from pipelines.cluster_config import CLUSTER_VARIABLE, ClusterConfig, ImagesConfig
from pipelines.config import Config
from pipelines.errors import InputError, WorkError
from pipelines.ingest import Dataset, ingest
from pipelines.transformed import transformed_examples

Write = Callable[..., None]

TRANSFORMS = """
assert sys.argv[1] == "transform"
with Path("transformed.txt").open("a") as calls:
    calls.write("once\\n")
(output / "train.records").write_text("1 2 3")
"""


def test_a_frameworks_own_transform_runs_once_for_all_cells(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("data.reader=native")
    write_worker(TRANSFORMS, "torch")

    folder = transformed_examples(config, digits, "torch")
    again = transformed_examples(config, digits, "torch")

    assert folder is not None
    assert folder == again
    assert folder.parent == config.output / "transformed"
    assert folder.name.startswith("torch-")
    assert (folder / "train.records").read_text() == "1 2 3"
    assert Path("transformed.txt").read_text() == "once\n"
    assert [*folder.parent.iterdir()] == [folder]


def test_examples_of_other_labels_are_others_though_the_data_is_the_same(
    write_worker: Write, configure: Callable[..., Config], tmp_path: Path
) -> None:
    rows = [f"{fare}.5,{fare % 7},{fare % 3}" for fare in range(5, 105)]
    (tmp_path / "taxi.csv").write_text("\n".join(["fare,tips,miles", *rows]))
    taxi = [
        f"data={{source: csv, path: {tmp_path / 'taxi.csv'}, label: tips, reader: native}}",
        "workload={name: tabular, tabular: {positive_over: {column: fare, share: 0.1}}}",
    ]
    config = configure(*taxi)
    other = configure(*taxi, "workload.tabular.positive_over.share=0.2")
    dataset, _ = ingest(config)
    again, reused = ingest(other)
    write_worker(TRANSFORMS, "torch")

    folders = [
        transformed_examples(config, dataset, "torch"),
        transformed_examples(other, again, "torch"),
    ]

    assert reused
    assert dataset.manifest.fingerprint == again.manifest.fingerprint
    assert folders[0] != folders[1]
    assert Path("transformed.txt").read_text() == "once\nonce\n"


@pytest.mark.parametrize("made_by", ["code_digest", "installed_digest"])
def test_examples_of_other_code_or_of_another_release_are_others(
    write_worker: Write,
    configure: Callable[..., Config],
    digits: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    made_by: str,
) -> None:
    config = configure("data.reader=native")
    write_worker(TRANSFORMS, "torch")
    folder = transformed_examples(config, digits, "torch")

    monkeypatch.setattr(transformed, made_by, lambda *_: "another")

    assert transformed_examples(config, digits, "torch") != folder
    assert Path("transformed.txt").read_text() == "once\nonce\n"


def test_settings_that_no_transform_reads_leave_the_examples_what_they_are(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    write_worker(TRANSFORMS, "torch")
    folder = transformed_examples(configure("data.reader=native"), digits, "torch")

    other = configure("data.reader=native", "training.seed=5", "workload.preset=small")

    assert transformed_examples(other, digits, "torch") == folder


def test_in_a_step_on_a_cluster_the_image_stands_for_the_framework_it_does_not_have(
    configure: Callable[..., Config],
    digits: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = configure("data.reader=native")
    made = []
    monkeypatch.setattr(transformed, "launch", lambda framework, *_, **__: made.append(framework))
    monkeypatch.setenv("TANDEM_TF_PYTHON", "/not/here")

    for tag in ("0.1.0", "0.1.0", "0.2.0"):
        cluster = ClusterConfig(images=ImagesConfig(tag=tag))
        monkeypatch.setenv(CLUSTER_VARIABLE, cluster.model_dump_json())
        transformed_examples(config, digits, "tf")

    assert made == ["tf", "tf"]


@pytest.mark.parametrize("left", [None, "{}"])
def test_examples_that_do_not_say_what_they_were_made_of_are_refused(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset, left: str | None
) -> None:
    config = configure("data.reader=native")
    write_worker(TRANSFORMS, "torch")
    folder = transformed_examples(config, digits, "torch")
    assert folder is not None
    note = folder / "made_of.json"
    assert json.loads(note.read_text())["fingerprint"] == digits.manifest.fingerprint
    note.unlink() if left is None else note.write_text(left)

    with pytest.raises(InputError, match=r"made_of\.json: .* other settings; remove"):
        transformed_examples(config, digits, "torch")


def test_a_transform_that_fails_is_not_taken_for_one_that_did_not(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("data.reader=native")
    write_worker("(output / 'train.records').write_text('1 2'); sys.exit(3)", "torch")
    with pytest.raises(WorkError, match="exit code 3"):
        transformed_examples(config, digits, "torch")
    write_worker(TRANSFORMS, "torch")

    folder = transformed_examples(config, digits, "torch")

    assert folder is not None
    assert (folder / "train.records").read_text() == "1 2 3"
    assert Path("transformed.txt").read_text() == "once\n"


def test_cells_that_run_at_once_do_not_take_each_others_transform_away(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("data.reader=native")
    write_worker(
        """
(output / "train.records").write_text("1 2")
Path(f"begun-{os.getpid()}").touch()
while len([*Path().glob("begun-*")]) < 2:
    time.sleep(0.01)
(output / "train.records").write_text("1 2 3")
""",
        "torch",
    )

    with ThreadPoolExecutor() as pool:
        cells = [pool.submit(transformed_examples, config, digits, "torch") for _ in range(2)]
        folder, other = (cell.result() for cell in cells)

    assert folder is not None
    assert folder == other
    assert (folder / "train.records").read_text() == "1 2 3"
    assert [*folder.parent.iterdir()] == [folder]


def test_on_a_cluster_it_gets_the_threads_of_a_workers_cpus_not_of_the_steps_node(
    configure: Callable[..., Config],
    digits: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, there = (
        configure("data.reader=native", f"output={tmp_path / name}") for name in ("here", "there")
    )
    threads: list[int] = []
    monkeypatch.setattr(
        "pipelines.transformed.launch",
        lambda *given, threads_per_worker, **others: threads.append(threads_per_worker),
    )
    monkeypatch.setattr("pipelines.transformed.available_cores", lambda: [*range(64)])
    transformed_examples(here, digits, "torch")

    monkeypatch.setenv(CLUSTER_VARIABLE, ClusterConfig(cpu_per_worker="3500m").model_dump_json())
    transformed_examples(there, digits, "torch")

    assert threads == [64, 3]


def test_the_shared_reader_needs_no_transform(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker(TRANSFORMS, "torch")

    assert transformed_examples(config, digits, "torch") is None
    assert not Path("transformed.txt").exists()
