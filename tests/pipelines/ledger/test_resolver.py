import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.version import Version

from pipelines.ledger import resolver
from pipelines.ledger.index import Release
from pipelines.ledger.resolver import resolutions_of
from pipelines.ledger.tools import Tools, find_tools, without_addresses
from pipelines.ledger.unchecked import Unchecked

PROLOGUE = f"""#!{sys.executable}
import sys
options = sys.argv[1:]
asked = sys.stdin.read().split()
glibc = options[options.index("--python-platform") + 1].removeprefix("x86_64-manylinux_")
built = [word for last, word in zip(options, options[1:]) if last == "--no-binary"]

def refuse(*lines):
    sys.exit("\\n".join(lines))

"""
NO_SOLUTION = "error: No solution found when resolving dependencies"


@pytest.fixture
def uv(tmp_path: Path) -> Callable[[str], Tools]:
    """A uv that does what the program says."""

    def make(program: str) -> Tools:
        path = tmp_path / "uv"
        path.write_text(PROLOGUE + program)
        path.chmod(0o755)
        return Tools(path, None)

    return make


def test_every_python_is_tried_on_both_ages_of_glibc(uv: Callable[[str], Tools]) -> None:
    tools = uv(
        'assert asked == ["tfx[kfp]==1.21.0", "other"] and built == ["old"]\n'
        'if glibc == "2_28":\n'
        f'    refuse("{NO_SOLUTION}", "  cause: Because thing has no wheels", "     and so on.",'
        ' "", "hint: see https://user:secret@index/simple")\n'
    )
    told: list[str] = []

    found, sources = resolutions_of(["tfx[kfp]==1.21.0", "other"], ["old"], tools, told.append)

    assert sources == ["old"]
    assert [(each.python, each.glibc, each.resolved) for each in found] == [
        (python, glibc, glibc == "2.39")
        for python in ("3.10", "3.11", "3.12", "3.13")
        for glibc in ("2.28", "2.39")
    ]
    assert {each.reason for each in found} == {"Because thing has no wheels and so on.", ""}
    assert told[-1] == "resolved 8 of 8 platforms"


@pytest.mark.parametrize("has_wheel", [False, True])
def test_only_what_nobody_has_a_wheel_of_may_be_built(
    uv: Callable[[str], Tools], monkeypatch: pytest.MonkeyPatch, has_wheel: bool
) -> None:
    release = Release(Version("1"), None, has_wheel=has_wheel, yanked=False)
    monkeypatch.setattr(
        resolver,
        "releases_of",
        lambda names, tools: {name: {release.version: release} for name in names},
    )
    tools = uv(
        'if "rouge" not in built:\n'
        f'    refuse("{NO_SOLUTION}", "  cause: rouge has no usable wheels",'
        ' "hint: Wheels are required for `rouge` because building from source is disabled")\n'
    )

    found, sources = resolutions_of(["thing"], [], tools)

    assert {each.resolved for each in found} == {not has_wheel}
    assert sources == ([] if has_wheel else ["rouge"])


def test_an_index_that_does_not_answer_is_no_failure_to_resolve(
    uv: Callable[[str], Tools],
) -> None:
    tools = uv('refuse("error: Failed to fetch: `https://user:secret@index/simple/thing/`")')

    with pytest.raises(Unchecked, match=r"^the package index does not answer$"):
        resolutions_of(["thing"], [], tools)


def test_no_address_is_told() -> None:
    said = "error: Failed to fetch: `https://user:secret@host/simple/` (caused by file:///x)"

    assert without_addresses(said) == "error: Failed to fetch: an address (caused by an address)"


def test_pips_index_is_passed_to_uv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    infra = tmp_path / "infra"
    infra.mkdir()
    (infra / "uv.sh").write_text(
        "find_python() { :; }\nfind_uv() { uv=/somewhere/uv; }\n"
        "pass_pip_settings() { export UV_DEFAULT_INDEX=https://mirror/simple; }\n"
    )
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "SSL_CERT_FILE"):
        monkeypatch.delenv(variable, raising=False)

    assert find_tools(tmp_path) == Tools(Path("/somewhere/uv"), "https://mirror/simple")

    (infra / "uv.sh").write_text("find_python() { exit 1; }\n")
    with pytest.raises(Unchecked, match="could not be found"):
        find_tools(tmp_path)
    (infra / "uv.sh").unlink()
    with pytest.raises(Unchecked, match=r"no infra/uv\.sh"):
        find_tools(tmp_path)
