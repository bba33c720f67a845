"""Editors are told what the loader accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from raykd.scenario.json_schema import json_schema
from raykd.scenario.yaml_reader import read_yaml

HERE = Path(__file__).parent
GOOD = sorted((HERE / "good").rglob("*.yaml"))
# what JSON Schema can say: the rest are rules between keys, of pydantic's own, or of YAML
FLAGGED = [
    "draw_misspelt",
    "draw_of_a_count",
    "draw_of_a_group",
    "draw_of_a_plugin_name",
    "draw_of_two",
    "draw_outside_clients",
    "draw_three_numbers",
    "draw_unknown_key",
    "missing_in_block",
    "not_a_choice",
    "plugin_missing_key",
    "plugin_value",
    "text_for_number",
    "too_small",
    "two_spacings",
    "unknown_key",
    "unknown_key_in_clients_student",
    "unknown_key_in_plugin_block",
    "unknown_key_nested",
    "unknown_method",
    "unknown_shift",
]


@pytest.fixture
def schema() -> dict[str, Any]:
    built = json_schema()
    Draft202012Validator.check_schema(built)
    return json.loads(json.dumps(built))


@pytest.mark.parametrize("file", GOOD, ids=lambda file: file.stem)
def test_good_files_are_not_underlined(file: Path, schema: dict[str, Any]) -> None:
    assert [error.message for error in Draft202012Validator(schema).iter_errors(read_yaml(file).plain())] == []


@pytest.mark.parametrize("name", FLAGGED)
def test_bad_files_are_underlined(name: str, schema: dict[str, Any]) -> None:
    assert not Draft202012Validator(schema).is_valid(read_yaml(HERE / "bad" / f"{name}.yaml").plain())


def test_plugins_are_offered_by_name_with_their_settings(schema: dict[str, Any]) -> None:
    offered = [choice.get("$ref") for choice in schema["properties"]["method"]["oneOf"]]
    assert offered == ["#/$defs/method.average", "#/$defs/method.dual", None]
    dual = schema["$defs"]["method.dual"]
    assert dual["properties"]["name"] == {"const": "dual"}
    assert dual["properties"]["temperature"]["description"] == "Softens the response."
    assert dual["properties"]["weights"]["$ref"] == "#/$defs/method.dual.Weights"
    assert schema["$defs"]["method.dual.Weights"]["additionalProperties"] is False
    assert schema["$defs"]["site.shift.tilt"]["properties"]["name"] == {"const": "tilt"}
    assert "x-raykd-kind" not in json.dumps(schema)


def test_words_are_explained(schema: dict[str, Any]) -> None:
    assert schema["$defs"]["Federation"]["properties"]["participation"]["description"].startswith("Share of the clients")
    assert schema["properties"]["classes"]["description"].startswith("Foreground classes by name")


def test_only_what_extends_something_may_be_incomplete(schema: dict[str, Any]) -> None:
    validator = Draft202012Validator(schema)
    assert validator.is_valid({"extends": "base.yaml", "repository": {"num_validation": 2}})
    assert not validator.is_valid({"name": "a", "repository": {"num_validation": 2}})
    assert not validator.is_valid({"extends": "base.yaml", "clients": [{"group": "a"}]})
