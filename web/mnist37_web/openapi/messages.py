"""The schemas of messages, from the descriptors of the .proto files."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor

Schema = dict[str, Any]

# Protobuf's JSON mapping: 64-bit numbers are texts, for many readers know doubles alone.
TYPES: dict[int, Schema] = {
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_UINT64: {"type": "string", "format": "uint64"},
    FieldDescriptor.TYPE_FIXED64: {"type": "string", "format": "uint64"},
    FieldDescriptor.TYPE_INT64: {"type": "string", "format": "int64"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "format": "byte"},
}
WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d+(\.\d+)?s$"},
}
INT64 = {"uint64", "int64"}


class Messages:
    """The schemas of messages and of what they contain.

    Attributes:
        schemas: by the messages' names.

    Args:
        is_protobuf: whether the JSON is protobuf's own; else names are as in the .proto file, and
            64-bit numbers are numbers.
    """

    def __init__(self, is_protobuf: bool) -> None:
        self.schemas: dict[str, Schema] = {}
        self._is_protobuf = is_protobuf

    def refer(self, message: Any) -> Schema:  # noqa: ANN401 - grpc's descriptors have no one type
        """Return a reference to the schema of a message, which is added if it is not there."""
        name = message.full_name
        if name in WELL_KNOWN:
            return WELL_KNOWN[name]
        if name not in self.schemas:
            schema: Schema = {"type": "object", "additionalProperties": False}
            self.schemas[name] = schema
            schema["properties"] = {
                field.json_name if self._is_protobuf else field.name: self._describe(field)
                for field in message.fields
            }
        return {"$ref": f"#/components/schemas/{name}"}

    def _describe(self, field: Any) -> Schema:  # noqa: ANN401
        if field.message_type is not None:
            schema = self.refer(field.message_type)
        elif field.enum_type is not None:
            names = [value.name for value in field.enum_type.values]
            schema = {"type": "string", "enum": names}
        else:
            schema = TYPES[field.type]
            if schema.get("format") in INT64 and not self._is_protobuf:
                schema = {"type": "integer"}
        return {"type": "array", "items": schema} if field.is_repeated else schema
