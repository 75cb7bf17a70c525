"""``tandem ui``: MLflow's own server on the study's store."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import webbrowser

from rich.console import Console

from pipelines.chart_view import runs_page
from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.ui_address import is_server, ui_address

__all__ = ["serve_ui"]

_SECONDS_TO_START = 60


def serve_ui(config: Config, port: int, browser: bool) -> None:
    """Serve until Ctrl-C, or open the tracking server that the config names.

    Raises:
        InputError: if there is nothing to show, or the port is taken.
        WorkError: if the tracking server does not answer.
    """
    from pipelines.tracking import experiment_id, experiment_tags

    remote = is_server(config)
    page = runs_page(experiment_id(config), experiment_tags(config))
    address = ui_address(config, port) + page  # on the browser's command line too
    if not remote:
        _refuse_taken(port)
    Console(stderr=True).print(f"MLflow: {address}", soft_wrap=True, highlight=False)
    opener = threading.Thread(target=_open, args=(address, port, remote), daemon=True)
    if browser:
        opener.start()
    if remote:
        opener.join(_SECONDS_TO_START) if browser else None
        return
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1", "--backend-store-uri", config.tracking_uri]
    # MLflow's server is several processes; in a session of their own they end together.
    server = subprocess.Popen(command, start_new_session=True)
    try:
        server.wait()
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise InputError(f"--port {port}: something listens there already; choose another")


def _open(address: str, port: int, remote: bool) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while not remote and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.2)
    webbrowser.open(address)
