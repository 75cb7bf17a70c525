"""Who asks Kubeflow Pipelines: a token, a cookie, or a pod's own service account.

Secrets come from files and the environment, never from the command line, which others can read. An
object here shows none of what it holds.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.errors import InputError

__all__ = ["COOKIE_VARIABLE", "TOKEN_VARIABLE", "Credentials"]

TOKEN_VARIABLE = "TANDEM_KFP_TOKEN"
COOKIE_VARIABLE = "TANDEM_KFP_COOKIE"
_POD_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
"""Where a pod has the token that is projected for Kubeflow Pipelines; renewed by the kubelet."""


@dataclass(frozen=True)
class Credentials:
    """What is sent along with every request."""

    token: str | None = field(default=None, repr=False)
    cookie: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    """Read anew for every request, since what lies there expires."""

    @classmethod
    def find(
        cls,
        token_file: Path | None = None,
        environment: Mapping[str, str] = os.environ,
        pod_token: Path = _POD_TOKEN,
    ) -> "Credentials":
        """The named file's token, else the environment's token or cookie, else the pod's own.

        None of them is needed for a server that asks for none.

        Raises:
            InputError: if the named file cannot be read, or is empty.
        """
        if token_file is not None:
            found = cls(token_file=token_file)
            if not found.current_token():
                raise InputError(f"--token-file {token_file}: is empty")
            return found
        token, cookie = environment.get(TOKEN_VARIABLE), environment.get(COOKIE_VARIABLE)
        if token or cookie:
            return cls(token=token or None, cookie=cookie or None)
        return cls(token_file=pod_token) if pod_token.exists() else cls()

    def current_token(self) -> str | None:
        """The token as it is now.

        Raises:
            InputError: if its file cannot be read.
        """
        if self.token_file is None:
            return self.token
        try:
            return self.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError):
            raise InputError(f"--token-file {self.token_file}: cannot be read") from None
