"""Writes docs/scenarios.md from the models that validate: `python docs/make_scenarios.py`. A test keeps the two equal."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from raykd.scenario.draws import Draw
from raykd.scenario.labels import MAX_LENGTH
from raykd.scenario.registry import REGISTRIES
from raykd.scenario.schema import Scenario
from raykd.scenario.study import StudyFile

HEAD = """# Every key of a scenario

A scenario is a YAML file. [Studies](studies.md) tells how files build on one another, how values are drawn for each site, and how
one scenario is run in many ways. `raykd new` writes a first one, `raykd check FILE` says everything that is wrong with one, and the
files `*.schema.json` under [scenarios](../scenarios) complete and explain keys in an editor. Unknown keys are refused.

A *name* has 1 to 64 Latin letters, digits, `.`, `_` and `-`: a folder is called so. A *label* may be of any script and have
spaces: it is shown, and files are called after an id that is derived from it.
"""
PLUGINS = {
    "source": "What `source` can be: where cases come from. `name` says which.",
    "shift": "What an element of `shifts` can be: a further difference between sites.",
    "network": "What `network` can be: the architecture of a teacher or a student.",
    "method": "What `method` can be: how sites learn together.",
    "codec": "What an element of a list under `traffic` can be: how numbers are written before they cross "
    "a link ([traffic](traffic.md)).",
}
NAME = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


def markdown() -> str:
    """The whole page."""
    scenario = Scenario.model_json_schema()
    parts = [HEAD, section("The scenario", scenario, ""), *blocks(scenario, "")]
    parts.append(section("Draw", Draw.model_json_schema(), ""))
    parts += blocks(Draw.model_json_schema(), "")
    for kind, meaning in PLUGINS.items():
        parts.append(f"## {kind.capitalize()}s\n\n{meaning}\n")
        for name in REGISTRIES[kind].names():
            parts += plugin(kind, name)
    study = StudyFile.model_json_schema(by_alias=True)
    return "\n".join([*parts, section("The study", study, ""), *blocks(study, "")]).rstrip() + "\n"


def plugin(kind: str, name: str) -> list[str]:
    """The sections of one thing that a block can name."""
    cls = REGISTRIES[kind].get(name)
    schema = cls.Settings.model_json_schema()
    told = {**schema, "properties": {key: value for key, value in schema["properties"].items() if key != "name"}}
    told["description"] = schema.get("description") or first_paragraph(cls.__doc__)
    return [section(f"{kind} {name}", told, f"{kind} {name} "), *blocks(schema, f"{kind} {name} ")]


def first_paragraph(text: str | None) -> str:
    """A docstring up to its first empty line, on one line."""
    return " ".join((text or "").strip().split("\n\n")[0].split())


def blocks(schema: dict[str, Any], prefix: str) -> list[str]:
    """A section for every block that a schema refers to, in the order in which a reader meets them."""
    definitions = schema.get("$defs", {})
    names = referred({key: value for key, value in schema.items() if key != "$defs"})
    for name in names:  # grows while it is read
        names += [other for other in referred(definitions[name]) if other not in names]
    return [section(f"{prefix}{name}", definitions[name], prefix) for name in names]


def referred(schema: Any) -> list[str]:
    """The names of the blocks that a part of a schema refers to, each once."""
    return list(dict.fromkeys(re.findall(r'"\$ref": "#/\$defs/([^"]+)"', json.dumps(schema))))


def section(title: str, schema: dict[str, Any], prefix: str) -> str:
    """A heading, what the block is, and a row for each of its keys."""
    level = "##" if title.startswith("The ") else "###"
    lines = [f"{level} {title}", "", *([first_paragraph(schema["description"]), ""] if schema.get("description") else [])]
    if not schema["properties"]:
        return "\n".join([*lines, "No keys besides `name`.\n"])
    lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
    required = schema.get("required", [])
    for key, value in schema["properties"].items():
        cells = [
            f"`{key}`",
            words(value, prefix),
            "**required**" if key in required else default(value),
            value.get("description", ""),
        ]
        lines.append(f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join([*lines, ""])


def default(schema: dict[str, Any]) -> str:
    """What holds where a key is absent."""
    value = schema.get("default")
    if value is None:
        return "absent"
    if isinstance(value, dict):
        return "its defaults" if value else "none"
    return f"`{json.dumps(value, ensure_ascii=False)}`" if value != [] else "none"


def words(schema: dict[str, Any], prefix: str) -> str:
    """The values that a schema allows, in words."""
    if "x-raykd-kind" in schema:
        return f"a [{schema['x-raykd-kind']}](#{schema['x-raykd-kind']}s)"
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        return f"[{name}](#{anchor(prefix + name)})"
    if "anyOf" in schema:
        return " or ".join(words(branch, prefix) for branch in schema["anyOf"] if branch != {"type": "null"})
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{choice}`" for choice in schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "array":
            return elements(schema, prefix)
        case "object":
            inner = schema.get("additionalProperties", next(iter(schema.get("patternProperties", {}).values()), None))
            return f"a block of named values, each {words(inner, prefix)}" if isinstance(inner, dict) else "a block"
        case "integer" | "number" as kind:
            return f"{'whole number' if kind == 'integer' else 'number'}{limits(schema)}"
        case "string":
            return "name" if schema.get("pattern") == NAME else "label" if schema.get("maxLength") == MAX_LENGTH else "text"
        case "boolean":
            return "true or false"
    return "any value"


def elements(schema: dict[str, Any], prefix: str) -> str:
    """The words for a list."""
    if "prefixItems" in schema:
        each = dict.fromkeys(words(item, prefix) for item in schema["prefixItems"])
        inner = f"each {next(iter(each))}" if len(each) == 1 else ", ".join(each)
        return f"list of {len(schema['prefixItems'])}: {inner}"
    return f"list{', not empty' if schema.get('minItems') else ''}: each {words(schema.get('items', {}), prefix)}"


def limits(schema: dict[str, Any]) -> str:
    """The range of a number in words."""
    low = f"from {schema['minimum']:g}" if "minimum" in schema else ""
    low = f"above {schema['exclusiveMinimum']:g}" if "exclusiveMinimum" in schema else low
    high = f"to {schema['maximum']:g}" if "maximum" in schema else ""
    high = f"below {schema['exclusiveMaximum']:.10g}" if "exclusiveMaximum" in schema else high
    return "".join(f" {part}" for part in (low, high) if part)


def anchor(title: str) -> str:
    """The name by which a page links to one of its headings."""
    return re.sub(r"[^a-z0-9_ -]", "", title.lower()).replace(" ", "-")


if __name__ == "__main__":
    Path(__file__).with_name("scenarios.md").write_text(markdown(), encoding="utf-8")
