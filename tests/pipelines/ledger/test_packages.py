from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.errors import InputError
from pipelines.ledger.packages import Demand, packages_of, packages_under

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Puts a package into a folder as an installer does, with a file of so many bytes."""

    def make(name: str, *requires: str, size: int = 0, extras: tuple[str, ...] = ()) -> None:
        info = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        lines = [f"Requires-Dist: {line}" for line in requires]
        lines += [f"Provides-Extra: {extra}" for extra in extras]
        header = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        (info / "METADATA").write_text(header + "\n".join(lines) + "\n")
        (tmp_path / f"{name}.py").write_bytes(b"#" * size)
        (info / "RECORD").write_text(f"{name}.py,,\n{name}/__pycache__/gone.pyc,,\n")

    return make


def test_a_side_brings_what_its_extras_require_and_all_that_follows(
    install: Install, tmp_path: Path
) -> None:
    install(
        "tandem",
        "shared",
        "Frame.Work>=1; extra == 'tf'",
        "other; extra == 'torch'",
        size=1000,
        extras=("tf", "torch"),
    )
    install("frame-work", "under[fast]", "windows-only; sys_platform == 'win32'", size=10)
    install("under", "plain", "quick; extra == 'fast'", "slow; extra == 'old'", size=20)
    install("quick", "frame-work", size=3)  # a circle
    for name, size in (("plain", 4), ("slow", 500), ("shared", 500), ("other", 500)):
        install(name, size=size)

    found = packages_under([str(tmp_path)], ["tf"])

    assert found.asked == ("frame-work>=1",)
    assert found.direct == ("frame-work",)
    assert found.versions["plain"] == "1.0"
    assert found.modules == {"frame-work", "under", "quick", "plain"}
    assert found.total == ("frame-work", "plain", "quick", "under")
    assert found.install_bytes == 10 + 20 + 3 + 4
    assert packages_under([str(tmp_path)], ["torch"]).total == ("other",)


def test_what_is_asked_for_and_not_installed_does_not_count_as_installed(
    install: Install, tmp_path: Path
) -> None:
    install("tandem", "missing; extra == 'tf'")

    found = packages_under([str(tmp_path)], ["tf"])

    assert (found.direct, found.total, found.install_bytes) == (("missing",), (), 0)


def test_what_packages_demand_of_each_other_is_what_holds_on_this_platform(
    install: Install, tmp_path: Path
) -> None:
    install("tandem", "top==1.*; extra == 'tf'", extras=("tf",))
    install("top", "Under_Neath[fast]<2,>=1", "old<1; python_version < '3'", "missing~=3.1")
    install("under-neath", "quick<=1; extra == 'fast'", extras=("fast",))
    install("quick")

    assert packages_under([str(tmp_path)], ["tf"]).demands == (
        Demand("top", "missing", "~=3.1"),
        Demand("top", "under-neath", "<2,>=1"),
        Demand("under-neath", "quick", "<=1"),
    )


def test_an_environment_without_the_project_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{tmp_path} has no tandem; install it"):
        packages_under([str(tmp_path)], ["tf"])


def test_the_torch_side_here_brings_its_framework_and_its_runner() -> None:
    found = packages_of("torch")

    assert set(found.direct) == {"deepspeed", "kfp", "lightning", "torch"}
    assert {"torch", "lightning", "pytorch-lightning", "numpy"} <= set(found.total)
    assert "mlflow" not in found.total  # is what both sides share
    assert found.install_bytes > 100e6
