"""Known vulnerabilities of a side's packages, as pip-audit finds them.

It runs in an environment of its own, which uv makes from ``infra/requirements/audit.txt``. Its
advisory service may be out of reach, or be a mirror that has packages and no advisories, of which
pip-audit says that no vulnerabilities are known. So a release that has had some for years is asked
about with the others: unless the service knows of those, nothing counts as checked.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from packaging.version import Version

from pipelines.environments import PROJECT_ROOT
from pipelines.ledger.model import Vulnerability
from pipelines.ledger.tools import Tools
from pipelines.ledger.unchecked import Unchecked

__all__ = ["CANARY", "Audit", "audit", "read_audit"]

CANARY = ("django", "2.2")
"""A release with vulnerabilities that every advisory service knows; neither side has it."""
_LOCK = PROJECT_ROOT / "infra" / "requirements" / "audit.txt"
_SECONDS = 180.0
_NO_SERVICE = "the advisory service does not answer"

Audit = tuple[list[Vulnerability], int, list[str]]
"""What was found, how many packages were asked about, and those that the service does not know."""


def audit(versions: Mapping[str, str], tools: Tools) -> Audit:
    """Ask about each package at its version.

    Raises:
        Unchecked: if pip-audit or its advisory service cannot be had.
    """
    asked = {**versions, CANARY[0]: CANARY[1]}
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "pins.txt"
        pins.write_text(
            "".join(f"{name}=={Version(version).public}\n" for name, version in asked.items())
        )
        # Pins alone: nothing is resolved, downloaded or installed to be asked about.
        _, output, said = tools.run_uv(
            [
                *("tool", "run", "--quiet", "--no-config", "--constraints", str(_LOCK)),
                *("pip-audit", "--requirement", str(pins), "--no-deps", "--disable-pip"),
                *("--format", "json", "--progress-spinner", "off", "--timeout", "5"),
            ],
            "",
            _SECONDS,
        )
    if not output.strip():
        fetched = "pip_audit" in said  # its own words, or its traceback
        raise Unchecked(_NO_SERVICE if fetched else "pip-audit could not be fetched")
    return read_audit(output)


def read_audit(text: str) -> Audit:
    """What pip-audit's JSON says.

    Raises:
        Unchecked: if the service it asked has no advisories.
    """
    found: list[Vulnerability] = []
    unknown: list[str] = []
    audited, trusted = 0, False
    try:
        dependencies = json.loads(text)["dependencies"]
    except (ValueError, KeyError, TypeError):
        raise Unchecked("pip-audit's answer cannot be read") from None
    for each in dependencies:
        if each["name"] == CANARY[0]:
            trusted = bool(each.get("vulns"))
        elif "skip_reason" in each:
            unknown.append(each["name"])
        else:
            audited += 1
            found += [
                Vulnerability(
                    package=each["name"],
                    version=each["version"],
                    id=vulnerability["id"],
                    fixed_in=vulnerability["fix_versions"],
                )
                for vulnerability in each["vulns"]
            ]
    if not trusted:
        raise Unchecked("the advisory service that is reached here has no advisories")
    return found, audited, sorted(unknown)
