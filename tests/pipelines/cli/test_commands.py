import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.cli import main
from pipelines.config import Config
from pipelines.environments import PROJECT_ROOT
from pipelines.ingest import Dataset
from pipelines.ingest.cache import verify_once
from pipelines.ingest.manifest import read_manifest
from pipelines.strategies import FRAMEWORK_TITLES, STRATEGIES
from pipelines.tracking import prepare_store, read_runs

Tandem = Callable[..., "subprocess.CompletedProcess[str]"]

TANDEM = [str(Path(sys.executable).with_name("tandem"))]
QUICKSTART = PROJECT_ROOT / "configs" / "quickstart.yaml"
SMALL = ("--set", "output=out", "--set", "training.steps=12", "--set", "training.warmup_steps=2")
CONFIG = ("--config", str(QUICKSTART), *SMALL)
COMMANDS = (
    "run",
    "ingest",
    "pipeline",
    "train",
    "parity",
    "study",
    "compare",
    "predict",
    "ui",
    "doctor",
)
CONFIGURED = (
    *("run", "ingest", "pipeline tf", "train torch", "parity", "study"),
    *("compare", "predict --workers 8", "ui"),
)
HEAVY = (
    "jinja2",
    "mlflow",
    "numpy",
    "pandas",
    "plotly",
    "psutil",
    "pyarrow",
    "pydantic",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "tensorflow",
    "torch",
    "yaml",
)

# Worker processes that train nothing; they run as ``python -m torch_pipeline ...``.
PROLOGUE = """
import json, os, signal, sys, time
from pathlib import Path

output = Path(sys.argv[sys.argv.index("--output") + 1])
"""
TRAINS = """
print("a library's chatter")
print("::tandem " + json.dumps({"event": "step", "step": 12, "steps": 12}), flush=True)
metrics = {"examples_per_second": 1234.5, "eval_accuracy": 0.75}
(output / "result.json").write_text(json.dumps({"metrics": metrics}))
"""
CRASHES = "print('Traceback ...'); print('ValueError: loss is nan'); sys.exit(3)"
WAITS = "(output / 'pid').write_text(str(os.getpid())); time.sleep(600)"
SAVES = """
if [*output.glob("attempt*")]:
    metrics = {"eval_accuracy": 0.75}
    (output / "result.json").write_text(json.dumps({"metrics": metrics}))
    sys.exit()
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
(output / "pid").write_text(str(os.getpid()))
while not asked:
    time.sleep(0.01)
print("::tandem " + json.dumps({"event": "preempted", "step": 6}), flush=True)
"""
DIES_ONCE = """
if not [*output.glob("attempt*")]:
    os.kill(os.getpid(), signal.SIGKILL)
(output / "result.json").write_text(json.dumps({"metrics": {"eval_accuracy": 0.75}}))
"""


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A wide screen without colours, so that lines are compared as they were written."""
    for variable in ("FORCE_COLOR", "TANDEM_TF_PYTHON", "TANDEM_TORCH_PYTHON"):
        monkeypatch.delenv(variable, raising=False)
    return {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}


@pytest.fixture
def command(tmp_path: Path, surroundings: dict[str, str]) -> dict[str, Any]:
    """What ``subprocess`` needs to run the installed ``tandem`` in ``tmp_path``."""
    return {"cwd": tmp_path, "env": surroundings, "text": True}


@pytest.fixture
def tandem(command: dict[str, Any]) -> Tandem:
    def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        around = command | {"env": command["env"] | environment}
        return subprocess.run([*TANDEM, *arguments], capture_output=True, **around)

    return run


@pytest.fixture
def fake_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, str]]:
    """Puts a program in the place of ``torch_pipeline``; returns the environment that finds it."""

    def write(program: str) -> dict[str, str]:
        package = tmp_path / "torch_pipeline"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(PROLOGUE + program)
        return {"TANDEM_TORCH_PYTHON": sys.executable}

    return write


@pytest.fixture
def tandem_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., "subprocess.CompletedProcess[str]"]]:
    """The command in this process, for tests that replace a part of it."""
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        monkeypatch.setattr(sys, "argv", ["tandem", *arguments])
        with pytest.raises(SystemExit) as raised:
            main()
        code = raised.value.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    yield run
    signal.signal(signal.SIGTERM, handler)


def files_in(folder: Path) -> dict[str, int]:
    """Every file and when it was written, but for a fake package."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and "torch_pipeline" not in path.parts
    }


def error_of(done: "subprocess.CompletedProcess[str]", code: int = 2) -> str:
    """The one line that says what was wrong: the last on standard error, after nothing else."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert errors == lines[-1:], done.stderr
    assert "Traceback" not in done.stderr
    return errors[0]


def unused_port() -> int:
    """One that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def alter(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)


def test_help_lists_every_command(tandem: Tandem) -> None:
    done = tandem("--help")

    assert done.returncode == 0
    assert done.stderr == ""
    _, _, listed = done.stdout.partition("Commands")
    found = re.findall(r"^\W*([a-z]+)\s{2,}[A-Z]", listed, re.MULTILINE)
    assert set(COMMANDS) <= set(found)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_in_one_sentence(tandem_here: Tandem, name: str) -> None:
    done = tandem_here(name, "--help")

    assert done.returncode == 0
    assert f"tandem {name}" in done.stdout
    assert "--json" in done.stdout or name == "ui"
    assert "--set" in done.stdout or name == "doctor"


def test_help_loads_no_heavy_module(command: dict[str, Any]) -> None:
    program = (
        "import sys\n"
        "from pipelines.cli import main\n"
        "sys.argv = ['tandem', '--help']\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, **command)

    assert done.returncode == 0
    loaded = set(done.stderr.split())
    assert "pipelines.cli.commands" in loaded
    assert loaded & set(HEAVY) == set()


def test_ingest_writes_a_dataset_then_reuses_it_then_writes_it_anew(
    tandem: Tandem, tmp_path: Path
) -> None:
    first = tandem("ingest", *CONFIG)
    written = files_in(tmp_path)
    second = tandem("ingest", *CONFIG)
    kept = files_in(tmp_path)
    third = tandem("ingest", *CONFIG, "--force")

    fingerprint = read_manifest(tmp_path / "out" / "data").fingerprint
    for done in (first, second, third):
        assert done.returncode == 0
        assert done.stdout == ""
        assert f"digits, 1,435 + 362 examples, fingerprint {fingerprint[:12]}" in done.stderr
    assert ["reused" in done.stderr for done in (first, second, third)] == [False, True, False]
    assert written.items() <= kept.items()
    assert all("/.cache/" in name for name in kept.keys() - written.keys())
    assert set(files_in(tmp_path)) == set(written)
    assert files_in(tmp_path)["out/data/manifest.json"] > written["out/data/manifest.json"]


def test_with_json_standard_output_is_the_manifest_and_nothing_else(
    tandem: Tandem, tmp_path: Path
) -> None:
    done = tandem("ingest", *CONFIG, "--json")

    assert done.returncode == 0
    manifest = json.loads((tmp_path / "out" / "data" / "manifest.json").read_text())
    assert json.loads(done.stdout) == manifest
    assert "✓ ingest" in done.stderr


WRONG = {
    "an unknown key": (
        ("ingest", "--set", "data.colour=red"),
        ["quickstart.yaml: data.colour: unknown key", "rows_per_shard"],
    ),
    "a misspelt key": (
        ("study", "--set", "training.step=7"),
        ["quickstart.yaml: training.step: unknown key; did you mean 'steps'?"],
    ),
    "a wrong type": (
        ("ingest", "--set", "training.steps=many"),
        ["quickstart.yaml: training.steps: ", "valid integer", "'many'"],
    ),
    "a negative batch size": (
        ("run", "--set", "training.batch_size_per_worker=-64"),
        ["quickstart.yaml: training.batch_size_per_worker: ", "greater than 0", "-64"],
    ),
    "shares that do not add up": (
        ("ingest", "--set", "data.splits.train=0.9"),
        ["quickstart.yaml: data.splits: ", "must be 1, not 1.1"],
    ),
    "a store that MLflow no longer writes": (
        ("compare", "--set", "tracking.uri=./mlruns"),
        ["quickstart.yaml: tracking.uri: ", "sqlite:///", "./mlruns"],
    ),
    "prices that are not there": (
        ("run", "--prices", "absent.yaml"),
        ["absent.yaml: no such file; the shipped one is configs/prices.yaml"],
    ),
    "a file that holds no prices": (
        ("compare", "--prices", str(QUICKSTART)),
        ["quickstart.yaml: as_of: required, but not given", "workload: unknown key"],
    ),
    "an override without a value": (
        ("ingest", "--set", "training.steps"),
        ["--set training.steps: must read section.field=value"],
    ),
    "an override of a value's part": (
        ("ingest", "--set", "name.first=quick"),
        ["--set name.first=quick: 'name' is not a section"],
    ),
    "a strategy for one worker with two": (
        ("train", "torch", "--strategy", "single", "--workers", "2"),
        ["torch.strategy 'single' runs one worker", "asks for 2"],
    ),
}


@pytest.mark.parametrize(("arguments", "fragments"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_value_is_one_line_and_exit_code_2(
    tandem: Tandem, tmp_path: Path, arguments: tuple[str, ...], fragments: list[str]
) -> None:
    name, *options = arguments
    done = tandem(name, *CONFIG, *options)

    message = error_of(done)
    assert done.stderr == message + "\n"
    assert [part for part in fragments if part not in message] == []
    assert files_in(tmp_path) == {}


@pytest.mark.parametrize("framework", ["tf", "torch"])
def test_a_strategy_that_a_framework_lacks_is_answered_with_those_it_has(
    tandem: Tandem, tmp_path: Path, framework: str
) -> None:
    done = tandem("train", framework, "--strategy", "nope", *CONFIG)

    message = error_of(done)
    assert f"{framework}.strategy: {FRAMEWORK_TITLES[framework]} has no strategy 'nope'" in message
    assert message.endswith("it has: " + ", ".join(STRATEGIES[framework]))
    assert files_in(tmp_path) == {}


@pytest.mark.parametrize("name", CONFIGURED)
def test_every_command_refuses_an_unknown_key(
    tandem_here: Tandem, tmp_path: Path, name: str
) -> None:
    done = tandem_here(*name.split(), *CONFIG, "--set", "study.repeat=3")

    assert error_of(done).endswith("study.repeat: unknown key; did you mean 'repeats'?")
    assert files_in(tmp_path) == {}


def test_a_wrong_config_file_is_named_with_the_field(tandem: Tandem, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\ntrainning: {steps: 5}\n")

    message = error_of(tandem("ingest", "--config", "mine.yaml"))

    assert message == "error: mine.yaml: trainning: unknown key; did you mean 'training'?"
    assert list(files_in(tmp_path)) == ["mine.yaml"]


def test_a_config_file_that_is_not_there_is_named(tandem: Tandem, tmp_path: Path) -> None:
    message = error_of(tandem("study", "--config", "absent.yaml"))

    assert message.startswith("error: absent.yaml: no such file")
    assert files_in(tmp_path) == {}


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("ingest --colour", "--colour"),
        ("train jax", "'jax'"),
        ("train torch --workers 0", "--workers"),
        ("train torch --max-restarts -1", "--max-restarts"),
        ("ui --port 65536", "--port"),
        ("serve", "'serve'"),
    ],
)
def test_what_the_command_line_does_not_know_is_exit_code_2(
    tandem: Tandem, tmp_path: Path, line: str, named: str
) -> None:
    done = tandem(*line.split())

    assert done.returncode == 2
    assert done.stdout == ""
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert files_in(tmp_path) == {}


def test_debug_shows_where_an_error_came_from(tandem: Tandem, tmp_path: Path) -> None:
    arguments = ("train", "torch", "--strategy", "nope", *CONFIG)

    plain, debug = tandem(*arguments), tandem("--debug", *arguments)

    assert "Traceback" not in plain.stderr
    assert debug.returncode == plain.returncode == 2
    assert debug.stderr.startswith("Traceback (most recent call last):\n")
    assert debug.stderr.splitlines()[-1] == error_of(plain)


@pytest.mark.parametrize("name", ["ingest", "pipeline torch", "train tf", "parity", "study", "run"])
@pytest.mark.parametrize("harm", ["altered", "missing"])
def test_a_harmed_shard_is_named_and_nothing_is_made_of_it(
    tandem_here: Tandem,
    tmp_path: Path,
    digits: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    harm: str,
) -> None:
    for framework in ("TF", "TORCH"):
        monkeypatch.setenv(f"TANDEM_{framework}_PYTHON", sys.executable)
    shard = digits.folder / digits.shards("train")[0].path
    alter(shard) if harm == "altered" else shard.unlink()
    before = files_in(tmp_path)

    message = error_of(tandem_here(*name.split(), *CONFIG))

    said = "was altered" if harm == "altered" else "cannot be read"
    assert f"{shard.relative_to(tmp_path)}: shard {said}" in message
    assert message.endswith("write the dataset anew with `tandem ingest --force`")
    assert files_in(tmp_path) == before


def test_force_mends_an_altered_dataset(tandem: Tandem, digits: Dataset) -> None:
    alter(digits.folder / digits.shards("eval")[0].path)

    done = tandem("ingest", *CONFIG, "--force")

    assert done.returncode == 0
    mended = Dataset.open(digits.folder)
    verify_once(mended)
    assert mended.manifest == digits.manifest


def test_a_dataset_made_with_other_settings_is_not_replaced_unasked(
    tandem_here: Tandem, tmp_path: Path, digits: Dataset
) -> None:
    before = files_in(tmp_path)

    message = error_of(tandem_here("ingest", *CONFIG, "--set", "data.rows_per_shard=100"))

    assert "out/data: holds a dataset made with other settings" in message
    assert "`tandem ingest --force`" in message
    assert files_in(tmp_path) == before


def test_a_folder_that_holds_something_else_is_left_alone(
    tandem_here: Tandem, tmp_path: Path
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("It was a dark and stormy night.")

    message = error_of(tandem_here("ingest", *CONFIG, "--force", "--set", "data.output=thesis"))

    assert "data.output: thesis holds something that is not a dataset" in message
    assert list(files_in(tmp_path)) == ["thesis/chapter1.txt"]


@pytest.mark.parametrize("name", ["pipeline", "train", "parity", "study", "run"])
@pytest.mark.parametrize("framework", ["tf", "torch"])
def test_a_missing_environment_is_answered_with_the_make_target_that_makes_it(
    tandem_here: Tandem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    framework: str,
    name: str,
) -> None:
    other = "TORCH" if framework == "tf" else "TF"
    monkeypatch.delenv(f"TANDEM_{framework.upper()}_PYTHON", raising=False)
    monkeypatch.setenv(f"TANDEM_{other}_PYTHON", sys.executable)
    monkeypatch.setattr("pipelines.environments.PROJECT_ROOT", tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    named = [framework] if name in ("pipeline", "train") else []

    done = tandem_here(name, *named, *CONFIG)

    message = error_of(done)
    assert f"{FRAMEWORK_TITLES[framework]}'s environment" in message
    assert message.endswith(f"is missing; make it with `make env-{framework}`")
    assert done.stderr == message + "\n"
    assert files_in(tmp_path) == {}


def test_an_interpreter_that_is_not_there_is_named_with_its_variable(
    tandem: Tandem, tmp_path: Path
) -> None:
    done = tandem("run", *CONFIG, TANDEM_TF_PYTHON=str(tmp_path / "absent"))

    message = error_of(done)
    assert message.startswith(f"error: TANDEM_TF_PYTHON: {tmp_path / 'absent'} is not")
    assert done.stderr == message + "\n"
    assert files_in(tmp_path) == {}


def test_compare_without_any_run_says_which_command_makes_some(
    tandem: Tandem, tmp_path: Path
) -> None:
    message = error_of(tandem("compare", *CONFIG))

    assert "tandem run" in message or "tandem study" in message
    assert "out/mlflow.db" in message
    assert files_in(tmp_path) == {}


def test_compare_without_a_finished_study_says_which_command_makes_one(
    tandem: Tandem, tmp_path: Path, quickstart: Config
) -> None:
    prepare_store(quickstart)

    message = error_of(tandem("compare", *CONFIG))

    assert "nothing to compare" in message
    assert "tandem study" in message
    assert list(files_in(tmp_path)) == ["out/mlflow.db"]


@pytest.mark.parametrize("line", ["ui --no-browser", "compare", "train torch"])
def test_a_tracking_server_that_does_not_answer_is_one_line(
    tandem: Tandem, fake_torch: Callable[[str], dict[str, str]], line: str
) -> None:
    server = f"tracking.uri=http://bob:secret@127.0.0.1:{unused_port()}"
    environment = fake_torch("") | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}

    done = tandem(*line.split(), *CONFIG, "--set", server, **environment)

    message = error_of(done, 1)
    assert message.startswith("error: tracking.uri: http://***@127.0.0.1:")
    assert "does not answer (Connection refused)" in message
    assert "secret" not in done.stderr


def test_compare_names_the_studies_there_are_when_asked_for_another(
    tandem: Tandem, quickstart: Config
) -> None:
    prepare_store(quickstart)

    message = error_of(tandem("compare", *CONFIG, "--study", "quickstrat"))

    assert message.startswith("error: --study quickstrat: ")
    assert "quickstart" in message.partition("it has:")[2]


def test_a_study_goes_on_from_a_folder_of_its_own(tandem: Tandem, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    message = error_of(tandem("study", "--resume", "empty"))
    assert message.startswith("error: --resume empty: no study there; ")
    assert "study.json" in message

    message = error_of(tandem("study", *CONFIG, "--resume", "empty"))
    assert "goes on by its own; leave it out" in message
    assert files_in(tmp_path) == {}


def interpreter(path: Path, program: str) -> str:
    path.write_text(f"#!/bin/sh\n{program}\n")
    path.chmod(0o755)
    return str(path)


def test_doctor_says_what_it_found_and_where(tandem: Tandem, tmp_path: Path) -> None:
    tf = interpreter(tmp_path / "tf-python", "echo tensorflow 1.2.3")
    torch = interpreter(tmp_path / "torch-python", "echo torch 4.5.6")

    done = tandem("doctor", TANDEM_TF_PYTHON=tf, TANDEM_TORCH_PYTHON=torch)

    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["✓", "TensorFlow", "tensorflow", "1.2.3", f"({tf})"] in lines
    assert ["✓", "PyTorch", "torch", "4.5.6", f"({torch})"] in lines
    assert "✗" not in done.stdout


def test_doctor_marks_what_is_missing_and_says_how_to_mend_it(
    tandem: Tandem, tmp_path: Path
) -> None:
    torch = interpreter(tmp_path / "torch-python", "exit 1")

    done = tandem(
        "doctor", "--json", TANDEM_TF_PYTHON=str(tmp_path / "gone"), TANDEM_TORCH_PYTHON=torch
    )

    assert done.returncode == 1
    assert done.stderr == ""
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert findings["Python"] == {
        "what": "Python",
        "found": True,
        "needed": True,
        "detail": sys.version.split()[0],
    }
    assert {"hardware", "cores to use", "free disk", "docker", "kubectl"} <= set(findings)
    for framework in ("TensorFlow", "PyTorch"):
        assert findings[framework]["needed"] is True
        assert findings[framework]["found"] is False
    assert "TANDEM_TF_PYTHON" in findings["TensorFlow"]["detail"]
    assert "make clean-env env" in findings["PyTorch"]["detail"]


@pytest.mark.parametrize(("image", "needed"), [("torch", {"PyTorch"}), ("core", set())])
def test_doctor_misses_no_framework_that_an_image_is_made_without(
    tandem_here: Tandem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    image: str,
    needed: set[str],
) -> None:
    torch = interpreter(tmp_path / "torch-python", "echo torch 4.5.6")
    monkeypatch.setenv("TANDEM_IMAGE", image)
    monkeypatch.setenv("TANDEM_TORCH_PYTHON", torch)

    done = tandem_here("doctor", "--json")

    assert done.returncode == 0
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)}
    frameworks = {name: findings[name] for name in ("TensorFlow", "PyTorch")}
    assert {name for name, found in frameworks.items() if found["needed"]} == needed
    assert frameworks["TensorFlow"]["detail"] == f"not in this image, which is tandem-{image}"


def test_doctor_names_the_make_target_of_a_missing_environment(
    tandem_here: Tandem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.environments.PROJECT_ROOT", tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    monkeypatch.delenv("TANDEM_TF_PYTHON", raising=False)
    monkeypatch.delenv("TANDEM_TORCH_PYTHON", raising=False)

    done = tandem_here("doctor", "--json")

    assert done.returncode == 1
    details = {finding["what"]: finding["detail"] for finding in json.loads(done.stdout)}
    assert details["TensorFlow"].endswith("make it with `make env-tf`")
    assert details["PyTorch"].endswith("make it with `make env-torch`")


def test_a_training_runs_figures_are_json_on_standard_output(
    tandem: Tandem, fake_torch: Callable[[str], dict[str, str]], quickstart: Config
) -> None:
    done = tandem("train", "torch", *CONFIG, "--json", **fake_torch(TRAINS))

    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)
    assert metrics.pop("wall_seconds") > 0
    assert (metrics["examples_per_second"], metrics["eval_accuracy"]) == (1234.5, 0.75)
    [run] = read_runs(quickstart)
    assert run.kind == "train"
    assert run.params["workers"] == "1"
    closing = done.stderr.splitlines()[-1]
    assert closing.startswith("✓ train torch")
    assert closing.endswith(f"1,234 examples/s, eval_accuracy 0.750, run {run.run_id}")


def test_a_crash_in_training_is_exit_code_1_with_the_last_line_and_the_log(
    tandem: Tandem, fake_torch: Callable[[str], dict[str, str]], quickstart: Config
) -> None:
    done = tandem("train", "torch", *CONFIG, **fake_torch(CRASHES))

    message = error_of(done, code=1)
    assert message.startswith("error: worker 0 ended with exit code 3: ValueError: loss is nan")
    log = Path(re.findall(r"\(log: (.*)\)$", message)[0])
    assert (quickstart.output.parent / log).read_text().endswith("ValueError: loss is nan\n")
    assert [line[:15] for line in done.stderr.splitlines()[:-1]] == [
        "  train torch .",
        "✗ train torch  ",
    ]
    assert [run.status for run in read_runs(quickstart)] == ["FAILED"]


@pytest.fixture
def stop_while_training(
    tmp_path: Path, command: dict[str, Any]
) -> Callable[..., tuple[psutil.Process, "subprocess.CompletedProcess[str]"]]:
    """Starts a command, and sends a signal to it once its worker is there."""

    def stop(
        sent: signal.Signals, environment: dict[str, str], *arguments: str
    ) -> tuple[psutil.Process, "subprocess.CompletedProcess[str]"]:
        around = command | {"env": command["env"] | environment}
        process = subprocess.Popen(
            [*TANDEM, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            **around,
        )
        try:
            deadline = time.monotonic() + 60
            while not (found := [*tmp_path.rglob("pid")]) or not found[0].read_text():
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline, "the worker did not start"
                time.sleep(0.05)
            worker = psutil.Process(int(found[0].read_text()))
            process.send_signal(sent)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        return worker, subprocess.CompletedProcess(arguments, process.returncode, out, err)

    return stop


@pytest.mark.parametrize(
    ("sent", "code", "status"),
    [(signal.SIGINT, 130, "KILLED"), (signal.SIGTERM, 0, "KILLED")],
    ids=["SIGINT", "SIGTERM"],
)
def test_a_stopped_command_ends_its_workers_and_marks_the_run(
    stop_while_training: Callable[..., Any],
    fake_torch: Callable[[str], dict[str, str]],
    quickstart: Config,
    sent: signal.Signals,
    code: int,
    status: str,
) -> None:
    worker, done = stop_while_training(sent, fake_torch(WAITS), "train", "torch", *CONFIG)

    assert done.returncode == code
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert not worker.is_running()
    assert [run.status for run in read_runs(quickstart)] == [status]


@pytest.mark.parametrize(
    "where", [(), ("--set", "tracking.uri=sqlite:///elsewhere.db")], ids=["default", "elsewhere"]
)
def test_a_run_that_saves_when_it_is_asked_to_end_says_by_which_command_it_goes_on(
    tandem: Tandem,
    stop_while_training: Callable[..., Any],
    fake_torch: Callable[[str], dict[str, str]],
    load_quickstart: Callable[..., Config],
    tmp_path: Path,
    where: tuple[str, ...],
) -> None:
    environment = fake_torch(SAVES)

    _, stopped = stop_while_training(
        signal.SIGTERM, environment, "train", "torch", *CONFIG, *where, "--json"
    )

    assert stopped.returncode == 0, stopped.stderr
    assert json.loads(stopped.stdout) == {}
    closing = stopped.stderr.splitlines()[-1]
    assert closing.startswith("✓ train torch")
    assert "asked to end, and saved after step 6; go on with `tandem " in closing
    given = closing.partition("`tandem ")[2].removesuffix("`").split()

    resumed = tandem(*given, "--json", **environment)

    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["eval_accuracy"] == 0.75
    store = "elsewhere.db" if where else "out/mlflow.db"
    [run] = read_runs(load_quickstart(f"tracking.uri=sqlite:///{tmp_path / store}"))
    # Of a run that has no step left to time there is no speed to tell.
    assert resumed.stderr.splitlines()[-1].endswith(f"   eval_accuracy 0.750, run {run.run_id}")


def test_a_worker_that_died_is_told_of_though_the_run_got_over_it(
    tandem: Tandem, fake_torch: Callable[[str], dict[str, str]], quickstart: Config
) -> None:
    environment = fake_torch(DIES_ONCE)

    done = tandem("train", "torch", *CONFIG, "--max-restarts", "1", "--json", **environment)

    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)
    assert metrics["restarts"] == 1
    [note] = [line for line in done.stderr.splitlines() if "starting all workers again" in line]
    assert note.startswith("worker 0 ended with SIGKILL")
    assert note.endswith("(1 of 1)")


def test_a_folder_that_holds_no_run_is_not_gone_on_with(
    tandem_here: Tandem, tmp_path: Path
) -> None:
    (tmp_path / "thesis").mkdir()

    message = error_of(tandem_here("train", "torch", "--resume", "thesis"))

    assert message.startswith("error: --resume thesis: no run there")
    assert files_in(tmp_path) == {}


def test_a_defect_is_one_line_too(tandem: Tandem, tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file where a folder should be made")

    done = tandem("ingest", *CONFIG, "--set", "output=occupied")

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: unexpected ")
    assert "Traceback" not in done.stderr
