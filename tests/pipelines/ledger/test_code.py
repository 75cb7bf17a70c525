from pathlib import Path

from pipelines.environments import PROJECT_ROOT
from pipelines.ledger.code import Code, code_of, glue_share, total_of
from pipelines.strategies import FRAMEWORKS


def test_lines_and_branches_are_counted_in_all_files_below_a_folder(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "one.py").write_text(
        "# A comment\n\ndef sign(x):\n    if x < 0:\n        return -1\n    return 1 if x else 0\n"
    )
    (tmp_path / "two.py").write_text("def nothing():\n    pass\n\n\nVALUE = 3\n")
    (tmp_path / "notes.txt").write_text("not code\n")

    found = code_of(tmp_path)

    assert found == {"deeper/one.py": Code(4, 3), "two.py": Code(3, 1)}
    assert total_of(found) == Code(4 + 3, 3 + 1)


def test_glue_is_what_ties_training_to_processes_and_orchestrators() -> None:
    files = {
        "train.py": Code(60, 1),
        "runners.py": Code(30, 1),
        "__main__.py": Code(10, 1),
        "workloads/__init__.py": Code(100, 1),
    }

    assert glue_share(files) == 40 / 200
    assert glue_share({}) == 0


def test_the_twins_are_of_one_size() -> None:
    lines = [
        total_of(code_of(PROJECT_ROOT / f"{framework}_pipeline")).lines for framework in FRAMEWORKS
    ]

    assert 0.7 < lines[0] / lines[1] < 1.4
