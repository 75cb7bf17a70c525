"""The schema: what columns a dataset has, and what their values must meet."""

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from pipelines.errors import InputError
from pipelines.yaml_file import parse_yaml

__all__ = ["Feature", "Record", "Schema", "Share", "read_schema"]

Share = Annotated[float, Field(ge=0, le=1)]

_RANGES = {"int64": range(-(2**63), 2**63), "uint8": range(2**8)}

_PLAINER = {
    "extra_forbidden": "unknown key",
    "missing": "required, but not given",
    "model_type": "must be a mapping of keys to values",
    "tuple_type": "must be a list",
}


class Record(BaseModel):
    """A part of the manifest: immutable, and closed to keys it does not know."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Feature(Record):
    """One column of the dataset, and what its values must meet.

    Numbers must be finite, whatever else is said of them.
    """

    name: Annotated[str, Field(min_length=1)]
    dtype: Literal["float32", "int64", "uint8", "string"]
    shape: tuple[PositiveInt, ...] = ()
    """Shape of one example's value; stored flattened, in row-major order."""
    max_missing_share: Share = 0.0
    """Greatest share of examples that may lack a value."""
    values: tuple[str | int, ...] | None = None
    """The vocabulary, sorted; None: any value."""
    max_unknown_share: Share = 0.0
    """Greatest share of present values that may be outside the vocabulary or the range."""
    min: float | None = None
    """Least value; None: no bound."""
    max: float | None = None
    """Greatest value; None: no bound."""

    @property
    def elements(self) -> int:
        """Numbers in one example's value."""
        return math.prod(self.shape)

    @property
    def kind(self) -> str:
        """Type and shape, for people."""
        return f"{self.dtype} of shape {self.shape}" if self.shape else self.dtype

    @field_validator("values", mode="before")
    @classmethod
    def _sort(cls, values: Any) -> Any:
        if not isinstance(values, list | tuple):
            return values
        for value in values:
            # YAML reads yes and no as booleans, which Python takes for numbers.
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise ValueError(f"{value!r} is neither text nor a whole number; quote text")
        one_kind = len({type(value) for value in values}) == 1
        return sorted(set(values)) if one_kind else values

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        bounded = self.min is not None or self.max is not None
        if bounded and self.dtype == "string":
            raise ValueError("min and max are for numbers, not for strings; name values instead")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is greater than max {self.max:g}")
        if self.values is not None:
            if bounded:
                raise ValueError("give values, or min and max, not both")
            self._check_values(self.values)
        return self

    def _check_values(self, values: tuple[str | int, ...]) -> None:
        if self.dtype == "float32":
            raise ValueError("values are for strings and whole numbers; give min and max instead")
        if not values:
            raise ValueError("values are empty; name at least one, or leave values out")
        for value in values:
            if not self._holds(value):
                raise ValueError(f"values: {value!r} does not fit {self.dtype}")

    def _holds(self, value: str | int) -> bool:
        if isinstance(value, str):
            return self.dtype == "string"
        return self.dtype in _RANGES and value in _RANGES[self.dtype]


class Schema(Record):
    """What a dataset is expected to look like; a file in JSON or YAML, named by ``data.expected``.

    A manifest's ``features`` may be copied into one and tightened.
    """

    features: tuple[Feature, ...]
    """Columns that must be there; others may be, and keep the contract inferred from them."""
    max_label_drift: Share | None = None
    """Greatest difference that a label's share of the examples may have between the splits
    (L-infinity distance); None: any."""

    @model_validator(mode="after")
    def _names_each_column_once(self) -> Self:
        names = [feature.name for feature in self.features]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"features: {', '.join(map(repr, twice))} is there more than once")
        return self

    def contract(self, found: Sequence[Feature]) -> tuple[Feature, ...]:
        """The columns as they were found, each held to what the schema says of it, if anything.

        One of another type than the schema says stays as it is: the rules mean other values.
        """
        expected = {feature.name: feature for feature in self.features}
        return tuple(
            expected[feature.name]
            if feature.name in expected and expected[feature.name].kind == feature.kind
            else feature
            for feature in found
        )


def read_schema(path: Path) -> Schema:
    """Read a schema file.

    Raises:
        InputError: naming the file and the field that is wrong.
    """
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8"))
        return Schema.model_validate(raw)
    except OSError as error:
        raise InputError(f"data.expected: {path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"data.expected: {path}: not valid YAML or JSON: {reason}") from None
    except ValidationError as error:
        reason = _describe(error.errors()[0], raw)
        raise InputError(f"data.expected: {path}: {reason}") from None


def _describe(detail: ErrorDetails, raw: Any) -> str:
    """The field and what is wrong with it; columns by name, where they have one."""
    place = list(detail["loc"])
    if len(place) > 1:
        with suppress(TypeError, KeyError):
            place[1] = raw["features"][place[1]]["name"]
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] != "value_error":
        message = _PLAINER.get(detail["type"], message[0].lower() + message[1:])
    field = " ".join(".".join(str(part) for part in place).split())
    return f"{field}: {message}" if field else message
