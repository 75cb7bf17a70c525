"""From a command's options to a configuration and prices."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.cli.options import DEFAULT_CONFIG, FrameworkName

__all__ = [
    "given_prices",
    "given_settings",
    "load",
    "load_for",
    "network_settings",
    "refuse_other_config",
]


def load(path: Path, overrides: list[str] | None) -> Any:
    """A file's configuration with what ``--set`` asks for.

    Raises:
        InputError: naming the file or the option, and the field.
    """
    from pipelines.config import load_config

    return load_config(path, overrides)


def load_for(
    framework: FrameworkName,
    workers: int,
    strategy: str | None,
    path: Path,
    overrides: list[str] | None,
) -> Any:
    """The configuration for one run of one framework at one worker count."""
    asked = [f"study.workers=[{workers}]", *(overrides or [])]
    if strategy is not None:
        asked.append(f"{framework.value}.strategy={strategy}")
    return load(path, asked)


def given_prices(path: Path | None) -> Any:
    """The prices of a file, by default the shipped ones.

    None where no file is named and an installed copy of the program comes without the shipped one.

    Raises:
        InputError: naming the file and the field.
    """
    from pipelines.prices import DEFAULT_PRICES, load_prices

    if path is None and not DEFAULT_PRICES.exists():
        return None
    return load_prices(path or DEFAULT_PRICES)


def given_settings(given: Mapping[str, object]) -> list[str]:
    """Fields and what options say of them, as overrides; those not given (None) are left out."""
    return [f"{field}={value}" for field, value in given.items() if value is not None]


def network_settings(hosts: int | None, bandwidth: str | None) -> list[str]:
    """What ``--hosts`` and ``--bandwidth`` say, as overrides."""
    return given_settings({"network.hosts": hosts, "network.bandwidth": bandwidth})


def refuse_other_config(config: Path, resume: Path) -> None:
    """Refuse a config beside a folder to go on with, which holds its own.

    Raises:
        InputError: if it is another than the default.
    """
    if config != DEFAULT_CONFIG:
        from pipelines.errors import InputError

        raise InputError(
            f"--config {config}: what {resume} holds goes on by its own; leave it out, and use "
            "--set for what may change"
        )
