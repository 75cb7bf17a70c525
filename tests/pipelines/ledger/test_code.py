from pathlib import Path

from pipelines.environments import PROJECT_ROOT
from pipelines.ledger.code import code_of
from pipelines.strategies import FRAMEWORKS


def test_lines_and_branches_are_counted_in_all_files_below_a_folder(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "one.py").write_text(
        "# A comment\n\ndef sign(x):\n    if x < 0:\n        return -1\n    return 1 if x else 0\n"
    )
    (tmp_path / "two.py").write_text("def nothing():\n    pass\n\n\nVALUE = 3\n")
    (tmp_path / "notes.txt").write_text("not code\n")

    found = code_of(tmp_path)

    assert found.lines == 4 + 3
    assert found.cyclomatic_complexity == 3 + 1


def test_the_twins_are_of_one_size() -> None:
    lines = [code_of(PROJECT_ROOT / f"{framework}_pipeline").lines for framework in FRAMEWORKS]

    assert 0.7 < lines[0] / lines[1] < 1.4
