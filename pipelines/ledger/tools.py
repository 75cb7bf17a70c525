"""uv and the package index as this machine has them set up: by ``infra/uv.sh``, as for the locks.

The index's address may hold a password. It is kept in memory only, and shown nowhere.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pipelines.environments import PROJECT_ROOT
from pipelines.ledger.unchecked import Unchecked

__all__ = ["Tools", "find_tools", "in_parallel", "without_addresses"]

_Given = TypeVar("_Given")
_Got = TypeVar("_Got")

_SECONDS_TO_FIND = 60
_PLAINLY = {
    "UV_HTTP_TIMEOUT": "10",
    "UV_HTTP_RETRIES": "1",
    "UV_NO_PROGRESS": "1",
    "NO_COLOR": "1",
}
_ASK = """
source infra/uv.sh && find_python && find_uv && pass_pip_settings && printf '%s\\n' \
    "$uv" "${UV_DEFAULT_INDEX:-${UV_INDEX_URL:-}}" "${SSL_CERT_FILE:-}"
"""


@dataclass(frozen=True)
class Tools:
    """What the ledger's checks over the network go through."""

    uv: Path
    index: str | None = field(repr=False)
    """Address of the index; None: the Python Package Index itself."""
    certificates: str | None = None
    """File of the authorities that the index's certificate is checked against; None: the usual."""

    def run_uv(self, arguments: list[str], given: str, seconds: float) -> tuple[int, str, str]:
        """Run uv with ``given`` as its input; returns its exit code, output and messages.

        Raises:
            Unchecked: if it takes longer than so many seconds.
        """
        settings = {"UV_DEFAULT_INDEX": self.index, "SSL_CERT_FILE": self.certificates}
        given_here = {name: value for name, value in settings.items() if value is not None}
        try:
            done = subprocess.run(
                [self.uv, *arguments],
                input=given,
                env={**os.environ, **_PLAINLY, **given_here},
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unchecked(f"uv took longer than {seconds:.0f} s") from None
        return done.returncode, done.stdout, done.stderr


def find_tools(root: Path = PROJECT_ROOT) -> Tools:
    """The uv that makes the locks, with pip's settings for the index.

    Raises:
        Unchecked: if there is none, nor a way to get it.
    """
    if not (root / "infra" / "uv.sh").exists():
        raise Unchecked("no infra/uv.sh here, which finds uv")
    try:
        said = subprocess.run(
            ["bash", "-c", _ASK],
            cwd=root,
            env={**os.environ, "PYTHON": sys.executable},
            capture_output=True,
            text=True,
            timeout=_SECONDS_TO_FIND,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        raise Unchecked("uv could not be found or fetched") from None
    if said.returncode != 0:
        raise Unchecked("uv could not be found or fetched")
    uv, index, certificates = said.stdout.splitlines()[-3:]
    return Tools(Path(uv), index or None, certificates or None)


def in_parallel(
    ask: Callable[[_Given], _Got], questions: Sequence[_Given], at_once: int
) -> list[_Got]:
    """The answers, in order; after a first failure nothing more is asked."""
    pool = ThreadPoolExecutor(at_once)
    try:
        return list(pool.map(ask, questions))
    finally:
        pool.shutdown(cancel_futures=True)


def without_addresses(text: str) -> str:
    """A tool's words, without the addresses in them."""
    return re.sub(r"`?\w+://[^\s`'\")]+`?", "an address", text)
