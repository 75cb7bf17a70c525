import pytest

from pipelines.ledger import configuration
from pipelines.ledger.configuration import (
    config_fields,
    dag_lines,
    lines_of_manifest,
    script_lines,
)
from pipelines.ledger.unchecked import Unchecked


def test_fields_are_counted_with_those_of_the_parts() -> None:
    assert config_fields("tf") == 5
    assert config_fields("torch") == 2 + 5 + 2 + 1


def test_slurms_options_are_lines_and_comments_are_not() -> None:
    text = "#!/bin/bash\n# About\n#SBATCH --nodes=2\n\nset -e\n  # more\nexec srun train\n"

    assert lines_of_manifest(text) == 3


def test_the_dag_is_compiled_by_its_framework() -> None:
    assert dag_lines("torch") > 300
    assert 10 < script_lines("torch") < 40


def test_a_dag_that_does_not_compile_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(configuration, "find_python", lambda framework: "false")

    with pytest.raises(Unchecked, match=r"^the DAG does not compile: no output$"):
        dag_lines("torch")
