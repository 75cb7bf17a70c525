"""What ``ledger.json`` holds, the artifact of a ledger's run: one side's entries in detail."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipelines.strategies import Framework

__all__ = [
    "LEDGER_NAME",
    "Age",
    "Bound",
    "FileCode",
    "GivenWarning",
    "Image",
    "Ledger",
    "Resolution",
    "Vulnerability",
]

LEDGER_NAME = "ledger.json"


class _Part(BaseModel):
    """A part of the ledger: immutable, and closed to keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Bound(_Part):
    """A requirement with an upper bound, of one of the side's packages on another."""

    by: str
    """The package that requires."""
    of: str
    specifier: str
    """The bounding part, such as ``<2``."""
    excluded: str | None = None
    """The newest final release, where the bound excludes it."""


class Resolution(_Part):
    """Whether the side's own requirements can be met on one platform."""

    python: str
    """Such as ``3.11``."""
    glibc: str
    """The oldest that the platform has, such as ``2.28``."""
    resolved: bool
    reason: str = ""
    """Why not, in the resolver's own words, as far as they fit a line."""


class Age(_Part):
    """How far one package is behind."""

    package: str
    direct: bool = False
    """Whether the project itself asks for it."""
    version: str
    newest: str
    """The newest final release."""
    libyears: float
    """Years from the installed release to the newest one."""
    days_since_release: int
    """Since the newest one."""


class Vulnerability(_Part):
    """One that is known of an installed release."""

    package: str
    version: str
    id: str
    fixed_in: list[str]
    """Releases without it."""


class GivenWarning(_Part):
    """A warning of deprecation that the side's packages gave while the twin's tests ran."""

    category: str
    module: str
    """The top-level module that gave it; empty where that is not known."""
    message: str
    """Its first line."""


class Image(_Part):
    """The side's container image, as it was last built here."""

    tag: str
    bytes: int
    """Of all its layers, as the engine keeps them."""
    build_seconds: float | None
    """Null: some layers came from the cache."""
    accelerator: str
    """``cpu`` or ``cuda``."""
    revision: str
    """The commit that it was built at, with ``-modified`` after it where files differed."""
    engine: str
    """Docker's version."""


class FileCode(_Part):
    """One file of the twin."""

    file: str
    """Its path in the twin."""
    lines: int
    """Without blank ones, comments and docstrings."""
    cyclomatic_complexity: int
    """Of its functions, added up."""
    role: Literal["glue", "work"]
    """``glue``: ties training to processes, hosts, storage and an orchestrator."""


class Ledger(_Part):
    """One side's ledger at one state of the code."""

    framework: Framework
    created: str
    """When it was taken: ISO 8601, UTC."""
    networked: str | None = None
    """When what needs the network was asked: ISO 8601, UTC; null: it was not."""
    commit: str | None = None
    """Git's, with ``-dirty`` after it where files differ from it; null: not in a checkout."""
    commit_time: str | None = None
    """ISO 8601, UTC."""
    mlflow_run_id: str | None = None
    """The run that tracks it; in the run's own file null."""
    metrics: dict[str, float]
    """By the names of the metrics table."""
    not_checked: dict[str, str]
    """Metric -> why there is none."""
    asked: list[str]
    """The project's own requirements of the side."""
    files: list[FileCode]
    bounds: list[Bound]
    built_from_source: list[str] = []
    """Packages without a wheel for any Linux, which the resolver was allowed to build."""
    resolutions: list[Resolution] = []
    ages: list[Age] = []
    """Farthest behind first."""
    unknown_packages: list[str] = []
    """Packages without a final release on the index, so that their age is not known."""
    vulnerabilities: list[Vulnerability] = []
    audited: int = 0
    """Packages whose vulnerabilities could be asked for."""
    not_audited: list[str] = []
    """Packages of which the advisory service knows nothing."""
    warnings: list[GivenWarning] = []
    image: Image | None = None
    dag_lines: int | None = None
    """Of the compiled DAG alone; the same as long as code and packages are."""
