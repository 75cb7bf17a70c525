import sys
from pathlib import Path

import pytest

from pipelines.ledger import warned
from pipelines.ledger.unchecked import Unchecked
from pipelines.ledger.warned import Watch, read_warnings

SITE = "/anywhere/lib/python3.11/site-packages"
TESTS = ("test_one.py", "workloads/test_two.py")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose TensorFlow twin has two files of tests."""
    for file in TESTS:
        path = tmp_path / "tests" / "tf_pipeline" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "config.py").touch()
    monkeypatch.setattr(warned, "installed_digest", lambda python: "packages")
    monkeypatch.setattr(warned, "find_python", lambda framework: Path(sys.executable))
    return tmp_path


def run(watch: Watch, *files: str) -> None:
    for file in files:
        watch.ran(f"tests/tf_pipeline/{file}::test_something")


def test_warnings_are_kept_once_the_twins_tests_have_all_run(root: Path) -> None:
    folder = root / "kept"
    watch = Watch(root, folder)
    here = "tests/tf_pipeline/test_one.py::test_something"
    watch.warned(DeprecationWarning, "old <f at 0x7f01>\nmore", f"{SITE}/keras/layer.py", here)
    watch.warned(DeprecationWarning, "old <f at 0x7f99>", f"{SITE}/keras/layer.py", here)
    for line in (1, 2):
        said = f"From {root}/a.py:{line}: f is deprecated"
        watch.warned(DeprecationWarning, said, f"{SITE}/tensorflow/deprecation.py", here)
    watch.warned(FutureWarning, "soon", f"{root}/tf_pipeline/train.py", here)
    watch.warned(PendingDeprecationWarning, "on import", f"{SITE}/six.py", "")
    watch.warned(UserWarning, "something else", f"{SITE}/keras/layer.py", here)
    watch.warned(DeprecationWarning, "the frame's", f"{SITE}/sqlalchemy/orm.py", here)
    watch.warned(
        FutureWarning, "a shared test's", f"{SITE}/keras/a.py", "tests/pipelines/test_a.py"
    )
    run(watch, TESTS[0])
    assert watch.keep() == []

    run(watch, TESTS[1])
    assert [path.name for path in watch.keep()] == ["deprecations-tf.json"]

    found = read_warnings("tf", {"keras", "six", "tensorflow"}, folder, root)
    assert [(each.module, each.category, each.message) for each in found] == [
        ("keras", "DeprecationWarning", "old <f at 0x>"),
        ("six", "PendingDeprecationWarning", "on import"),
        ("tensorflow", "DeprecationWarning", "f is deprecated"),
        ("tf_pipeline", "FutureWarning", "soon"),
    ]
    assert str(root) not in (folder / "deprecations-tf.json").read_text()


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("pipelines/config.py", "the code"),
        ("tests/tf_pipeline/test_one.py", "a test"),
        ("tests/tf_pipeline/conftest.py", "a test"),
        (None, "what is installed"),
    ],
)
def test_warnings_of_other_code_tests_or_packages_are_not_these_ones(
    root: Path, monkeypatch: pytest.MonkeyPatch, file: str | None, changed: str
) -> None:
    watch = Watch(root, root)
    run(watch, *TESTS)
    watch.keep()
    assert read_warnings("tf", {"keras"}, root, root) == []

    if file is None:
        monkeypatch.setattr(warned, "installed_digest", lambda python: "others")
    else:
        (root / file).write_text("STEP = 2\n")

    with pytest.raises(
        Unchecked,
        match=f"^{changed} has changed since the tests ran; run `make test-tf`$",
    ):
        read_warnings("tf", {"keras"}, root, root)


def test_warnings_that_were_not_kept_or_are_damaged_are_not_none(root: Path) -> None:
    with pytest.raises(Unchecked, match=r"^run `make test-torch`$"):
        read_warnings("torch", {"torch"}, root, root)
    (root / "deprecations-tf.json").write_text("{}")
    with pytest.raises(Unchecked, match="again"):
        read_warnings("tf", {"keras"}, root, root)
