"""Writes the Python client's models from the schemas of the OpenAPI document: `make client-models`."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from chalicelib.api.openapi import document

PATH = Path(__file__).parents[1] / "client" / "paceline_client" / "models.py"
#: The schemas of answers that the client returns.
ANSWERS = ("SubmittedTask", "TaskAnswer", "ScheduleAnswer", "LaneAnswer", "SharedLimitAnswer", "HealthAnswer")
HEAD = '''"""The fields of answers, as the OpenAPI document has them. `make client-models` writes this file.

Times are epoch milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
'''
_SCALARS = {"integer": "int", "number": "float", "string": "str", "boolean": "bool", "null": "None"}
_WIDTH = 113

Schema = Mapping[str, Any]


def source() -> str:
    """The module's text."""
    schemas = json.loads(document())["components"]["schemas"]
    states = _literal(schemas["TaskAnswer"]["properties"]["state"])
    head = f"{HEAD}\n#: A task's state; a newer server may know more.\nState = {states}\n"
    models = "\n\n".join(_model(name, schemas[name]) for name in _with_parts(schemas, ANSWERS))
    return f"{head}\n\n{models}".replace(f": {states}\n", ": State\n")


def _with_parts(schemas: Schema, names: Iterable[str]) -> list[str]:
    """The names of these schemas, each after those that it refers to."""
    ordered: dict[str, None] = {}
    for name in names:
        parts = re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schemas[name]))
        ordered |= dict.fromkeys([*_with_parts(schemas, parts), name])
    return list(ordered)


def _model(name: str, schema: Schema) -> str:
    lines = ["@dataclass(frozen=True)", f"class {name}:"]
    if "description" in schema:
        lines += [f'    """{schema["description"]}"""', ""]
    required = schema.get("required", ())
    ordered = sorted(schema["properties"].items(), key=lambda field: field[0] not in required)
    return "\n".join([*lines, *(line for field, one in ordered for line in _field(field, one, field in required)), ""])


def _field(name: str, schema: Schema, is_required: bool) -> Iterator[str]:
    for line in textwrap.wrap(schema.get("description", ""), _WIDTH):
        yield f"    #: {line}"
    annotation = _annotation(schema)
    if is_required:
        yield f"    {name}: {annotation}"
    else:
        yield f"    {name}: {annotation if annotation.endswith('None') else f'{annotation} | None'} = None"


def _annotation(schema: Schema) -> str:
    if "enum" in schema:
        return _literal(schema)
    if "anyOf" in schema:
        return " | ".join(map(_annotation, schema["anyOf"]))
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if schema.get("type") == "array":
        return f"tuple[{_annotation(schema['items'])}, ...]"
    if schema.get("type") == "object":
        return f"dict[str, {_annotation(schema.get('additionalProperties') or {})}]"
    return _SCALARS[schema["type"]] if "type" in schema else "Any"


def _literal(schema: Schema) -> str:
    return f"Literal[{', '.join(map(json.dumps, schema['enum']))}]"


if __name__ == "__main__":
    PATH.write_text(source())
