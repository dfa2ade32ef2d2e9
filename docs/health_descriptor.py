"""Prints the health protocol as a serialized FileDescriptorSet; `make protoset` appends it to our own."""

import sys

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_health.v1 import health_pb2

descriptors = FileDescriptorSet()
health_pb2.DESCRIPTOR.CopyToProto(descriptors.file.add())
sys.stdout.buffer.write(descriptors.SerializeToString())
