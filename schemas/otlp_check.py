"""OTLP's protobuf classes with every `string` read as `bytes`: the structural check of whole messages.

protobuf's own C parser (upb) walks a message to its last nested field in a fraction of what a walk in Python takes.
Strings become bytes because upb refuses a message for one string that is not UTF-8, while the Collector and Jaeger
take it: one bad log line must not send its whole message to the dead-letter queue.

An object for each attribute is what costs most where attributes are only compared: `PointsData` leaves those of data
points as they lie.
"""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

LIBRARY_FIELD = 1000
"""Of a resource, instead of its scopes: what OTLP 0.15 to 0.19 still allowed. Before, it was their field and form."""


def library_of(signal: str) -> str:
    """What is wrong with a resource that has LIBRARY_FIELD alone."""
    return f"instrumentation_library_{signal}: not a name of OTLP 1.0, what is in it would be lost"


def strings_as_bytes(message: DescriptorProto) -> None:
    """Change the message's declaration, nested ones included."""
    for field in message.field:
        if field.type == FieldDescriptorProto.TYPE_STRING:
            field.type = FieldDescriptorProto.TYPE_BYTES
    for nested in message.nested_type:
        strings_as_bytes(nested)


def attributes_as_bytes(message: DescriptorProto) -> None:
    """Change the declaration: its attributes are not looked into."""
    for field in message.field:
        if field.name == "attributes":
            field.type = FieldDescriptorProto.TYPE_BYTES
            field.ClearField("type_name")


def _pool(points_as_they_lie: bool = False) -> DescriptorPool:
    pool = DescriptorPool()
    for module in (common_pb2, resource_pb2, trace_pb2, logs_pb2, metrics_pb2):
        file = FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
        for message in file.message_type:
            strings_as_bytes(message)
            if points_as_they_lie and message.name.endswith("DataPoint"):
                attributes_as_bytes(message)
        pool.Add(file)
    return pool


_POOL = _pool()


def message_class(name: str, pool: DescriptorPool = _POOL) -> type[Message]:
    """The class of `opentelemetry.proto.<name>`, such as `trace.v1.TracesData`."""
    return GetMessageClass(pool.FindMessageTypeByName(f"opentelemetry.proto.{name}"))


TracesData = message_class("trace.v1.TracesData")
LogsData = message_class("logs.v1.LogsData")
MetricsData = message_class("metrics.v1.MetricsData")
KeyValue = message_class("common.v1.KeyValue")
PointsData = message_class("metrics.v1.MetricsData", _pool(points_as_they_lie=True))
"""MetricsData of which an attribute of a data point is bytes: a KeyValue that nobody has looked into."""
