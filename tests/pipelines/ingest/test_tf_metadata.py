from typing import Any

import pytest

from pipelines.ingest.schema import Feature
from pipelines.ingest.tf_metadata import tf_metadata_schema


def lines(**fields: Any) -> str:
    """One column's message without its braces and indentation, on one line."""
    text = tf_metadata_schema([Feature(name="x", **fields)])
    (first, *body, last) = text.splitlines()
    assert (first, last) == ("feature {", "}")
    return " ".join(line.strip() for line in body)


ALWAYS = "presence { min_fraction: 1.0 min_count: 1 } shape { dim { size: 1 } }"


@pytest.mark.parametrize(
    ("fields", "described"),
    [
        ({"dtype": "string"}, f"type: BYTES {ALWAYS}"),
        ({"dtype": "int64"}, f"type: INT {ALWAYS}"),
        ({"dtype": "uint8"}, f"type: INT {ALWAYS}"),
        (
            {"dtype": "float32"},
            f"type: FLOAT {ALWAYS} float_domain {{ disallow_nan: true disallow_inf: true }}",
        ),
        (
            {"dtype": "uint8", "shape": (32, 32, 3), "max_missing_share": 0.5},
            f"type: INT {ALWAYS.replace('size: 1', 'size: 3072')}",
        ),
        (
            {"dtype": "int64", "max_missing_share": 0.7},
            "type: INT presence { min_fraction: 0.3 min_count: 1 } value_count { min: 1 max: 1 }",
        ),
        ({"dtype": "int64", "max_missing_share": 1}, "type: INT value_count { min: 1 max: 1 }"),
        (
            {"dtype": "float32", "min": -0.5, "max": 2},
            f"type: FLOAT {ALWAYS} float_domain {{ min: -0.5 max: 2.0 "
            "disallow_nan: true disallow_inf: true }",
        ),
        (
            {"dtype": "int64", "min": -1.5, "max": 2.5},
            f"type: INT {ALWAYS} int_domain {{ min: -1 max: 2 }}",
        ),
        ({"dtype": "int64", "min": 3}, f"type: INT {ALWAYS} int_domain {{ min: 3 }}"),
        (
            {"dtype": "uint8", "values": (7, 1, 3)},
            f"type: INT {ALWAYS} int_domain {{ min: 1 max: 7 }}",
        ),
        (
            {"dtype": "string", "values": ("b", "a")},
            f'type: BYTES {ALWAYS} string_domain {{ value: "a" value: "b" }}',
        ),
        (
            {"dtype": "string", "values": ("a",), "max_unknown_share": 0.25},
            f'type: BYTES {ALWAYS} string_domain {{ value: "a" }} '
            "distribution_constraints { min_domain_mass: 0.7499999999999999 }",
        ),
        (
            {"dtype": "int64", "min": 3, "max_unknown_share": 0.25},
            f"type: INT {ALWAYS}",
        ),
        (
            {"dtype": "float32", "min": 3, "max_unknown_share": 0.25},
            f"type: FLOAT {ALWAYS} float_domain {{ disallow_nan: true disallow_inf: true }}",
        ),
    ],
)
def test_a_columns_rules_are_those_of_tensorflow_metadata(
    fields: dict[str, Any], described: str
) -> None:
    assert lines(**fields) == f'name: "x" {described}'


def test_text_is_quoted_so_that_any_survives() -> None:
    assert 'string_domain { value: "\\n\\"\\\\" value: "\\303\\251" }' in lines(
        dtype="string", values=("é", '\n"\\')
    )


def test_a_label_is_categorical_and_compared_between_the_splits() -> None:
    features = [
        Feature(name="n", dtype="int64"),
        Feature(name="y", dtype="int64", values=(0, 9)),
    ]

    assert tf_metadata_schema(features, "y", 0.05) == (
        tf_metadata_schema(features[:1])
        + """\
feature {
  name: "y"
  type: INT
  presence {
    min_fraction: 1.0
    min_count: 1
  }
  shape {
    dim {
      size: 1
    }
  }
  int_domain {
    min: 0
    max: 9
    is_categorical: true
  }
  skew_comparator {
    infinity_norm {
      threshold: 0.05
    }
  }
}
"""
    )
    assert "skew_comparator" not in tf_metadata_schema(features, "y")


@pytest.mark.parametrize(
    ("anomaly", "tagged"),
    [
        ("train: age: 3 values are missing or not finite", ["age"]),
        ("eval: age of all: 1 of 2 values are missing", ["age of all"]),
        ("age: '3' is 10.0% of train and 0.0% of eval", ["age"]),
        ("height: the column is missing; there are age", []),
    ],
)
def test_columns_of_which_something_was_accepted_are_tagged(
    anomaly: str, tagged: list[str]
) -> None:
    features = [Feature(name=name, dtype="int64") for name in ("age", "age of all")]

    messages = tf_metadata_schema(features, anomalies=[anomaly]).split("feature {")[1:]

    with_tag = [message for message in messages if 'tag: "accepted anomalies"' in message]
    assert [message.split('"')[1] for message in with_tag] == tagged
