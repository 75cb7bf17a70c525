"""The contract as a TensorFlow Metadata schema, which TFX's ExampleValidator enforces.

Made without TensorFlow, in protobuf's text format, as TFX reads its schema files. It describes
columns as ``tf.Example`` holds them: every value a list, of one element or of the flattened shape.

TensorFlow Metadata knows no gaps in a domain of whole numbers, and no share of numbers that may be
outside one: whole-number vocabularies become ranges, and numbers of which some may be unknown are
held to none.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from google.protobuf.text_encoding import CEscape

from pipelines.ingest.schema import Feature

__all__ = ["ACCEPTED", "SCHEMA_NAME", "tf_metadata_schema"]

SCHEMA_NAME = "schema.pbtxt"
"""The schema's file in a dataset's folder."""

ACCEPTED = "accepted anomalies"
"""Tags a column of which ``validation: warn`` accepted what breaks the contract."""

_TYPES = {"float32": "FLOAT", "int64": "INT", "uint8": "INT", "string": "BYTES"}


class _Enum(str):
    """A value that the text format writes without quotes."""


_Value = str | int | float | bool | Mapping[str, "_Value"] | Sequence["_Value"]
_Message = dict[str, _Value]


def tf_metadata_schema(
    features: Iterable[Feature],
    label: str | None = None,
    max_label_drift: float | None = None,
    anomalies: Sequence[str] = (),
) -> str:
    """A manifest's contract, as the text of a ``tensorflow.metadata.v0.Schema``.

    Args:
        features: the columns, each with its rules.
        label: the column that ``max_label_drift`` is about.
        max_label_drift: L-infinity distance that the label's shares may have between the splits;
            TFX compares train with eval as it compares training with serving.
        anomalies: the manifest's; their columns are tagged with ``ACCEPTED``.
    """
    messages = []
    for feature in features:
        message = _feature(feature, is_label=feature.name == label)
        if feature.name == label and max_label_drift is not None:
            message["skew_comparator"] = {"infinity_norm": {"threshold": max_label_drift}}
        if any(_names(anomaly, feature.name) for anomaly in anomalies):
            message["annotation"] = {"tag": [ACCEPTED]}
        messages.append(message)
    return "".join(f"{line}\n" for line in _lines({"feature": messages}))


def _feature(feature: Feature, *, is_label: bool) -> _Message:
    elements = feature.elements
    message: _Message = {"name": feature.name, "type": _Enum(_TYPES[feature.dtype])}
    if feature.max_missing_share == 0 or feature.shape:  # Parquet stores no missing list
        message["presence"] = {"min_fraction": 1.0, "min_count": 1}
        message["shape"] = {"dim": [{"size": elements}]}
    else:
        # Only a column that is always there has a shape.
        if feature.max_missing_share < 1:
            fraction = round(1 - feature.max_missing_share, 12)
            message["presence"] = {"min_fraction": fraction, "min_count": 1}
        message["value_count"] = {"min": elements, "max": elements}
    return message | _domain(feature, is_label=is_label)


def _domain(feature: Feature, *, is_label: bool) -> _Message:
    if feature.dtype == "string":
        if feature.values is None:
            return {}
        domain: _Message = {"string_domain": {"value": list(feature.values)}}
        if feature.max_unknown_share:
            # The next number below, so that rounding does not refuse the very share.
            mass = math.nextafter(1 - feature.max_unknown_share, 0)
            domain["distribution_constraints"] = {"min_domain_mass": mass}
        return domain
    bounds = _bounds(feature)
    if feature.dtype == "float32":
        return {"float_domain": {**bounds, "disallow_nan": True, "disallow_inf": True}}
    # As categories, TFX compares a label's values between the splits.
    whole = {**bounds, **({"is_categorical": True} if is_label else {})}
    return {"int_domain": whole} if whole else {}


def _bounds(feature: Feature) -> _Message:
    if feature.max_unknown_share:
        return {}
    if feature.values is not None:
        return {"min": feature.values[0], "max": feature.values[-1]}
    is_float = feature.dtype == "float32"
    bounds: _Message = {}
    if feature.min is not None:
        bounds["min"] = feature.min if is_float else math.ceil(feature.min)
    if feature.max is not None:
        bounds["max"] = feature.max if is_float else math.floor(feature.max)
    return bounds


def _names(anomaly: str, column: str) -> bool:
    return any(anomaly.startswith(f"{prefix}{column}: ") for prefix in ("", "train: ", "eval: "))


def _lines(message: Mapping[str, _Value], indent: str = "") -> Iterable[str]:
    """Protobuf's text format, a field a line."""
    for name, value in message.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                yield f"{indent}{name} {{"
                yield from _lines(each, f"{indent}  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{name}: {_text(each)}"


def _text(value: _Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and not isinstance(value, _Enum):
        return f'"{CEscape(value.encode(), as_utf8=False)}"'
    return str(value)
