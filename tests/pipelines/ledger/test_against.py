import json
import subprocess
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.errors import InputError
from pipelines.ledger.against import difference_to
from pipelines.ledger.commit import checked_out, commit_of, find_commit
from pipelines.ledger.model import Ledger
from pipelines.ledger.terminal import print_difference
from pipelines.runs import KIND_TAG, RunRecord

PROJECT = """[project]
name = "tandem"
[project.optional-dependencies]
tf = ["tfx[kfp]=={tfx}"]
torch = ["torch==2.13.*"]
kubeflow = ["kfp==2.17.0"{more}]
"""
CONFIG = """from pydantic import BaseModel
class Side(BaseModel):
    one: int = 1
    two: int = 2
class Config(BaseModel):
    tf: Side = Side()
    torch: Side = Side()
"""


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@b.example")
    said = subprocess.run(
        ["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True
    )
    return said.stdout.strip()


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with one commit, and changes on top of it."""
    root = tmp_path / "project"
    write(
        root,
        {
            "pyproject.toml": PROJECT.format(tfx="1.20.0", more=""),
            "pipelines/__init__.py": "",
            "pipelines/config.py": CONFIG,
            "tf_pipeline/train.py": "def train():\n    pass\n",
            "tf_pipeline/gone.py": "X = 1\n",
            "tf_pipeline/same.py": "Y = 1\n",
            "torch_pipeline/train.py": "def train():\n    pass\n",
            "infra/requirements/tf.txt": "# lock\ntfx==1.20.0\nold==1\nsame==1\n",
            "infra/requirements/torch.txt": "torch==2.13.0\n",
        },
    )
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "First")
    (root / "tf_pipeline/gone.py").unlink()
    write(
        root,
        {
            "pyproject.toml": PROJECT.format(tfx="1.21.0", more=', "new>1"'),
            "tf_pipeline/train.py": "def train(x):\n    if x:\n        return 1\n    return 2\n",
            "tf_pipeline/runners.py": "Z = 1\n",
            "infra/requirements/tf.txt": "# lock\ntfx==1.21.0\nnew==2\nsame==1\n",
        },
    )
    return root


@pytest.fixture
def ledgers() -> dict[str, Ledger]:
    metrics = {"total_dependencies": 205.0, "code_lines": 6.0, "config_fields": 5.0}
    return {
        framework: Ledger(
            framework=framework,
            created="",
            metrics=metrics,
            not_checked={},
            asked=[],
            files=[],
            bounds=[],
        )
        for framework in ("tf", "torch")
    }


def test_a_commit_has_its_place_and_says_whether_files_differ(root: Path) -> None:
    commit = commit_of(root)
    assert commit is not None
    assert commit.revision == git(root, "rev-parse", "HEAD") + "-dirty"
    assert commit.number == 1
    assert commit.time.timestamp() == int(git(root, "show", "-s", "--format=%ct"))

    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "Second")
    later = commit_of(root)
    assert later is not None
    assert (later.revision, later.number) == (git(root, "rev-parse", "HEAD"), 2)
    assert find_commit("HEAD~1", root).revision == commit.revision.removesuffix("-dirty")


def test_outside_of_a_checkout_there_is_no_commit(root: Path, tmp_path: Path) -> None:
    assert commit_of(tmp_path) is None
    assert commit_of(root / "pipelines") is None  # it is not the project that git has here
    with pytest.raises(InputError, match=r"--against HEAD: .* is not a git checkout"):
        find_commit("HEAD", tmp_path)


@pytest.mark.parametrize("revision", ["nowhere", "--all", "", "HEAD:pyproject.toml"])
def test_a_revision_that_is_none_is_refused(root: Path, revision: str) -> None:
    with pytest.raises(InputError, match=r"^--against .*git knows no such commit"):
        find_commit(revision, root)


def test_what_git_can_tell_is_counted_then_and_now(root: Path, ledgers: dict[str, Ledger]) -> None:
    difference = difference_to("HEAD", ledgers, [], root)

    assert difference.commit == git(root, "rev-parse", "HEAD")
    side = difference.sides["tf"]
    assert side.metrics["code_lines"] == (2 + 1 + 1, 6)
    assert side.metrics["config_fields"] == (2, 5)
    assert side.metrics["total_dependencies"] == (None, 205)
    assert [(each.file, each.lines, each.cyclomatic_complexity) for each in side.files] == [
        ("gone.py", (1, None), (0, None)),
        ("runners.py", (None, 1), (None, 0)),
        ("train.py", (2, 4), (1, 2)),
    ]
    assert side.packages == {"new": (None, "2"), "old": ("1", None), "tfx": ("1.20.0", "1.21.0")}
    assert side.requirements == {"tfx": ("tfx[kfp]==1.20.0", "tfx[kfp]==1.21.0")}
    assert side.mlflow_run_id is None
    torch = difference.sides["torch"]
    assert (torch.files, torch.packages) == ([], {})
    assert torch.requirements == {"new": (None, "new>1")}
    json.loads(difference.model_dump_json())


def test_a_tracked_ledger_of_that_commit_tells_the_rest(
    root: Path, ledgers: dict[str, Ledger]
) -> None:
    def run(number: int, commit: str, packages: float) -> RunRecord:
        return RunRecord(
            run_id=str(number),
            name="tf ledger",
            status="FINISHED",
            start_time=number,
            params={"framework": "tf", "commit": commit},
            tags={KIND_TAG: "ledger"},
            metrics={"total_dependencies": packages, "code_lines": 1.0},
        )

    commit = git(root, "rev-parse", "HEAD")
    records = [run(1, commit, 190.0), run(2, commit, 200.0), run(3, f"{commit}-dirty", 204.0)]

    side = difference_to(commit[:8], ledgers, records, root).sides["tf"]

    assert side.mlflow_run_id == "2"
    assert side.metrics["total_dependencies"] == (200, 205)
    assert side.metrics["code_lines"] == (4, 6)  # counted afresh


def test_the_difference_is_told_side_by_side(root: Path, ledgers: dict[str, Ledger]) -> None:
    page = StringIO()
    print_difference(difference_to("HEAD", ledgers, [], root), Console(file=page, width=100))

    text = page.getvalue()
    assert "TensorFlow then" in text
    for line in (
        "gone.py: gone, 1 lines",
        "runners.py: new, 1 lines",
        "train.py: 2 → 4 lines, complexity 1 → 2",
        "asks for tfx[kfp]==1.21.0, before tfx[kfp]==1.20.0",
        "asks for new>1, which is new",
        "Lock: new not there → 2; old 1 → gone; tfx 1.20.0 → 1.21.0",
    ):
        assert line in text


def test_the_files_of_a_commit_are_gone_after_use(root: Path) -> None:
    with checked_out(find_commit("HEAD", root), root) as folder:
        assert (folder / "tf_pipeline" / "gone.py").read_text() == "X = 1\n"
    assert not folder.exists()


def test_a_wrong_revision_is_refused_before_anything_is_measured(
    load_quickstart: Callable[..., object], capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.cli import main

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr("sys.argv", ["tandem", "ledger", "--against", "no-such-revision"])
        main()

    assert ended.value.code == 2
    assert "--against no-such-revision" in capsys.readouterr().err
