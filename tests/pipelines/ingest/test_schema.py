import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipelines.errors import InputError
from pipelines.ingest.schema import Feature, Schema, read_schema

AGE = {"name": "age", "dtype": "int64"}


def refusal(path: Path) -> str:
    """What is wrong, without the setting and the file, which every message begins with."""
    with pytest.raises(InputError) as raised:
        read_schema(path)
    message = str(raised.value)
    assert raised.value.exit_code == 2
    assert len(message.splitlines()) == 1
    assert message.startswith(f"data.expected: {path}: ")
    return message.removeprefix(f"data.expected: {path}: ")


def written(folder: Path, content: Any) -> Path:
    path = folder / "schema.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("dump", [yaml.safe_dump, json.dumps], ids=["YAML", "JSON"])
def test_a_schema_is_read_from_yaml_and_json(tmp_path: Path, dump: Any) -> None:
    age = {**AGE, "min": 0, "max": 120, "max_unknown_share": 0.01}
    city = {"name": "city", "dtype": "string", "values": ["Oslo", "Łódź"]}
    path = written(tmp_path, dump({"features": [age, city], "max_label_drift": 0.05}))

    assert read_schema(path) == Schema(
        features=(
            Feature(name="age", dtype="int64", min=0, max=120, max_unknown_share=0.01),
            Feature(name="city", dtype="string", values=("Oslo", "Łódź")),
        ),
        max_label_drift=0.05,
    )


def test_a_vocabulary_is_sorted_each_value_once() -> None:
    assert Feature(name="n", dtype="int64", values=(10, 9, 10)).values == (9, 10)
    assert Feature(name="s", dtype="string", values=("b", "a", "10")).values == ("10", "a", "b")


def test_a_column_that_says_all_is_the_same_after_json() -> None:
    feature = Feature(
        name="s", dtype="string", shape=(2,), max_missing_share=0.5, values=("7", "a")
    )

    assert Feature.model_validate_json(feature.model_dump_json()) == feature


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ({"min": 2.5, "max": 2}, "features.age: min 2.5 is greater than max 2"),
        (
            {"dtype": "string", "max": 2},
            "features.age: min and max are for numbers, not for strings; name values instead",
        ),
        ({"values": [1], "min": 0}, "features.age: give values, or min and max, not both"),
        (
            {"dtype": "float32", "values": [1]},
            "features.age: values are for strings and whole numbers; give min and max instead",
        ),
        (
            {"values": []},
            "features.age: values are empty; name at least one, or leave values out",
        ),
        ({"values": ["old"]}, "features.age: values: 'old' does not fit int64"),
        ({"values": [2**63]}, f"features.age: values: {2**63} does not fit int64"),
        ({"dtype": "uint8", "values": [255, 256]}, "features.age: values: 256 does not fit uint8"),
        ({"dtype": "uint8", "values": [-1]}, "features.age: values: -1 does not fit uint8"),
        ({"dtype": "string", "values": [1, 2]}, "features.age: values: 1 does not fit string"),
        ({"values": [1, "two"]}, "features.age: values: 'two' does not fit int64"),
        (
            {"dtype": "string", "values": [True]},
            "features.age.values: True is neither text nor a whole number; quote text",
        ),
        (
            {"values": [1.5]},
            "features.age.values: 1.5 is neither text nor a whole number; quote text",
        ),
        ({"values": 1}, "features.age.values: must be a list"),
        (
            {"dtype": "double"},
            "features.age.dtype: input should be 'float32', 'int64', 'uint8' or 'string'",
        ),
        ({"min": float("nan")}, "features.age.min: input should be a finite number"),
        ({"max": float("inf")}, "features.age.max: input should be a finite number"),
        (
            {"max_missing_share": 1.5},
            "features.age.max_missing_share: input should be less than or equal to 1",
        ),
        ({"shape": [8, 0]}, "features.age.shape.1: input should be greater than 0"),
        ({"colour": "blue"}, "features.age.colour: unknown key"),
        ({"name": "old\nage", "dtype": "int"}, "features.old age.dtype: input should be"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_by_column_and_field(
    tmp_path: Path, column: dict[str, Any], reason: str
) -> None:
    path = written(tmp_path, {"features": [{"name": "b", "dtype": "string"}, {**AGE, **column}]})

    assert refusal(path).startswith(reason)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"features": [AGE, AGE]}, "features: 'age' is there more than once"),
        ({"features": [{"dtype": "int64"}]}, "features.0.name: required, but not given"),
        ({"features": ["age"]}, "features.0: must be a mapping of keys to values"),
        ({"features": {"age": "int64"}}, "features: must be a list"),
        ({"columns": [AGE]}, "features: required, but not given"),
        ({"features": [AGE], "label": "age"}, "label: unknown key"),
        (
            {"features": [AGE], "max_label_drift": -1},
            "max_label_drift: input should be greater than or equal to 0",
        ),
        ("", "must be a mapping of keys to values"),
        ("- age", "must be a mapping of keys to values"),
        ("features: [", "not valid YAML or JSON: "),
    ],
)
def test_a_file_that_is_no_schema_is_refused(tmp_path: Path, content: Any, reason: str) -> None:
    assert refusal(written(tmp_path, content)).startswith(reason)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    path.write_bytes(b"\xff\xfe\x00")

    assert refusal(path).startswith("not valid YAML or JSON: ")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "schema.yaml") == "cannot be read (No such file or directory)"
    assert refusal(tmp_path) == "cannot be read (Is a directory)"


def test_a_contract_is_what_was_found_held_to_what_was_asked() -> None:
    found = (
        Feature(name="age", dtype="int64"),
        Feature(name="city", dtype="string"),
        Feature(name="image", dtype="float32", shape=(2,)),
        Feature(name="extra", dtype="float32"),
    )
    age = Feature(name="age", dtype="int64", max_missing_share=0.5)
    asked = Schema(
        features=(
            Feature(name="missing", dtype="string"),
            Feature(name="image", dtype="float32", shape=(3,), min=0),
            Feature(name="city", dtype="int64", values=(1,)),
            age,
        )
    )

    assert asked.contract(found) == (
        age,
        *found[1:],
    )
    assert asked.contract(asked.contract(found)) == asked.contract(found)


def test_a_column_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Feature(**AGE).name = "other"  # type: ignore[misc]
