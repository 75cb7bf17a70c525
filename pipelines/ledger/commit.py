"""Which commit the code is at, and what it was at another."""

import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from pipelines.environments import PROJECT_ROOT
from pipelines.errors import InputError

__all__ = ["Commit", "changed_since", "checked_out", "commit_of", "find_commit"]


@dataclass(frozen=True)
class Commit:
    """A commit of this repository."""

    revision: str
    """Its full name, with ``-dirty`` after it where the files differ from it."""
    time: datetime
    """UTC."""
    number: int
    """Commits from the first one to it."""


def commit_of(root: Path = PROJECT_ROOT) -> Commit | None:
    """The commit that is checked out; None where the project is no checkout of git's."""
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top) != root:
        return None
    commit = find_commit("HEAD", root)
    dirty = "-dirty" if _git(root, "status", "--porcelain") else ""
    return Commit(commit.revision + dirty, commit.time, commit.number)


def find_commit(revision: str, root: Path = PROJECT_ROOT) -> Commit:
    """The commit that a revision names.

    Raises:
        InputError: if the project is no checkout, or has no such commit.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top) != root:
        raise InputError(f"--against {revision}: {root} is not a git checkout")
    # A revision that begins with a dash would be taken for an option.
    found = _git(root, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    if not found:
        raise InputError(
            f"--against {revision}: git knows no such commit; name one of `git log`, a branch or "
            "a tag"
        )
    name = found.splitlines()[-1]
    seconds = _git(root, "show", "--no-patch", "--format=%ct", name)
    number = _git(root, "rev-list", "--count", name)
    return Commit(name, datetime.fromtimestamp(int(seconds or 0), UTC), int(number or 0))


def changed_since(
    revision: str, patterns: Sequence[str], root: Path = PROJECT_ROOT
) -> list[str] | None:
    """The tracked files of these patterns that differ from a commit's; None if git cannot tell."""
    said = _git(root, "diff", "--relative", "--name-only", revision, "--", *patterns)
    return None if said is None else said.splitlines()


@contextmanager
def checked_out(commit: Commit, root: Path = PROJECT_ROOT) -> Iterator[Path]:
    """The files of a commit in a temporary folder, for as long as the block runs."""
    archive = subprocess.run(
        ["git", "archive", "--format=tar", commit.revision],
        cwd=root, capture_output=True, check=True,
    ).stdout  # fmt: skip
    with TemporaryDirectory() as folder:
        with tarfile.open(fileobj=BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        yield Path(folder)


def _git(root: Path, *arguments: str) -> str | None:
    """What git says; None if it fails or is not there."""
    try:
        said = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return said.stdout.strip() if said.returncode == 0 else None
