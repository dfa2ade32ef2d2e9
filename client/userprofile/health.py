"""Health checks, by the standard protocol (https://grpc.io/docs/guides/health-checking/)."""

from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from userprofile.channel import SERVICE_NAME

HEALTH_REQUEST = health_pb2.HealthCheckRequest(service=SERVICE_NAME)


def health_check(channel: grpc.Channel | grpc.aio.Channel) -> Any:
    """Returns the health service's Check. Its generated stub has types for synchronous channels only."""
    return channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )


def is_serving(response: health_pb2.HealthCheckResponse) -> bool:
    """Returns whether the server reports SERVING."""
    return response.status == health_pb2.HealthCheckResponse.SERVING
