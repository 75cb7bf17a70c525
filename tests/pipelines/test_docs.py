"""The documents name only what is there: files, commands, targets, metrics, fields."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from pipelines.cli.commands import app
from pipelines.config import Config
from pipelines.environments import PROJECT_ROOT
from pipelines.metrics import METRICS

README = PROJECT_ROOT / "README.md"
DOCUMENTS = [
    README,
    PROJECT_ROOT / "CONTRIBUTING.md",
    *sorted((PROJECT_ROOT / "docs").glob("*.md")),
]
TWINS = ("tf_pipeline", "torch_pipeline")

# A code span is taken for a file by its ending, or for a folder by its last character.
A_FILE = re.compile(r"[\w./-]+(\.(py|md|yaml|txt|toml|sh|j2|png)|/)")
MADE_LATER = re.compile(r"(out|serving)/.*|(my-study|config)\.yaml|report\.md")
"""What users or runs write, so that no clone has it."""

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def prose(document: Path) -> str:
    """The text without fenced blocks."""
    return re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)


def code_spans(document: Path) -> list[str]:
    return [span.replace("\\|", "|") for span in re.findall(r"`([^`\n]+)`", prose(document))]


def code(document: Path) -> str:
    """Everything set as code, spans and fenced blocks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE)
    return "\n".join([*blocks, *code_spans(document)])


def table(document: Path, first_header: str) -> list[list[str]]:
    """The cells of the table whose header row begins so, without that row."""
    lines = iter(document.read_text().splitlines())
    for line in lines:
        if line.startswith(f"| {first_header} |"):
            break
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    assert rows, f"{document.name} has no table of {first_header}s"
    return rows


def anchors(document: Path) -> set[str]:
    """The headings, as GitHub names them in links."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def exists(name: str) -> bool:
    """Whether a file is there: from the root, or by its bare name in both of the twins."""
    if (PROJECT_ROOT / name).exists():
        return True
    return "/" not in name and all((PROJECT_ROOT / twin / name).exists() for twin in TWINS)


def tree() -> Iterator[str]:
    """The paths of the README's file tree, whose levels are indented by four spaces."""
    (block,) = re.findall(r"^```text\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
    parents: list[str] = []
    for line in block.splitlines():
        level = (len(line) - len(line.lstrip())) // 4
        parents[level:] = [line.split()[0]]
        yield "".join(parents)


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of the configuration by its dotted name, with its default."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{prefix}{name}.")
        else:
            default = "required" if field.is_required() else field.get_default()
            yield f"{prefix}{name}", to_jsonable_python(default)


@each_document
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", prose(document))
    broken = []
    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert broken == []


@each_document
def test_every_file_that_is_named_is_there(document: Path) -> None:
    named = [span for span in code_spans(document) if A_FILE.fullmatch(span)]

    assert [name for name in named if not MADE_LATER.fullmatch(name) and not exists(name)] == []


def test_the_readmes_file_tree_is_the_repositorys() -> None:
    paths = list(tree())

    assert "pipelines/compare/rules.py" in paths
    assert [path for path in paths if not (PROJECT_ROOT / path).exists()] == []


def test_the_readmes_table_of_twins_has_every_file_but_the_table_itself() -> None:
    named = [row[0].strip("`") for row in table(README, "file")]

    assert len(named) == len(set(named))
    files = [{path.name for path in (PROJECT_ROOT / twin).glob("*.py")} for twin in TWINS]
    assert set(named) == set.intersection(*files) - {"__init__.py"}


def test_the_readmes_table_of_commands_is_the_programs() -> None:
    commands = [command.name or command.callback.__name__ for command in app.registered_commands]

    assert [row[0].strip("`").split()[1] for row in table(README, "command")] == commands


@each_document
def test_every_command_that_is_named_is_the_programs(document: Path) -> None:
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}

    assert set(re.findall(r"\btandem ([a-z]+)", code(document))) <= commands


@each_document
def test_every_make_target_that_is_named_is_the_makefiles(document: Path) -> None:
    makefile = (PROJECT_ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = re.findall(r"^(?:[A-Z_]+=\S* )*make ((?:[a-z-]+ ?)+)", code(document), re.MULTILINE)

    assert {target for call in named for target in call.split()} <= targets


def test_the_readmes_table_of_fields_is_the_configurations() -> None:
    documented = {
        row[0].strip("`"): yaml.safe_load(row[1].strip("`")) for row in table(README, "field")
    }

    assert documented == dict(fields(Config))


def test_the_explained_quickstart_is_the_shipped_one() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
    shipped = (PROJECT_ROOT / "configs" / "quickstart.yaml").read_text()

    assert yaml.safe_load(block) == yaml.safe_load(shipped)


def test_the_table_of_metrics_is_the_programs() -> None:
    assert table(PROJECT_ROOT / "docs" / "metrics.md", "name") == [
        [f"`{metric.name}`", metric.unit, metric.group, metric.reduction, metric.meaning]
        for metric in METRICS.values()
    ]
