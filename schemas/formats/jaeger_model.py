# Copyright (c) 2018 Uber Technologies, Inc.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
# http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Jaeger's model.proto, api_v2, as far as a Kafka message holds it, and message classes of it.

The messages below are those of github.com/jaegertracing/jaeger-idl, proto/api_v2/model.proto, changed to a table:
gogoproto's options and Trace are left out, and Timestamp and Duration stand in the same package (their bytes are those
of google.protobuf). The classes are built at import, so no generated code has to match protobuf's version.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from schemas.otlp_check import strings_as_bytes

PACKAGE = "jaeger.api_v2"
ENUMS = {
    "ValueType": ("STRING", "BOOL", "INT64", "FLOAT64", "BINARY"),
    "SpanRefType": ("CHILD_OF", "FOLLOWS_FROM"),
}
#: Message: its fields as type and name, the first with number 1. `[]` marks a repeated one.
MESSAGES = {
    "Timestamp": ("int64 seconds", "int32 nanos"),
    "Duration": ("int64 seconds", "int32 nanos"),
    "KeyValue": (
        "string key", "ValueType v_type", "string v_str", "bool v_bool", "int64 v_int64", "double v_float64",
        "bytes v_binary",
    ),
    "Log": ("Timestamp timestamp", "KeyValue[] fields"),
    "SpanRef": ("bytes trace_id", "bytes span_id", "SpanRefType ref_type"),
    "Process": ("string service_name", "KeyValue[] tags"),
    "Span": (
        "bytes trace_id", "bytes span_id", "string operation_name", "SpanRef[] references", "uint32 flags",
        "Timestamp start_time", "Duration duration", "KeyValue[] tags", "Log[] logs", "Process process",
        "string process_id", "string[] warnings",
    ),
    "Batch": ("Span[] spans", "Process process"),
}  # fmt: skip


def _field(number: int, kind: str, name: str) -> FieldDescriptorProto:
    field = FieldDescriptorProto(name=name, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
    if kind.endswith("[]"):
        kind, field.label = kind[:-2], FieldDescriptorProto.LABEL_REPEATED
    if kind in MESSAGES or kind in ENUMS:
        field.type_name = f".{PACKAGE}.{kind}"
    field.type = (
        FieldDescriptorProto.TYPE_MESSAGE if kind in MESSAGES
        else FieldDescriptorProto.TYPE_ENUM if kind in ENUMS
        else FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    )  # fmt: skip
    return field


def _file() -> FileDescriptorProto:
    file = FileDescriptorProto(name="jaeger/api_v2/model.proto", package=PACKAGE, syntax="proto3")
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        message.field.extend(_field(number, *field.split()) for number, field in enumerate(fields, 1))
    return file


def _classes(*, text: bool) -> dict[str, Any]:
    file = _file()
    if not text:
        for message in file.message_type:
            strings_as_bytes(message)
    pool = DescriptorPool()
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in MESSAGES}


#: Message classes by name; strings must be UTF-8.
TEXT = _classes(text=True)
#: The same with strings as bytes, for what others wrote (see schemas/otlp_check.py).
RAW = _classes(text=False)
