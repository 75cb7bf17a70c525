from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.cluster_config import CLUSTER_VARIABLE, ClusterConfig
from pipelines.config import Config
from pipelines.errors import WorkError
from pipelines.ingest import Dataset
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
    assert folder == config.output / "transformed" / f"torch-{digits.manifest.fingerprint[:16]}"
    assert (folder / "train.records").read_text() == "1 2 3"
    assert Path("transformed.txt").read_text() == "once\n"
    assert [*folder.parent.iterdir()] == [folder]


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
