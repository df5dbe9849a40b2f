"""Whether a value is what a JSON Schema says, as far as our schemas say anything: no library for it is installed."""

import re
from typing import Any

KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
KEYWORDS = {
    *("$schema", "$defs", "$ref", "title", "description", "default", "discriminator", "contentEncoding"),
    *("type", "enum", "anyOf", "properties", "required", "additionalProperties", "items", "uniqueItems", "prefixItems"),
    *("minimum", "maximum", "minLength", "maxLength", "pattern", "minItems", "maxItems"),
}
"""What our schemas are made of. All but the first eight restrict, and `faults` looks at each that occurs."""


def faults(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "$") -> list[str]:
    """Return where a value contradicts a schema, and where it has a field that the schema does not name."""
    if not schema:  # allows any value
        return []
    if "$ref" in schema:
        return faults(value, resolved(schema["$ref"], root), root, at)
    if "anyOf" in schema:
        found = [faults(value, each, root, at) for each in schema["anyOf"]]
        return min(found, key=len)
    if "enum" in schema and value not in schema["enum"]:
        return [f"{at}: {value!r} is none of {schema['enum']}"]
    if "type" in schema and not is_kind(value, schema["type"]):
        return [f"{at}: {value!r} is no {schema['type']}"]
    found = [f"{at}: {value!r} is out of bounds" for _ in range(not in_bounds(value, schema))]
    if isinstance(value, dict):
        found += fields(value, schema, root, at)
    if isinstance(value, list):
        for index, each in enumerate(value):
            found += faults(each, schema.get("items", {}), root, f"{at}[{index}]")
    return found


def fields(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], at: str) -> list[str]:
    properties, other = schema.get("properties", {}), schema.get("additionalProperties")
    found = [f"{at}.{name} is missing" for name in schema.get("required", []) if name not in value]
    for name, each in value.items():
        if name in properties:
            found += faults(each, properties[name], root, f"{at}.{name}")
        elif not other:
            found.append(f"{at}.{name} is not documented")
        else:
            found += faults(each, other, root, f"{at}.{name}")
    return found


def is_kind(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, KINDS[kind])


def in_bounds(value: Any, schema: dict[str, Any]) -> bool:
    if isinstance(value, str):
        is_match = re.search(schema.get("pattern", ""), value) is not None
        return is_match and schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
    if isinstance(value, int | float):
        return schema.get("minimum", value) <= value <= schema.get("maximum", value)
    return True


def resolved(reference: str, root: dict[str, Any]) -> dict[str, Any]:
    found: Any = root
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found
