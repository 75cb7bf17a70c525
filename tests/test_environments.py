import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "infra" / "requirements"
UV_VERSION = (REQUIREMENTS / "uv.txt").read_text().partition("uv==")[2].strip()

# Makes the skeleton of an environment; FAIL_ON names the subcommand that meets a dead network.
FAKE_UV = f"""#!/bin/bash
[[ $1 == --version ]] && echo "uv {UV_VERSION}" && exit
echo "$*" >>"$CALLS"
if [[ -n $FAIL_ON && $* == *$FAIL_ON* ]]; then
    echo "error: Failed to fetch: tcp connect error: Connection refused" >&2
    exit 2
fi
if [[ $1 == venv ]]; then
    mkdir -p "${{!#}}/bin"
    echo "version_info = 3.11.0" >"${{!#}}/pyvenv.cfg"
    ln -sf /bin/true "${{!#}}/bin/python"
fi
"""


class Clone:
    """A copy of what the script reads, with a folder of fake commands first on the PATH."""

    def __init__(self, root: Path) -> None:
        self.root = root / "clone"
        self.commands = root / "commands"
        self.calls = root / "calls"
        self.commands.mkdir()
        shutil.copytree(ROOT / "infra", self.root / "infra")
        shutil.copy(ROOT / "pyproject.toml", self.root)
        self.command("df", "echo header; echo disk 99999 1 99999 1% /")
        self.command("uv", FAKE_UV)

    def command(self, name: str, text: str) -> Path:
        path = self.commands / name
        path.write_text(text if text.startswith("#!") else f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
        return path

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self.commands}:/usr/bin:/bin",
            "HOME": str(self.root),
            "PYTHON": sys.executable,
            "CALLS": str(self.calls),
            "FAIL_ON": "",
        }
        return subprocess.run(
            [self.root / "infra" / "environments.sh", *arguments],
            env=environment | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    def change_lock(self, name: str) -> None:
        with (self.root / "infra" / "requirements" / f"{name}.txt").open("a") as lock:
            lock.write("left-pad==1.0\n")

    def uv_calls(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


@pytest.mark.parametrize("arguments", [(), ("jax",), ("tf", "torch")])
def test_wrong_usage_exits_2(clone: Clone, arguments: tuple[str, ...]) -> None:
    result = clone.run(*arguments)
    assert result.returncode == 2
    assert result.stderr == "usage: infra/environments.sh torch|tf|all|cuda|bench\n"


@pytest.mark.parametrize("text", [None, "echo 'shim: not installed' >&2; exit 127"])
def test_missing_python_is_named(clone: Clone, text: str | None) -> None:
    python = clone.commands / "python3.11" if text is None else clone.command("python3.11", text)
    result = clone.run("all", PYTHON=str(python))
    assert result.returncode == 1
    assert result.stderr.startswith("Python 3.11 is needed")
    assert str(python) in result.stderr


def test_little_disk_says_free_and_needed(clone: Clone) -> None:
    clone.command("df", "echo header; echo disk 99999 1 123 1% /")
    result = clone.run("tf")
    assert result.returncode == 1
    assert re.search(rf"in {clone.root}: 123 MB free, \d+ MB needed for tf", result.stderr)
    assert clone.uv_calls() == []


def test_cpu_build_of_pytorch_needs_less_disk(clone: Clone) -> None:
    clone.command("df", "echo header; echo disk 99999 1 5000 1% /")
    assert "UV_TORCH_BACKEND=cpu" in clone.run("torch").stderr
    assert clone.run("torch", UV_TORCH_BACKEND="cpu").returncode == 0


def test_complete_environment_is_left_alone(clone: Clone) -> None:
    assert clone.run("all").returncode == 0
    calls = clone.uv_calls()
    clone.command("uv", "echo called >>$CALLS; exit 1")
    result = clone.run("all")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert clone.uv_calls() == calls


def test_all_leaves_out_what_only_benchmarks_need(clone: Clone) -> None:
    assert clone.run("all").returncode == 0
    assert not (clone.root / ".venv-bench").exists()
    assert clone.run("bench").returncode == 0
    assert (clone.root / ".venv-bench" / "tandem-stamp").exists()


def cuda_of_tensorflow(calls: list[str]) -> list[str]:
    return [call for call in calls if "tensorflow[and-cuda]" in call]


def test_for_gpus_both_frameworks_get_builds_for_the_same_cuda(clone: Clone) -> None:
    clone.command("uv", FAKE_UV + 'echo "backend ${UV_TORCH_BACKEND:-none} $1" >>"$CALLS"\n')

    assert clone.run("cuda").returncode == 0

    calls = clone.uv_calls()
    [more] = cuda_of_tensorflow(calls)
    assert f"--python {clone.root}/.venv-tf/bin/python" in more
    assert {call for call in calls if call.startswith("backend")} == {
        "backend cu126 venv", "backend cu126 pip",
    }  # fmt: skip
    clone.calls.unlink()
    assert clone.run("cuda").returncode == clone.run("all").returncode == 0
    assert clone.uv_calls() == []


def test_environments_without_cuda_are_made_again_for_gpus(clone: Clone) -> None:
    clone.run("all")
    clone.calls.unlink()

    assert clone.run("cuda").returncode == 0

    assert sum(call.startswith("venv") for call in clone.uv_calls()) == 2
    assert len(cuda_of_tensorflow(clone.uv_calls())) == 1


def test_an_environment_that_was_for_gpus_stays_so(clone: Clone) -> None:
    clone.run("cuda")
    clone.calls.unlink()
    clone.change_lock("tf")

    assert clone.run("all").returncode == 0

    assert len(cuda_of_tensorflow(clone.uv_calls())) == 1
    clone.calls.unlink()
    assert clone.run("cuda").returncode == 0
    assert clone.uv_calls() == []


def test_changed_lock_remakes_its_environment_only(clone: Clone) -> None:
    clone.run("all")
    clone.calls.unlink()
    clone.change_lock("tf")
    assert clone.run("all").returncode == 0
    assert [call for call in clone.uv_calls() if call.startswith("venv")] == [
        f"venv --quiet --clear --no-project --python {sys._base_executable} {clone.root}/.venv-tf"
    ]


def test_interrupted_installation_is_made_again(clone: Clone) -> None:
    failed = clone.run("tf", FAIL_ON="--editable")
    assert failed.returncode == 1
    assert failed.stderr.endswith("uv failed: see above.\n")
    assert clone.run("tf").returncode == 0
    assert sum(call.startswith("venv") for call in clone.uv_calls()) == 2


def test_unreachable_index_says_what_to_do(clone: Clone) -> None:
    result = clone.run("tf", FAIL_ON="pip")
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("The package index could not be reached")
    assert "PIP_INDEX_URL" in last


def test_unreachable_index_stops_the_bootstrap_of_uv(clone: Clone) -> None:
    (clone.commands / "uv").unlink()
    # Port 9 is the discard service: nothing listens there.
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/index", "PIP_CONFIG_FILE": os.devnull}
    result = clone.run("tf", **nowhere)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("The package index could not be reached")


def test_pip_settings_reach_uv(clone: Clone) -> None:
    wheels = clone.root / "wheels"
    wheels.mkdir()
    clone.command("uv", FAKE_UV + 'echo "$UV_FIND_LINKS $UV_DEFAULT_INDEX" >>"$CALLS"\n')
    settings = clone.root / "pip.conf"
    settings.write_text(
        "[global]\nindex-url = http://mirror.test/index\n"
        f"find-links =\n    {wheels}\n    {clone.root}/missing\n"
    )
    assert clone.run("tf", PIP_CONFIG_FILE=str(settings)).returncode == 0
    assert f"{wheels} http://mirror.test/index" in clone.uv_calls()


def pins(lock: str) -> dict[str, str]:
    lines = (REQUIREMENTS / f"{lock}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def direct_dependencies(*extras: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    lines = project["dependencies"] + [line for extra in extras for line in optional[extra]]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("lock", ["torch", "tf", "bench"])
def test_lock_names_versions_and_nothing_else(lock: str) -> None:
    text = (REQUIREMENTS / f"{lock}.txt").read_text()
    assert "://" not in text
    for line in text.splitlines():
        # A local version such as +cpu would tie the lock to one build.
        assert line.startswith("#") or re.fullmatch(r"[a-z0-9-]+==[a-z0-9.]+", line), line


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("torch", ["torch", "kubeflow", "submit", "cloud", "dask", "server", "manifests", "dev"]),
        ("tf", ["tf", "dev"]),
        ("bench", ["bench"]),
    ],
)
def test_lock_pins_every_direct_dependency(lock: str, extras: list[str]) -> None:
    pinned = pins(lock)
    for requirement in direct_dependencies(*extras):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is missing: run `make lock`"
        assert requirement.specifier.contains(version), f"{requirement} is pinned to {version}"


@pytest.mark.parametrize("lock", ["torch", "bench"])
def test_lock_leaves_pytorchs_build_open(lock: str) -> None:
    assert not [name for name in pins(lock) if re.match("nvidia-|cuda-|triton", name)]


def test_tf_lock_follows_the_overrides() -> None:
    pinned = pins("tf")
    for line in (REQUIREMENTS / "tf-overrides.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            override = Requirement(line)
            assert override.specifier.contains(pinned[override.name]), line
