import hashlib
import importlib
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import dask
import psutil
import pytest
from apache_beam.options.pipeline_options import DirectOptions
from distributed import LocalCluster

from pipelines.data_config import DataConfig, RunnerConfig
from pipelines.environments import PROJECT_ROOT
from pipelines.errors import InputError
from pipelines.ingest.runner_options import check_options
from pipelines.ingest.runners import started_runner
from pipelines.ingest.sources import Source
from pipelines.ingest.write import write_dataset

SOURCE = '''
import os
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipelines.errors import InputError
from pipelines.ingest.schema import Feature
from pipelines.ingest.sources import Fragment, Skip, Source


class Rows(Source):
    """Fragments of 50 rows; one of them may repeat an id, fail, find the disk full, or dawdle."""

    features = (
        Feature(name="example_id", dtype="string"),
        Feature(name="image", dtype="float32", shape=(2, 2)),
        Feature(name="label", dtype="int64"),
    )
    label = "label"
    description = {"name": "rows"}

    def __init__(self, *, fragments=9, unique=False, fault=None, processes=None, seconds=0.0):
        self.ids_are_unique = unique
        self._fragments, self._fault = fragments, fault
        self._processes, self._seconds = processes, seconds

    def fragments(self) -> list[Fragment]:
        return [Fragment(number, f"part {number}", ()) for number in range(self._fragments)]

    def read(self, fragment: Fragment, skip: Skip) -> Iterator[pa.Table]:
        number = fragment.number
        time.sleep(self._seconds)
        if self._processes is not None:
            (self._processes / f"{os.getpid()}-{number}").touch()
        if self._fault == "input" and number == 3:
            raise InputError("rows.csv: row 7: label is missing; add it")
        if self._fault == "disk" and number == 3:
            raise OSError(28, os.strerror(28))
        ids = [f"{number}-{row}" for row in range(50)]
        if self._fault == "id" and number == 8:
            ids[7] = "0-0"
        images = pa.array(np.random.default_rng(number).random(200, np.float32))
        columns = [ids, pa.FixedSizeListArray.from_arrays(images, 4), pa.array(np.arange(50) % 3)]
        yield pa.table(columns, schema=self.schema)
'''
SCRIPT = """
import sys
from pathlib import Path

from pipelines.data_config import DataConfig
from pipelines.ingest.write import write_dataset
from rows_source import Rows

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    config = DataConfig.model_validate({"runner": {"name": "dask", "workers": 2}})
    write_dataset(Rows(fragments=200, seconds=0.2), config, folder)
"""
MakeSource = Callable[..., Source]


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of modules that processes started from here on can import too."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "rows_source.py").write_text(SOURCE)
    (folder / "script.py").write_text(SCRIPT)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def rows(modules: Path) -> MakeSource:
    make: MakeSource = importlib.import_module("rows_source").Rows
    return make


@pytest.fixture(scope="module")
def cluster(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Somebody's Dask cluster of two processes."""
    folder = str(tmp_path_factory.mktemp("dask"))
    with (
        dask.config.set({"temporary-directory": folder}),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        ) as started,
    ):
        yield started


@pytest.fixture(scope="module")
def job_server(modules: Path) -> Iterator[str]:
    """Beam's own job server, which takes jobs as those of Flink and Spark do."""
    port_file = modules / "port"
    service = "apache_beam.runners.portability.local_job_service_main"
    with (modules / "job_server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", service, "--job_port=0", f"--port_file={port_file}"],
            stdout=log,
            stderr=log,
        )
        try:
            wait_until(lambda: port_file.exists() and port_file.read_text() != "")
            yield f"localhost:{port_file.read_text()}"
        finally:
            process.terminate()
            process.wait()


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def running_in_session(leader: int) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE and session_of(process.pid) == leader
    ]


def session_of(process: int) -> int | None:
    with suppress(ProcessLookupError):
        return os.getsid(process)
    return None


@pytest.fixture(autouse=True)
def environment_restored() -> Iterator[None]:
    """As ``ingest`` does, which these tests pass by: Dask leaves its workers' variables here."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def write(source: Source, folder: Path, **runner: object) -> dict[str, str]:
    """Ingest and return every file's digest."""
    config = DataConfig.model_validate({"runner": runner, "rows_per_shard": 30})
    write_dataset(source, config, folder)
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as raised:
        call()
    message = str(raised.value)
    assert len(message.splitlines()) == 1, message
    return message


def refused_options(name: str, *options: str, workers: int | None = None) -> str:
    config = RunnerConfig.model_validate({"name": name, "options": options, "workers": workers})
    return refusal(lambda: check_options(config))


@pytest.mark.parametrize("unique", [False, True], ids=["ids checked", "ids known to be unique"])
def test_every_runner_writes_the_same_bytes(
    tmp_path: Path, rows: MakeSource, cluster: LocalCluster, job_server: str, unique: bool
) -> None:
    runners: dict[str, dict[str, object]] = {
        "in this thread": {"workers": 1},
        "two threads": {"workers": 2},
        "four threads": {"workers": 4},
        "dask": {
            "name": "dask",
            "options": [f"--dask_client_address={cluster.scheduler_address}"],
        },
        "flink": {
            "name": "flink",
            "options": [f"--job_endpoint={job_server}", "--environment_type=LOOPBACK"],
        },
        "spark": {
            "name": "spark",
            "options": [f"--job_endpoint={job_server}", "--environment_type=LOOPBACK"],
        },
    }

    written = {
        name: write(rows(unique=unique), tmp_path / name, **runner)
        for name, runner in runners.items()
    }

    expected = written["in this thread"]
    assert len(expected) > 2 * 9
    assert {name: files == expected for name, files in written.items()} == dict.fromkeys(
        runners, True
    )


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("input", "rows.csv: row 7: label is missing; add it"),
        ("id", "data.id: column 'example_id' holds '0-0' 2 times; every example needs an id of "
               "its own"),
        ("disk", "data.output: {folder}: no space left on its disk; free some, or name another "
                 "folder"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["direct", "dask"])
def test_what_fails_in_a_worker_is_told_in_the_same_line_by_every_runner(
    tmp_path: Path,
    rows: MakeSource,
    cluster: LocalCluster,
    caplog: pytest.LogCaptureFixture,
    name: str,
    fault: str,
    message: str,
) -> None:
    address = f"--dask_client_address={cluster.scheduler_address}"
    runner = {"name": name, "options": [address] if name == "dask" else []}
    folder = tmp_path / "data"

    told = refusal(lambda: write(rows(fault=fault), folder, **runner))

    assert told == message.format(folder=folder)
    assert list(tmp_path.iterdir()) == []
    # The cluster's scheduler, in this process too, notes who comes and goes.
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


def test_fragments_are_spread_over_the_processes_of_a_cluster_that_is_left_running(
    tmp_path: Path, rows: MakeSource, cluster: LocalCluster
) -> None:
    processes = tmp_path / "processes"
    processes.mkdir()

    write(
        rows(processes=processes, seconds=0.1),
        tmp_path / "data",
        name="dask",
        options=[f"--dask_client_address={cluster.scheduler_address}"],
    )

    seen = [path.name.split("-") for path in processes.iterdir()]
    assert sorted(int(number) for _, number in seen) == list(range(9))
    assert len({process for process, _ in seen}) == 2
    assert str(os.getpid()) not in {process for process, _ in seen}
    assert len(cluster.workers) == 2
    wait_until(
        lambda: [name for name in cluster.scheduler.clients if name != "fire-and-forget"] == []
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cluster_of_its_own_leaves_nothing_behind(
    tmp_path: Path,
    rows: MakeSource,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    workers: int,
) -> None:
    temporary, processes = tmp_path / "temporary", tmp_path / "processes"
    temporary.mkdir()
    processes.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.chdir(temporary)
    before = set(multiprocessing.active_children())

    written = write(
        rows(processes=processes, seconds=0.1), tmp_path / "data", name="dask", workers=workers
    )

    assert written == write(rows(), tmp_path / "expected", workers=1)
    assert len({path.name.split("-")[0] for path in processes.iterdir()}) == workers
    assert set(multiprocessing.active_children()) == before
    assert list(temporary.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_an_interrupt_ends_a_cluster_of_its_own_without_a_word_from_its_workers(
    tmp_path: Path, modules: Path
) -> None:
    temporary, folder = tmp_path / "temporary", tmp_path / "data"
    temporary.mkdir()
    paths = os.pathsep.join([str(modules), str(PROJECT_ROOT)])
    # A session of its own, so that the signal reaches all its processes, as Ctrl-C does.
    process = subprocess.Popen(
        [sys.executable, str(modules / "script.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": paths, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    notes = tmp_path / ".data.writing" / "fragments"
    wait_until(lambda: notes.exists() and any(notes.iterdir()))

    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)

    assert process.returncode == -signal.SIGINT
    assert output.count("Traceback") == 1
    assert output.rstrip().endswith("KeyboardInterrupt")
    assert list(temporary.iterdir()) == []
    wait_until(lambda: running_in_session(process.pid) == [])


def test_threads_are_no_more_than_there_are_fragments_or_workers() -> None:
    found = []
    for workers, fragments in ((4, 9), (4, 2), (4, 1), (1, 9)):
        with started_runner(RunnerConfig(workers=workers), fragments) as (runner, options):
            direct = options.view_as(DirectOptions)
            found.append((runner, direct.direct_num_workers, direct.direct_running_mode))

    assert found == [
        ("FnApiRunner", 4, "multi_threading"),
        ("FnApiRunner", 2, "multi_threading"),
        ("FnApiRunner", 1, "in_memory"),
        ("FnApiRunner", 1, "in_memory"),
    ]


def test_a_dask_scheduler_that_does_not_answer_is_refused(
    tmp_path: Path, rows: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.ingest.runners._DASK_ANSWERS_WITHIN", "1s")
    options = ["--dask_client_address=tcp://127.0.0.1:1"]

    told = refusal(lambda: write(rows(), tmp_path / "data", name="dask", options=options))

    assert told.startswith("data.runner.options: no Dask scheduler answers at tcp://127.0.0.1:1: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("flink", [], "flink needs --flink_master=HOST:PORT or --job_endpoint=HOST:PORT"),
        (
            "spark",
            [],
            "spark needs --spark_master_url=spark://HOST:PORT or --spark_rest_url=URL or "
            "--job_endpoint=HOST:PORT",
        ),
        ("direct", ["--runner=DirectRunner"], "leave out --runner, and set data.runner.name"),
        (
            "direct",
            ["--direct_num_workers=3"],
            "leave out --direct_num_workers, and set data.runner.workers",
        ),
        (
            "direct",
            ["--flink_master=h:1"],
            "--flink_master is for runner 'flink', but data.runner.name is 'direct'",
        ),
        (
            "flink",
            ["--flink_master=h:1", "--paralelism=3"],
            "Beam has no option --paralelism; did you mean --parallelism?",
        ),
        (
            "dask",
            ["--dask_client_adress=tcp://h:1"],
            "Beam has no option --dask_client_adress; did you mean --dask_client_address?",
        ),
        ("direct", ["--frobnicate=1"], "Beam has no option --frobnicate; leave it out"),
        ("direct", ["h:1"], "'h:1' is no option; write --NAME=VALUE"),
        (
            "flink",
            ["--flink_master=h:1", "--parallelism=many"],
            "argument --parallelism: invalid int value: 'many'",
        ),
        (
            "flink",
            ["--job_endpoint"],
            "argument --job_endpoint: expected one argument",
        ),
    ],
)
def test_an_option_that_is_wrong_or_missing_is_refused_by_name(
    name: str, options: list[str], message: str
) -> None:
    assert refused_options(name, *options) == f"data.runner.options: {message}"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("flink", ["--job_endpoint=h:1"]),
        ("flink", ["--flink_master=h:1", "--parallelism", "3"]),
        ("flink", ["--job_endpoint=h:1", "--object_reuse_of_the_job_server=true"]),
        ("spark", ["--spark_master_url=spark://h:1"]),
        ("spark", ["--spark_submit_uber_jar", "--spark_rest_url=http://h:1"]),
        ("dask", ["--dask_client_address=tcp://h:1", "--dask_npartitions=8"]),
    ],
)
def test_the_options_that_a_cluster_needs_are_accepted(
    name: str, options: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "java").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    values = check_options(RunnerConfig.model_validate({"name": name, "options": options}))

    assert values["runner"] is None


@pytest.mark.parametrize(
    ("name", "option"),
    [("flink", "--flink_master=h:1"), ("dask", "--dask_client_address=tcp://h:1")],
)
def test_a_number_of_workers_is_refused_where_the_cluster_has_its_own(
    name: str, option: str
) -> None:
    assert refused_options(name, option, workers=3) == (
        "data.runner.workers: leave it out; a cluster has workers of its own"
    )


@pytest.mark.parametrize(
    ("name", "option"),
    [("flink", "--flink_master=h:1"), ("spark", "--spark_master_url=spark://h:1")],
)
def test_a_job_server_without_java_is_refused(
    name: str, option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert refused_options(name, option) == (
        f"data.runner.options: {name} needs Java ('java') to start Beam's job server; install it, "
        "or name a job server that runs with --job_endpoint=HOST:PORT"
    )


def test_dataflow_without_googles_libraries_says_what_to_install() -> None:
    assert refused_options("dataflow", "--project=p") == (
        "data.runner.name: dataflow needs Google's client libraries; "
        "`pip install 'apache-beam[gcp]==2.77.0'`"
    )


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ([], "--project=NAME"),
        (["--project=p"], "--region=NAME"),
        (["--project=p", "--region=r"], "--temp_location=gs://BUCKET/FOLDER"),
    ],
)
def test_dataflow_is_refused_without_project_region_and_bucket(
    given: list[str], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.ingest.runner_options._is_installed", lambda _: True)

    assert refused_options("dataflow", *given) == f"data.runner.options: dataflow needs {missing}"


def test_dask_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.ingest.runner_options._is_installed", lambda _: False)

    assert refused_options("dask") == (
        "data.runner.name: dask is not installed; `pip install 'tandem[dask]'`"
    )
