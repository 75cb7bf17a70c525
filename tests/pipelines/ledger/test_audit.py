import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.ledger.audit import CANARY, audit, read_audit
from pipelines.ledger.model import Vulnerability
from pipelines.ledger.tools import Tools
from pipelines.ledger.unchecked import Unchecked


def answer(*dependencies: dict[str, Any], canary: int = 2) -> str:
    """As pip-audit 2 writes it, with so many vulnerabilities of the release that has some."""
    known = [{"id": f"OLD-{n}", "fix_versions": [], "aliases": []} for n in range(canary)]
    asked = {"name": CANARY[0], "version": CANARY[1], "vulns": known}
    return json.dumps({"dependencies": [asked, *dependencies], "fixes": []})


def test_vulnerabilities_are_listed_with_the_releases_that_mend_them() -> None:
    mended = {"id": "PYSEC-2025-1", "fix_versions": ["1.1"], "aliases": ["CVE-2025-1"]}
    open_ = {"id": "PYSEC-2025-2", "fix_versions": [], "aliases": []}

    found, asked, unknown = read_audit(
        answer(
            {"name": "one", "version": "1.0", "vulns": [mended, open_]},
            {"name": "two", "version": "2.0", "vulns": []},
            {"name": "three", "skip_reason": "Dependency not found"},
        )
    )

    assert found == [
        Vulnerability(package="one", version="1.0", id="PYSEC-2025-1", fixed_in=["1.1"]),
        Vulnerability(package="one", version="1.0", id="PYSEC-2025-2", fixed_in=[]),
    ]
    assert (asked, unknown) == (2, ["three"])


@pytest.mark.parametrize(
    "text",
    [
        answer({"name": "one", "version": "1.0", "vulns": []}, canary=0),
        json.dumps({"dependencies": [{"name": CANARY[0], "skip_reason": "not found"}]}),
        json.dumps({"dependencies": []}),
    ],
)
def test_a_service_that_knows_of_no_vulnerability_at_all_has_checked_nothing(text: str) -> None:
    with pytest.raises(Unchecked, match="has no advisories"):
        read_audit(text)


def test_an_answer_that_cannot_be_read_is_no_answer() -> None:
    with pytest.raises(Unchecked, match="cannot be read"):
        read_audit("No known vulnerabilities found")


def test_packages_are_asked_about_at_their_public_versions(tmp_path: Path) -> None:
    uv = tmp_path / "uv"
    uv.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "pins = open(sys.argv[sys.argv.index('--requirement') + 1]).read().split()\n"
        "assert pins == ['torch==2.13.0', 'django==2.2'], pins\n"
        f"print({answer({'name': 'torch', 'version': '2.13.0', 'vulns': []})!r})\n"
    )
    uv.chmod(0o755)

    assert audit({"torch": "2.13.0+cpu"}, Tools(uv, None)) == ([], 1, [])


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ('File "site-packages/pip_audit/_cli.py"\\nConnectionError: host', "does not answer"),
        ("error: Failed to fetch: `https://secret@host`", "could not be fetched"),
    ],
)
def test_a_service_out_of_reach_is_said_in_one_line(tmp_path: Path, said: str, why: str) -> None:
    uv = tmp_path / "uv"
    uv.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('''{said}''')\n")
    uv.chmod(0o755)

    with pytest.raises(Unchecked) as refused:
        audit({"one": "1.0"}, Tools(uv, None))

    assert why in str(refused.value)
    assert "host" not in str(refused.value)
