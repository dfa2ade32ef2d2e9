"""The service config is the contract's, and says for each method whether it is retried."""

import json
from pathlib import Path
from typing import Any

import pytest

from userprofile.channel import SERVICE_NAME, ChannelConfig
from userprofile.client import DEFAULT_RETRIES
from userprofile.service_config import MAX_RETRIES, SERVICE_CONFIG, time_suffices
from userprofile.v1 import user_profile_service_pb2 as pb

CONTRACT = Path(__file__).parent.parent.parent / "protos/userprofile/v1/service_config.json"
METHODS = {method.name for method in pb.DESCRIPTOR.services_by_name["UserProfileService"].methods}


def config(**options: Any) -> Any:
    config = ChannelConfig("localhost:1", tls=None, channel_options=(), **options)
    return json.loads(dict(config.load_balanced_options)["grpc.service_config"])


def test_every_method_is_named() -> None:
    names = [name for method in SERVICE_CONFIG["methodConfig"] for name in method["name"]]
    assert {name["service"] for name in names} == {SERVICE_NAME}
    assert sorted(name["method"] for name in names) == sorted(METHODS)


def test_the_channel_has_the_contracts() -> None:
    assert config(retries=DEFAULT_RETRIES) == SERVICE_CONFIG == json.loads(CONTRACT.read_text())
    assert DEFAULT_RETRIES == MAX_RETRIES


def test_the_caller_may_have_fewer_retries() -> None:
    for retries in range(1, MAX_RETRIES + 1):
        for method in config(retries=retries)["methodConfig"]:
            assert method["retryPolicy"]["maxAttempts"] == retries + 1
    assert all("retryPolicy" not in method for method in config(retries=0)["methodConfig"])


def test_health_is_watched_only_if_the_caller_wants_it() -> None:
    assert "healthCheckConfig" not in config(retries=0)
    assert config(retries=0, health_checking=True)["healthCheckConfig"] == {"serviceName": SERVICE_NAME}


@pytest.mark.parametrize(
    ("attempts", "remaining", "suffices"),
    [
        (None, None, True),
        (None, 0.07, True),
        (None, 0.06, False),
        ("0", 0.07, True),
        ("1", 0.23, False),
        ("1", 0.25, True),
        ("2", 0.95, False),
        ("2", 0.97, True),
        ("3", 2.3, False),
        ("3", 2.5, True),
        *((nonsense, 0.07, True) for nonsense in ("-1", "9" * 5000, "", "\u0661", "1e3", b"\xff")),
    ],
)
def test_whether_the_time_suffices_for_the_next_pause(
    attempts: object, remaining: float | None, suffices: bool
) -> None:
    assert time_suffices(attempts, remaining) is suffices
