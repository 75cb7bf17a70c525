"""What has to be written down to run a side: fields of the configuration, lines of manifests."""

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel

from pipelines.config import Config
from pipelines.environments import PROJECT_ROOT, find_python
from pipelines.ledger.unchecked import Unchecked
from pipelines.strategies import Framework

__all__ = ["config_fields", "dag_lines", "lines_of_manifest", "script_lines"]

_SECONDS = 300


def config_fields(framework: Framework) -> int:
    """The fields of the framework's section of the configuration, those of its parts included."""
    section = Config.model_fields[framework].annotation
    assert isinstance(section, type) and issubclass(section, BaseModel)
    return _leaves(section)


def script_lines(framework: Framework) -> int:
    """Lines of the framework's batch script for Slurm.

    Raises:
        Unchecked: if there is none.
    """
    script = PROJECT_ROOT / "infra" / "slurm" / f"{framework}.sbatch"
    if not script.exists():
        raise Unchecked(f"no infra/slurm/{script.name} here")
    return lines_of_manifest(script.read_text())


def dag_lines(framework: Framework) -> int:
    """Lines of the framework's DAG as compiled for Kubeflow, by the configuration's defaults.

    Its process imports the whole framework, which takes seconds.

    Raises:
        Unchecked: if it does not compile.
    """
    with TemporaryDirectory() as folder:
        output = Path(folder)
        config = Config(name="ledger", output=output).dump(output / "config.yaml")
        try:
            done = subprocess.run(
                [
                    *(find_python(framework), "-m", f"{framework}_pipeline", "compile"),
                    *("--config", config, "--output", output / "compiled"),
                    *("--image", "image", "--dataset", "/dataset"),
                    *("--artifacts", "/artifacts", "--serving", "/serving"),
                ],
                cwd=PROJECT_ROOT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unchecked(f"the DAG took longer than {_SECONDS} s to compile") from None
        compiled = output / "compiled" / f"{framework}_pipeline.yaml"
        if done.returncode != 0 or not compiled.exists():
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise Unchecked(f"the DAG does not compile: {last}")
        return lines_of_manifest(compiled.read_text())


def lines_of_manifest(text: str) -> int:
    """Lines of YAML or of a script, without blank ones and comments; Slurm's options count."""
    lines = [line.strip() for line in text.splitlines()]
    return sum(bool(line) and (line[0] != "#" or line.startswith("#SBATCH")) for line in lines)


def _leaves(section: type[BaseModel]) -> int:
    kinds = [field.annotation for field in section.model_fields.values()]
    return sum(
        _leaves(kind) if isinstance(kind, type) and issubclass(kind, BaseModel) else 1
        for kind in kinds
    )
