"""Where MLflow's UI shows what is in a study's store."""

from typing import TYPE_CHECKING

from pipelines.secrets import shown

if TYPE_CHECKING:
    from pipelines.config import Config

__all__ = ["DEFAULT_PORT", "is_server", "run_address", "ui_address"]

DEFAULT_PORT = 5000
"""MLflow's own."""


def is_server(config: "Config") -> bool:
    """Whether the store is a tracking server, which has a UI; else ``tandem ui`` serves one."""
    return config.tracking_uri.startswith(("http://", "https://"))


def ui_address(config: "Config", port: int = DEFAULT_PORT) -> str:
    """The UI's address, without credentials: it is printed, and written into reports."""
    if is_server(config):
        return shown(config.tracking_uri).rstrip("/")
    return f"http://127.0.0.1:{port}"


def run_address(config: "Config", experiment_id: str) -> str:
    """What the address of each run of an experiment begins with; the run's id follows."""
    return f"{ui_address(config)}/#/experiments/{experiment_id}/runs/"
