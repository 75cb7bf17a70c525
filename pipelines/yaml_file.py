"""YAML files that a user writes: read and checked, their errors one line that names the field."""

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipelines.errors import InputError
from pipelines.strategies import FRAMEWORK_TITLES, STRATEGIES, Framework

__all__ = ["parse_yaml", "read_mapping", "validated"]

Model = TypeVar("Model", bound=BaseModel)


def parse_yaml(text: str) -> Any:
    """What a text says, as plain Python objects.

    Raises:
        yaml.YAMLError: if it is no YAML, or gives a key of a mapping twice.
        ValueError: if it holds a date that is none.
    """
    return yaml.load(text, _Loader)  # noqa: S506 - it is the safe one


def read_mapping(path: Path, missing: str, example: str) -> dict[str, Any]:
    """The file's content, not checked yet.

    Args:
        path: the file.
        missing: what to say in addition if there is no such file.
        example: a first line that such a file might have.

    Raises:
        InputError: if it cannot be read, or is no mapping.
    """
    try:
        raw = parse_yaml(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {missing}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-99-99
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path}: must be a mapping of sections, such as '{example}'")
    return raw


def validated(model: type[Model], raw: dict[str, Any], origin: str) -> Model:
    """The content as a model; ``origin`` names it in errors.

    Raises:
        InputError: naming the field, what is wrong with it, and the mend.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        lines = [_describe(model, detail) for detail in error.errors()]
        more = f" (and {len(lines) - 1} more: {'; '.join(lines[1:])})" if lines[1:] else ""
        raise InputError(f"{origin}: {lines[0]}{more}") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe one, which by itself forgets the first of two sections of the same name."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                raise yaml.YAMLError(
                    f"'{key.value}' stands in line {lines[key.value]} and again in line {line}; "
                    "put both into one"
                )
            lines[key.value] = line
        return super().construct_mapping(node, deep)


def _describe(model: type[BaseModel], detail: ErrorDetails) -> str:
    """One line for one pydantic error: the field, what is wrong, and the mend."""
    # Pydantic says "[key]" after a mapping's key that is wrong by itself.
    location = [str(part) for part in detail["loc"] if part != "[key]"]
    field = ".".join(location)
    if detail["type"] == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        close = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(known)}"
        return f"{field}: unknown key; {hint}"
    if location[-1:] == ["strategy"] and location[0] in STRATEGIES:
        framework: Framework = "tf" if location[0] == "tf" else "torch"
        return (
            f"{field}: {FRAMEWORK_TITLES[framework]} has no strategy {detail['input']!r}; "
            f"it has: {', '.join(STRATEGIES[framework])}"
        )
    if detail["type"] == "missing":
        return f"{field}: required, but not given"
    message = detail["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if detail["type"] == "value_error":
        return f"{field}: {message}" if field else message  # a rule over sections names its field
    return f"{field}: {message}, not {detail['input']!r}"


def _known_keys(model: type[BaseModel], location: list[str]) -> list[str]:
    """The keys a section knows, found by walking the models from the root."""
    for key in location:
        annotation = model.model_fields[key].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
