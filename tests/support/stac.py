"""What STAC 1.1 and its extension for machine learning models, 1.5.2, ask of the item of a network, as a JSON schema.

Written from their published schemas. https://stac-extensions.github.io/mlm/v1.5.2/schema.json has more kinds of
scaling, inputs and outputs than an item of ours has; what ours may have is as strict here as there.
"""

from __future__ import annotations

from typing import Any

TASKS = ("classification", "scene-classification", "segmentation", "semantic-segmentation")
TYPES = ("int8", "int16", "uint8", "uint16", "uint32", "float32")
SEMVER = r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$"
ONE_TASK = {"type": "array", "uniqueItems": True, "minItems": 1, "items": {"enum": list(TASKS)}}


def strict(required: dict[str, Any], allowed: dict[str, Any] | None = None) -> dict[str, Any]:
    """An object of these keys alone."""
    properties = required | (allowed or {})
    return {"type": "object", "required": list(required), "properties": properties, "additionalProperties": False}


def array(items: dict[str, Any], least: int = 0) -> dict[str, Any]:
    return {"type": "array", "minItems": least, "items": items}


TEXT = {"type": "string", "minLength": 1}
NUMBER = {"type": "number"}
SHAPE = strict(
    {
        "shape": array({"type": "integer", "minimum": -1}, 1),
        "dim_order": array({"type": "string", "pattern": "^[a-z-_]+$"}, 1) | {"uniqueItems": True},
        "data_type": {"enum": list(TYPES)},
    }
)
BANDS = array(strict({"name": TEXT, "data_type": {"enum": list(TYPES)}}), 1)
INPUT = strict(
    {
        "name": TEXT,
        "description": TEXT,
        "bands": array(TEXT),
        "input": SHAPE,
        "value_scaling": array(strict({"type": {"const": "z-score"}, "mean": NUMBER, "stddev": NUMBER}), 1),
        "resize_type": {"enum": [None, "crop", "interpolation-linear"]},
        "pre_processing_function": {"type": "null"},
    }
) | {
    "if": {"properties": {"bands": {"minItems": 1}}},
    "then": {"properties": {"input": {"properties": {"dim_order": {"contains": {"const": "bands"}}}}}},
    "else": {"properties": {"input": {"properties": {"dim_order": {"not": {"contains": {"const": "bands"}}}}}}},
}
CLASS = strict(
    {"value": {"type": "integer"}, "description": {"type": "string"}, "name": {"type": "string"}},
    {"color_hint": {"type": "string", "pattern": "^([0-9A-Fa-f]{6})$"}},
)
OUTPUT = strict(
    {
        "name": TEXT,
        "description": TEXT,
        "tasks": ONE_TASK,
        "result": SHAPE,
        "classification:classes": array(CLASS, 1) | {"uniqueItems": True},
        "post_processing_function": {"type": "null"},
    }
)
FILE = {
    "href": TEXT,
    "title": TEXT,
    "type": TEXT,
    "roles": array(TEXT, 1),
    "file:size": {"type": "integer", "minimum": 0},
    "file:checksum": {"type": "string", "pattern": "^1220[0-9a-f]{64}$"},
}
ASSET = {
    "if": {"properties": {"roles": {"contains": {"const": "mlm:model"}}}},
    "then": strict(FILE | {"mlm:artifact_type": TEXT}, {"bands": BANDS}),
    "else": strict(FILE),
}
PROPERTIES = {
    "type": "object",
    "required": [
        "datetime", "mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output",
    ],
    "properties": {
        "datetime": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"},
        "mlm:name": {"type": "string", "pattern": r"^[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]$"},
        "mlm:architecture": {"type": "string"},
        "mlm:tasks": ONE_TASK,
        "mlm:framework": {"enum": ["ONNX"]},
        "mlm:framework_version": {"type": "string", "pattern": SEMVER},
        "mlm:total_parameters": {"type": "integer", "minimum": 0},
        "mlm:input": array(INPUT, 1),
        "mlm:output": array(OUTPUT, 1),
        "mlm:hyperparameters": {"minProperties": 1, "propertyNames": {"pattern": "^[0-9a-zA-Z_.-]+$"}},
        "bands": BANDS,
    },
    "patternProperties": {"^(?!mlm:)": {}},
    "additionalProperties": False,
}  # fmt: skip
NAMED = {"properties": {"mlm:input": {"items": {"properties": {"bands": {"minItems": 1}}}}}}
ITEM = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "required": ["type", "stac_version", "stac_extensions", "id", "geometry", "properties", "assets", "links"],
    "properties": {
        "type": {"const": "Feature"},
        "stac_version": {"const": "1.1.0"},
        "stac_extensions": {
            "type": "array",
            "uniqueItems": True,
            "items": {
                "enum": [
                    "https://stac-extensions.github.io/mlm/v1.5.2/schema.json",
                    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
                ]
            },
            "minItems": 2,
        },
        "id": TEXT,
        "geometry": {"type": "null"},
        "bbox": False,
        "properties": PROPERTIES,
        "assets": {
            "type": "object",
            "additionalProperties": ASSET,
            # One of them is the model: not all lack the role.
            "not": {"additionalProperties": {"properties": {"roles": {"not": {"contains": {"const": "mlm:model"}}}}}},
        },
        "links": {"type": "array", "maxItems": 0},
    },
    # Bands that an input names are described: in the properties, which STAC allows where an asset has them as well.
    "if": {"properties": {"properties": NAMED}},
    "then": {
        "properties": {
            "properties": {"required": ["bands"]},
            "assets": {"not": {"additionalProperties": {"properties": {"bands": False}}}},
        }
    },
    "else": {"properties": {"properties": {"properties": {"bands": False}}}},
}
