import json
import sys
from pathlib import Path

import pytest

from pipelines.config import Config, load_config
from pipelines.errors import WorkError
from pipelines.strategies import Framework
from pipelines.train_step import train_in_step

REPORT = """
import json, os, sys
from pathlib import Path

rank = os.environ.get("RANK") or json.loads(os.environ["TF_CONFIG"])["task"]["index"]
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
said = {"stage": sys.argv[1], "options": options, "config": Path(options["--config"]).read_text()}
Path(options["--output"], f"rank{rank}.json").write_text(json.dumps(said))
print("trained", flush=True)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def step(framework: Framework, config: Config, folder: Path) -> None:
    train_in_step(
        framework,
        config.for_steps(),
        2,
        dataset=folder / "data",
        transformed=folder / "transformed",
        transform_fn=folder / "transform_fn",
        output=folder / "model",
    )


def fake(framework: Framework, program: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """A framework whose package is found in the folder, and run by this interpreter."""
    patch.chdir(folder)
    patch.setenv(f"TANDEM_{framework.upper()}_PYTHON", sys.executable)
    package = folder / f"{framework}_pipeline"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(program)


@pytest.mark.parametrize(
    ("framework", "strategy"), [("tf", "multi_worker_mirrored"), ("torch", "fsdp")]
)
def test_several_workers_get_processes_of_their_own_with_the_configured_strategy(
    framework: Framework,
    strategy: str,
    quickstart: Config,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fake(framework, REPORT, tmp_path, monkeypatch)
    chosen = getattr(quickstart, framework).model_copy(update={"strategy": strategy})

    step(framework, quickstart.model_copy(update={framework: chosen}), tmp_path)

    said = [json.loads((model / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert [each["stage"] for each in said] == ["step", "step"]
    options = said[0]["options"]
    assert options.pop("--config")
    assert options == {
        "--output": str(model),
        "--dataset": str(tmp_path / "data"),
        "--transformed": str(tmp_path / "transformed"),
        "--transform-fn": str(tmp_path / "transform_fn"),
    }
    written = tmp_path / "again.yaml"
    written.write_text(said[1]["config"])
    assert load_config(written).strategy(framework) == strategy
    assert load_config(written).training == quickstart.training
    printed = capfd.readouterr().out.splitlines()
    assert {"[rank0] trained", "[rank1] trained"} <= set(printed)


def test_a_worker_that_fails_fails_the_step(
    quickstart: Config, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("torch", "raise SystemExit('loss is nan')", tmp_path, monkeypatch)

    with pytest.raises(WorkError, match="ended with exit code 1: loss is nan"):
        step("torch", quickstart, tmp_path)
