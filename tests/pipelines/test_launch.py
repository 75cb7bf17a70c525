import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.cluster import Layout
from pipelines.environments import PROJECT_ROOT
from pipelines.errors import InputError, PreemptedError, WorkError
from pipelines.hardware import available_cores
from pipelines.launch import launch
from pipelines.preemption import LAUNCHER_VARIABLE, Preemption

WriteWorker = Callable[..., None]

# What every fake worker can use; it runs as ``python -m <framework>_pipeline ...``.
PROLOGUE = """
import json, os, signal, subprocess, sys, time
from pathlib import Path

if "TF_CONFIG" in os.environ and "RANK" not in os.environ:
    rank = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
else:
    rank = int(os.environ["RANK"])
here = Path(__file__).parent

def started(process=None):
    pid = process.pid if process else os.getpid()
    temporary = here / f".{pid}"
    temporary.write_text(str(pid))
    temporary.rename(here / f"{'child' if process else 'worker'}{rank}.pid")

def wait_for(name):
    while not (here / name).exists():
        time.sleep(0.01)

def emit(**event):
    print("::tandem " + json.dumps(event), flush=True)

"""


@pytest.fixture(autouse=True)
def fake_frameworks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both frameworks' packages are found in ``tmp_path``, and run by this interpreter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # of launchers that are killed
    monkeypatch.setenv("TANDEM_TF_PYTHON", sys.executable)
    monkeypatch.setenv("TANDEM_TORCH_PYTHON", sys.executable)


@pytest.fixture
def write_worker(tmp_path: Path) -> WriteWorker:
    def write(program: str, framework: str = "torch") -> None:
        package = tmp_path / f"{framework}_pipeline"
        package.mkdir()
        (package / "__init__.py").touch()  # a package without one would lose to the real one
        (package / "__main__.py").write_text(PROLOGUE + program)

    return write


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker's child holds open is not waited for as long as in earnest."""
    monkeypatch.setattr("pipelines.launch._SECONDS_TO_END", 0.5)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def pids_in(folder: Path) -> list[int]:
    return [int(path.read_text()) for path in folder.glob("*_pipeline/*.pid")]


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_nothing_is_left(folder: Path, expected: int) -> None:
    """All of the expected processes had started, and none of them lives on."""
    pids = pids_in(folder)
    deadline = time.monotonic() + 2  # a killed process takes a moment to go
    while (alive := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)  # a failing test must not leave them behind either
    assert len(pids) == expected
    assert alive == []


def reports(folder: Path, workers: int) -> list[dict[str, Any]]:
    return [json.loads((folder / f"rank{rank}.log").read_text()) for rank in range(workers)]


REPORT = "print(json.dumps({'arguments': sys.argv[1:], **os.environ}))"


def test_torch_workers_get_torchruns_variables(write_worker: WriteWorker, tmp_path: Path) -> None:
    write_worker(REPORT)

    launch("torch", ["train", "--output", "a b"], logs=tmp_path / "logs", layout=Layout(workers=3))

    found = reports(tmp_path / "logs", 3)
    assert [report["RANK"] for report in found] == ["0", "1", "2"]
    assert [report["LOCAL_RANK"] for report in found] == ["0", "1", "2"]
    assert {report["WORLD_SIZE"] for report in found} == {"3"}
    assert {report["MASTER_ADDR"] for report in found} == {"127.0.0.1"}
    assert len({report["MASTER_PORT"] for report in found}) == 1
    assert 1024 <= int(found[0]["MASTER_PORT"]) < 65536
    assert all(report["arguments"] == ["train", "--output", "a b"] for report in found)


def test_tf_workers_get_a_tf_config_with_a_port_each(
    write_worker: WriteWorker, tmp_path: Path
) -> None:
    write_worker(REPORT, framework="tf")

    launch("tf", ["train"], logs=tmp_path / "logs", layout=Layout(workers=3))

    found = [json.loads(report["TF_CONFIG"]) for report in reports(tmp_path / "logs", 3)]
    assert [config["task"] for config in found] == [
        {"type": "worker", "index": rank} for rank in range(3)
    ]
    clusters = [config["cluster"]["worker"] for config in found]
    assert clusters[0] == clusters[1] == clusters[2]
    assert len(set(clusters[0])) == 3
    assert all(address.startswith("127.0.0.1:") for address in clusters[0])


def test_with_parameter_servers_the_others_end_when_the_chief_has(
    write_worker: WriteWorker, tmp_path: Path
) -> None:
    write_worker(
        "task = json.loads(os.environ['TF_CONFIG'])['task']\n"
        "rank = f\"{task['type']}{task['index']}\"\n"
        "started()\n"
        "print('I am', rank, flush=True)\n"
        "for other in ('worker0', 'worker1', 'ps0'):\n"
        "    wait_for(f'worker{other}.pid')\n"
        "if rank != 'chief0':\n"
        "    time.sleep(600)\n",
        framework="tf",
    )

    launch("tf", [], logs=tmp_path / "logs", layout=Layout(workers=2, parameter_servers=1))

    said = {log.stem: log.read_text() for log in (tmp_path / "logs").iterdir()}
    assert said == {
        "chief": "I am chief0\n",
        "worker0": "I am worker0\n",
        "worker1": "I am worker1\n",
        "ps0": "I am ps0\n",
    }
    assert_nothing_is_left(tmp_path, expected=4)


def test_a_parameter_server_that_dies_is_named_and_ends_the_others(
    write_worker: WriteWorker, tmp_path: Path
) -> None:
    write_worker(
        "task = json.loads(os.environ['TF_CONFIG'])['task']\n"
        "rank = task['type']\n"
        "started()\n"
        "for other in ('chief', 'worker'):\n"
        "    wait_for(f'worker{other}.pid')\n"
        "if rank == 'ps':\n"
        "    sys.exit('out of memory')\n"
        "time.sleep(600)\n",
        framework="tf",
    )

    with pytest.raises(WorkError, match=r"^ps0 ended with exit code 1: out of memory"):
        launch("tf", [], logs=tmp_path / "logs", layout=Layout(parameter_servers=1))

    assert_nothing_is_left(tmp_path, expected=3)


def test_every_line_reaches_the_caller_with_the_name_of_who_printed_it(
    write_worker: WriteWorker, tmp_path: Path
) -> None:
    write_worker("print('I am', rank)\nemit(event='step')\nprint('done')")
    said: list[tuple[str, str]] = []

    launch(
        "torch",
        [],
        logs=tmp_path / "logs",
        layout=Layout(workers=2),
        on_line=lambda name, line: said.append((name, line)),
    )

    assert sorted(said) == [
        ("rank0", "I am 0"),
        ("rank0", "done"),
        ("rank1", "I am 1"),
        ("rank1", "done"),
    ]


@pytest.mark.parametrize("framework", ["tf", "torch"])
def test_what_the_surroundings_say_of_ranks_does_not_reach_the_workers(
    write_worker: WriteWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framework: str
) -> None:
    monkeypatch.setenv("RANK", "7")
    monkeypatch.setenv("WORLD_SIZE", "9")
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["pod:1"]}, "task": {"index": 0}}')
    monkeypatch.syspath_prepend(str(PROJECT_ROOT))
    monkeypatch.setenv("PYTHONPATH", str(PROJECT_ROOT))
    write_worker(
        "from pipelines.worker import Worker\n"
        "worker = Worker.from_environment()\n"
        "print(json.dumps([worker.rank, worker.workers]))",
        framework,
    )

    launch(framework, [], logs=tmp_path / "logs", layout=Layout(workers=2))

    assert reports(tmp_path / "logs", 2) == [[0, 2], [1, 2]]


def test_the_caller_learns_of_each_process_and_of_what_was_set_for_it(
    write_worker: WriteWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    monkeypatch.setenv("NOT_OURS", "1")
    write_worker("started()")
    told: list[tuple[int, set[str]]] = []

    launch(
        "torch",
        [],
        logs=tmp_path / "logs",
        layout=Layout(workers=2),
        environment={"OURS": "1"},
        on_start=lambda pid, variables: told.append((pid, set(variables))),
    )

    package = tmp_path / "torch_pipeline"
    written = [int((package / f"worker{rank}.pid").read_text()) for rank in range(2)]
    assert [pid for pid, _ in told] == written
    for _, variables in told:
        assert {
            "RANK",
            "OURS",
            "OMP_NUM_THREADS",
            "MALLOC_TOP_PAD_",
            "TRITON_CACHE_DIR",
        } <= variables
        assert not {"NOT_OURS", "PATH"} & variables


def test_threads_and_extra_variables_reach_every_worker(
    write_worker: WriteWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    write_worker(REPORT)

    launch(
        "torch",
        [],
        logs=tmp_path / "logs",
        layout=Layout(workers=2),
        threads_per_worker=3,
        environment={"MLFLOW_RUN_ID": "abc", "MKL_NUM_THREADS": "1"},
    )

    for report in reports(tmp_path / "logs", 2):
        assert report["OMP_NUM_THREADS"] == "3"
        assert report["OPENBLAS_NUM_THREADS"] == "3"
        assert report["TF_NUM_INTRAOP_THREADS"] == "3"
        assert report["MKL_NUM_THREADS"] == "1"  # what the caller says comes last
        assert report["MLFLOW_RUN_ID"] == "abc"


@pytest.mark.parametrize("framework", ["tf", "torch"])
def test_what_compilers_keep_on_disk_is_the_runs_own_and_gone_with_it(
    write_worker: WriteWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framework: Any
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "warm"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "warm"))
    write_worker(
        "kept = [os.environ[f'{name}_CACHE_DIR'] for name in ('TORCHINDUCTOR', 'TRITON')]\n"
        "for folder in kept:\n"
        "    Path(folder, f'kernel{rank}').mkdir(parents=True)\n"
        "print(json.dumps(kept))\n"
        "sys.exit('fails' in sys.argv)",
        framework,
    )

    launch(framework, ["works"], logs=tmp_path / "first", layout=Layout(workers=2))
    with pytest.raises(WorkError):
        launch(framework, ["fails"], logs=tmp_path / "second")

    first, beside_it = reports(tmp_path / "first", 2)
    [second] = reports(tmp_path / "second", 1)
    assert first == beside_it
    assert len({*first, *second}) == 4
    assert not any(Path(folder).exists() for folder in [*first, *second])
    assert not (tmp_path / "warm").exists()


def test_a_process_of_several_replicas_is_told_so_and_has_the_threads_of_as_many_workers(
    write_worker: WriteWorker, tmp_path: Path
) -> None:
    write_worker(REPORT, framework="tf")

    launch("tf", ["train"], logs=tmp_path / "logs", layout=Layout(replicas=3), threads_per_worker=2)

    (report,) = reports(tmp_path / "logs", 1)
    assert report["arguments"] == ["train", "--replicas", "3"]
    assert report["OMP_NUM_THREADS"] == "6"


def test_output_goes_to_a_log_per_rank_events_to_the_caller(
    write_worker: WriteWorker, tmp_path: Path
) -> None:
    write_worker(
        "print('out of', rank, flush=True)\n"
        "emit(event='step', step=rank + 1)\n"
        "print('error of', rank, file=sys.stderr, flush=True)\n"
        "sys.stdout.buffer.write(b'not \\xff text'); sys.stdout.flush()\n"
    )
    said: list[tuple[int, dict[str, Any]]] = []

    seconds = launch(
        "torch",
        [],
        logs=tmp_path / "deep" / "logs",
        layout=Layout(workers=2),
        on_event=lambda rank, event: said.append((rank, event)),
    )

    assert seconds > 0
    assert sorted(said, key=lambda pair: pair[0]) == [
        (0, {"event": "step", "step": 1}),
        (1, {"event": "step", "step": 2}),
    ]
    for rank in range(2):
        log = (tmp_path / "deep" / "logs" / f"rank{rank}.log").read_text()
        assert log == f"out of {rank}\nerror of {rank}\nnot \N{REPLACEMENT CHARACTER} text"


def test_all_that_a_worker_said_last_is_in_its_log_when_launch_returns(
    write_worker: WriteWorker, tmp_path: Path
) -> None:
    write_worker("print('x' * 99 + '\\n', end='', flush=True)\nprint('\\n'.join('y' * 20000))")

    launch("torch", [], logs=tmp_path / "logs")

    assert (tmp_path / "logs" / "rank0.log").read_text().count("y") == 20000


def test_a_workers_crash_ends_the_others_and_is_quoted(
    write_worker: WriteWorker, tmp_path: Path
) -> None:
    write_worker(
        "started()\n"
        "if rank == 0:\n"
        "    time.sleep(600)\n"
        "wait_for('worker0.pid')\n"
        "print('Traceback ...')\n"
        "print('ValueError: loss is nan')\n"
        "sys.exit(3)\n"
    )

    with pytest.raises(WorkError) as raised:
        launch("torch", [], logs=tmp_path / "logs", layout=Layout(workers=2))

    message = str(raised.value)
    assert message.startswith("worker 1 ended with exit code 3: ValueError: loss is nan")
    assert str(tmp_path / "logs" / "rank1.log") in message
    assert len(message.splitlines()) == 1
    assert_nothing_is_left(tmp_path, expected=2)


def test_a_worker_that_refuses_its_input_is_quoted_as_it_is(
    write_worker: WriteWorker, tmp_path: Path
) -> None:
    write_worker(
        "print('loading')\nprint('error: small.yaml: name: required', file=sys.stderr)\nsys.exit(2)"
    )

    with pytest.raises(InputError) as raised:
        launch("torch", [], logs=tmp_path / "logs")

    assert str(raised.value) == "small.yaml: name: required"


def test_what_a_library_prints_at_exit_does_not_hide_why_a_worker_refused(
    write_worker: WriteWorker, tmp_path: Path
) -> None:
    write_worker(
        "print('error: small.yaml: name: required', file=sys.stderr, flush=True)\n"
        "print('[W] process group was not destroyed', file=sys.stderr, flush=True)\n"
        "sys.exit(2)"
    )

    with pytest.raises(InputError) as raised:
        launch("torch", [], logs=tmp_path / "logs")

    assert str(raised.value) == "small.yaml: name: required"


def test_a_worker_that_was_killed_is_named_with_the_signal_not_with_what_it_said_before(
    write_worker: WriteWorker, tmp_path: Path
) -> None:
    write_worker(
        "started()\n"
        "if rank == 1:\n"
        "    print('all is well', flush=True)\n"
        "    wait_for('worker0.pid')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "time.sleep(600)\n"
    )

    with pytest.raises(WorkError, match=r"^worker 1 ended with SIGKILL \(log: "):
        launch("torch", [], logs=tmp_path / "logs", layout=Layout(workers=2))

    assert_nothing_is_left(tmp_path, expected=2)


def test_a_worker_that_would_take_its_time_to_end_gets_none_when_another_has_failed(
    write_worker: WriteWorker, tmp_path: Path
) -> None:
    write_worker(
        "if rank == 0:\n"
        "    signal.signal(signal.SIGTERM, lambda *_: (here / 'asked').touch())\n"
        "    started()\n"
        "    time.sleep(600)\n"
        "started()\n"
        "wait_for('worker0.pid')\n"
        "sys.exit(3)\n"
    )

    with pytest.raises(WorkError, match=r"^worker 1 ended with exit code 3: no output"):
        launch("torch", [], logs=tmp_path / "logs", layout=Layout(workers=2))

    assert_nothing_is_left(tmp_path, expected=2)
    assert not (tmp_path / "torch_pipeline" / "asked").exists()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("rank", [0, 1], ids=["of the survivor", "of the one that failed"])
def test_a_workers_own_children_are_ended_with_it(
    write_worker: WriteWorker, tmp_path: Path, rank: int
) -> None:
    write_worker(
        f"if rank == {rank}:\n"
        "    started(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']))\n"
        "started()\n"
        "if rank == 0:\n"
        "    time.sleep(600)\n"
        "wait_for('worker0.pid')\n"
        "sys.exit(3)\n"
    )

    with pytest.raises(WorkError, match=r"^worker 1 ended with exit code 3"):
        launch("torch", [], logs=tmp_path / "logs", layout=Layout(workers=2))

    assert_nothing_is_left(tmp_path, expected=3)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_what_on_event_raises_reaches_the_caller_and_ends_the_workers(
    write_worker: WriteWorker, tmp_path: Path, error: type[BaseException]
) -> None:
    write_worker(
        "started()\n"
        "wait_for('worker0.pid'); wait_for('worker1.pid')\n"
        "emit(event='step')\n"
        "time.sleep(3)\n"  # rather than for ever, so that a launcher that waits can be seen to
    )

    def on_event(rank: int, event: dict[str, Any]) -> None:
        raise error

    with pytest.raises(error):
        launch("torch", [], logs=tmp_path / "logs", layout=Layout(workers=2), on_event=on_event)

    assert_nothing_is_left(tmp_path, expected=2)


@pytest.mark.timeout(15)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_marked_line_that_was_cut_off_does_not_stop_the_reading(
    write_worker: WriteWorker, tmp_path: Path
) -> None:
    write_worker("print('::tandem {\"event\": ')\nfor _ in range(4000):\n    print('x' * 99)\n")

    launch("torch", [], logs=tmp_path / "logs")

    assert (tmp_path / "logs" / "rank0.log").read_text().count("x") == 4000 * 99


def test_workers_learn_who_started_them(write_worker: WriteWorker, tmp_path: Path) -> None:
    write_worker(REPORT)

    launch("torch", [], logs=tmp_path / "logs", layout=Layout(workers=2))

    launchers = [int(report[LAUNCHER_VARIABLE]) for report in reports(tmp_path / "logs", 2)]
    assert launchers == [os.getpid()] * 2


# Waits for SIGTERM, and says so; rank 0 tells when all of them wait.
WAITS_TO_BE_ASKED = """
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
started()
if rank in (0, "chief"):
    for other in others:
        wait_for(f"worker{other}.pid")
    emit(event="step")
while not asked:
    time.sleep(0.01)
(here / f"asked{rank}").touch()
"""


def ask_this_process_to_end(rank: int, event: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_being_asked_to_end_is_passed_on_to_the_workers_which_are_waited_for(
    write_worker: WriteWorker, tmp_path: Path
) -> None:
    write_worker(f"others = [1]{WAITS_TO_BE_ASKED}time.sleep(0.2)\nprint('saved')")

    with Preemption().watched() as preemption:
        launch(
            "torch",
            [],
            logs=tmp_path / "logs",
            layout=Layout(workers=2),
            on_event=ask_this_process_to_end,
            preemption=preemption,
        )
        os.kill(os.getpid(), signal.SIGTERM)  # when nobody is left to ask

    assert preemption.asked
    for rank in range(2):
        assert (tmp_path / "logs" / f"rank{rank}.log").read_text() == "saved\n"


def test_servers_are_not_asked_to_end_since_they_are_needed_to_the_end(
    write_worker: WriteWorker, tmp_path: Path
) -> None:
    write_worker(
        "task = json.loads(os.environ['TF_CONFIG'])['task']\n"
        "rank = task['type']\n"
        "others = ['worker', 'ps']\n"
        f"{WAITS_TO_BE_ASKED}"
        "time.sleep(0.3)\n",  # long enough for the others to say that they were asked
        framework="tf",
    )

    with Preemption().watched() as preemption:
        launch(
            "tf",
            [],
            logs=tmp_path / "logs",
            layout=Layout(parameter_servers=1),
            on_event=ask_this_process_to_end,
            preemption=preemption,
        )

    assert [path.name for path in tmp_path.glob("tf_pipeline/asked*")] == ["askedchief"]
    assert_nothing_is_left(tmp_path, expected=3)


def test_workers_that_could_not_yet_note_that_they_were_asked_to_end_have_not_failed(
    write_worker: WriteWorker, tmp_path: Path
) -> None:
    write_worker("started()\nemit(event='step')\ntime.sleep(600)")

    with (
        Preemption().watched() as preemption,
        pytest.raises(PreemptedError, match="asked to end before its workers had begun"),
    ):
        launch(
            "torch",
            [],
            logs=tmp_path / "logs",
            on_event=ask_this_process_to_end,
            preemption=preemption,
        )

    assert_nothing_is_left(tmp_path, expected=1)


def test_a_launcher_that_does_not_wait_when_asked_to_end_leaves_no_worker(
    write_worker: WriteWorker, tmp_path: Path
) -> None:
    write_worker(f"others = [1]{WAITS_TO_BE_ASKED}time.sleep(600)")
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)

    try:
        with pytest.raises(KeyboardInterrupt):
            launch(
                "torch",
                [],
                logs=tmp_path / "logs",
                layout=Layout(workers=2),
                on_event=ask_this_process_to_end,
            )
    finally:
        signal.signal(signal.SIGTERM, before)

    assert_nothing_is_left(tmp_path, expected=2)


def test_a_launcher_in_a_thread_which_gets_no_signals_works_all_the_same(
    write_worker: WriteWorker, tmp_path: Path
) -> None:
    write_worker("print('here')")
    launching = threading.Thread(target=launch, args=("torch", []), kwargs={"logs": tmp_path})

    launching.start()
    launching.join()

    assert (tmp_path / "rank0.log").read_text() == "here\n"


LAUNCHER = f"""
import sys; sys.path.insert(0, {str(PROJECT_ROOT)!r})
from pathlib import Path
from pipelines.cluster import Layout
from pipelines.launch import launch
try:
    launch('torch', [], logs=Path('logs'), layout=Layout(workers=2))
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_a_launcher_that_is_killed_leaves_no_worker(
    write_worker: WriteWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PROJECT_ROOT))
    write_worker(
        "from pipelines.preemption import end_with_launcher\n"
        "end_with_launcher()\n"
        "started()\n"
        "time.sleep(600)\n"
    )
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER], cwd=tmp_path)

    try:
        wait_until(lambda: len(pids_in(tmp_path)) == 2)
    finally:
        launcher.kill()
        launcher.wait()

    assert_nothing_is_left(tmp_path, expected=2)


def test_an_interrupted_launcher_leaves_no_worker(
    write_worker: WriteWorker, tmp_path: Path
) -> None:
    write_worker("started()\ntime.sleep(600)\n")
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER], cwd=tmp_path)

    try:
        wait_until(lambda: len(pids_in(tmp_path)) == 2)
        launcher.send_signal(signal.SIGINT)
        assert launcher.wait(timeout=30) == 130
    finally:
        launcher.kill()
        launcher.wait()
    assert_nothing_is_left(tmp_path, expected=2)


@pytest.mark.skipif(len(available_cores()) < 2, reason="needs two cores")
def test_each_worker_has_cores_of_its_own_where_they_suffice(
    write_worker: WriteWorker, tmp_path: Path
) -> None:
    write_worker("time.sleep(0.3)\nprint(json.dumps(sorted(os.sched_getaffinity(0))))")

    launch("torch", [], logs=tmp_path / "logs", layout=Layout(workers=2), threads_per_worker=1)

    first, second = reports(tmp_path / "logs", 2)
    assert len(first) == len(second) == 1
    assert first != second
    assert {*first, *second} <= set(available_cores())


def test_workers_share_all_cores_where_they_do_not_suffice(
    write_worker: WriteWorker, tmp_path: Path
) -> None:
    write_worker("print(json.dumps(sorted(os.sched_getaffinity(0))))")
    cores = available_cores()

    launch(
        "torch", [], logs=tmp_path / "logs", layout=Layout(workers=2), threads_per_worker=len(cores)
    )

    assert reports(tmp_path / "logs", 2) == [cores, cores]


def test_the_launchers_own_cores_stay_as_they_were(
    write_worker: WriteWorker, tmp_path: Path
) -> None:
    write_worker("")
    cores = available_cores()

    launch("torch", [], logs=tmp_path / "logs")

    assert available_cores() == cores


def test_a_framework_that_is_not_there_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_TORCH_PYTHON", str(tmp_path / "absent"))

    with pytest.raises(InputError, match="TANDEM_TORCH_PYTHON"):
        launch("torch", [], logs=tmp_path / "logs")

    assert not (tmp_path / "logs").exists()
