"""The contract's service config: load balancing and retries by method, for the clients of every language.

It is `protos/userprofile/v1/service_config.json`, in gRPC's own format
(https://github.com/grpc/grpc/blob/master/doc/service_config.md). Methods that it doesn't name are never retried.

- Retried statuses: UNAVAILABLE, which means that nothing has happened and a retry may succeed (AIP-194). CANCELLED,
  with which a stopping gRPC server ends calls that it hasn't begun; a caller's own cancellation is not retried.
  RESOURCE_EXHAUSTED, from a server without room for the call; ours says when to retry, by a pushback.
- The pauses begin with 50 ms, for a lost connection, and add up to three seconds, for a service that restarts behind a
  gateway. gRPC makes at most five attempts, whatever the config says.
- gRPC retry throttling: each failure costs 1 token, each success returns 0.999 (gRPC's core reads 1 as 0), no retries
  below half of maxTokens. So hundreds of calls that are lost with one server are retried, and calls to one server
  without its store among several are retried for any time; but a service that is down doesn't get five times the load.
"""

import json
import pkgutil
from itertools import zip_longest
from typing import Any

SERVICE_CONFIG: dict[str, Any] = json.loads(pkgutil.get_data("userprofile.v1", "service_config.json") or "")

JITTER = 0.2
"""gRPC's jitter: the fraction by which it shortens or lengthens a pause."""

PUSHBACK = "grpc-retry-pushback-ms"
"""The metadata key of a server's retry pushback. A negative value, or one that isn't a number, forbids retries."""

NO_RETRY = (PUSHBACK, "-1")

PREVIOUS_ATTEMPTS = "grpc-previous-rpc-attempts"
"""The metadata key with which gRPC clients count their attempts."""


def pauses_by_method(retries: int) -> dict[str, list[float]]:
    """Returns the seconds before each retry, by method, with at most `retries` retries."""
    return {
        name["method"]: _pauses(config["retryPolicy"])[:retries]
        for config in SERVICE_CONFIG["methodConfig"]
        if "retryPolicy" in config
        for name in config["name"]
    }


def _pauses(policy: dict[str, Any]) -> list[float]:
    first, longest = (float(policy[key].removesuffix("s")) for key in ("initialBackoff", "maxBackoff"))
    return [min(first * policy["backoffMultiplier"] ** n, longest) for n in range(policy["maxAttempts"] - 1)]


MAX_RETRIES = max(len(pauses) for pauses in pauses_by_method(99).values())
"""The maximum number of retries of a call."""

_LONGEST = [
    max(pauses) * (1 + JITTER) for pauses in zip_longest(*pauses_by_method(MAX_RETRIES).values(), fillvalue=0.0)
]


def time_suffices(previous_attempts: object, remaining: float | None) -> bool:
    """Returns whether a call that fails now would be retried before its deadline.

    Args:
        previous_attempts: The caller's `grpc-previous-rpc-attempts`, None if it sent none.
        remaining: Seconds until the caller's deadline; None without one.
    """
    attempts = str(previous_attempts or 0)
    retries = int(attempts) if attempts in map(str, range(MAX_RETRIES)) else 0
    return remaining is None or remaining > _LONGEST[retries]
