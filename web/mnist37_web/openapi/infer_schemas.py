"""The schemas of predictions, whose JSON is the protocol's own and no message's."""

from __future__ import annotations

from mnist37_web.openapi.messages import Schema
from mnist37_web.rest.infer_request import BINARY, BINARY_OUTPUT, BINARY_SIZE, OUTPUT, VALUE_BYTES
from mnist37_web.rest.pixels import INPUT

PARAMETERS: Schema = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}


def parameters(**known: Schema) -> Schema:
    """Return the schema of parameters, of which some are known."""
    return {**PARAMETERS, "properties": known}


SHAPE: Schema = {"type": "array", "items": {"type": "integer", "minimum": 1}}
NUMBERS: Schema = {"type": "array", "items": {"type": "number"}}
FLAG: Schema = {"type": "boolean"}
SCHEMAS: dict[str, Schema] = {
    "InferRequest": {
        "type": "object",
        "required": ["inputs"],
        "additionalProperties": False,
        "properties": {
            "id": {"type": "string"},
            "model_name": {"description": "Not read: the path names the model."},
            "model_version": {"description": "Not read: the path names the version."},
            "parameters": parameters(**{BINARY_OUTPUT: FLAG}),
            "inputs": {
                "type": "array",
                "minItems": 1,
                "maxItems": 1,
                "items": {
                    "type": "object",
                    "required": ["name", "shape", "datatype"],
                    "additionalProperties": False,
                    "properties": {
                        "name": {"const": INPUT},
                        "shape": {**SHAPE, "minItems": 2, "maxItems": 3},
                        "datatype": {"enum": list(VALUE_BYTES)},
                        "parameters": parameters(**{BINARY_SIZE: {"type": "integer"}}),
                        "data": {
                            "type": "array",
                            "description": "All pixels in one list, or in lists as the shape says.",
                        },
                    },
                },
            },
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "additionalProperties": False,
                    "properties": {
                        "name": {"const": OUTPUT},
                        "parameters": parameters(**{BINARY: FLAG}),
                    },
                },
            },
        },
    },
    "InferAnswer": {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "parameters": PARAMETERS,
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name", "shape", "datatype"],
                    "properties": {
                        "name": {"const": OUTPUT},
                        "shape": SHAPE,
                        "datatype": {"const": "FP32"},
                        "parameters": parameters(**{BINARY_SIZE: {"type": "integer"}}),
                        "data": NUMBERS,
                    },
                },
            },
        },
    },
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {"type": "string", "description": "What was wrong, and what would be right."},
            "code": {"type": "string", "description": "gRPC's code, of an error of the server."},
            "reason": {"type": "string", "description": "A name for programs."},
            "field": {"type": "string", "description": "The field that is wrong."},
        },
    },
}
BYTES: Schema = {"description": "The JSON, and behind it the values as little-endian bytes."}
INFER: Schema = {
    "required": True,
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}},
        "application/octet-stream": {"schema": BYTES},
    },
}


def infer_answers() -> Schema:
    """Return the content of an answer by its type."""
    return {
        "application/json": {"schema": {"$ref": "#/components/schemas/InferAnswer"}},
        "application/octet-stream": {"schema": BYTES},
    }


def index_body() -> Schema:
    """Return the body of a question for the models, which may be left out."""
    schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {"ready": FLAG, "repository_name": {"type": "string"}},
    }
    return {"content": {"application/json": {"schema": schema}}}
