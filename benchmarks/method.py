"""The method itself, checked: how often it sees a difference that is not there, or misses one."""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.data import OutputOption
from benchmarks.series import Series
from pipelines.config import Config, load_config
from pipelines.environments import PROJECT_ROOT
from pipelines.strategies import FRAMEWORKS, Framework


def main(
    only: Annotated[Framework | None, typer.Option(help="Leave the other alone.")] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of runs in each comparison.")] = 60,
    steps: Annotated[int, typer.Option(min=51, help="Steps of each run, 50 of them warm-up.")] = 300,
    runs: Annotated[Path, typer.Option(help="Folder that keeps the runs; goes on with it.")] = Path(
        "out/method"
    ),
    measure: Annotated[bool, typer.Option(help="Or only evaluate what is there.")] = True,
    output: OutputOption = None,
) -> None:
    """Each framework against itself, and against itself slowed down by a known share."""
    series = [Series(_config(runs / each, steps), each) for each in ([only] if only else FRAMEWORKS)]
    for each in series:
        if measure:
            each.measure(pairs, lambda text: typer.echo(text, err=True))


def _config(output: Path, steps: int) -> Config:
    """The quickstart's runs on one worker."""
    settings = (f"output={output}", f"training.steps={steps}", "study.workers=[1]", "name=method")
    return load_config(PROJECT_ROOT / "configs" / "quickstart.yaml", [*settings])


if __name__ == "__main__":
    typer.run(main)
