"""The adapter of the Python clients: `python -m tests.client_conformance.adapter [--async] HOST:PORT`."""

import dataclasses
import json
import re
import sys
from typing import Any

from tests.clients.twins import making
from userprofile import User, UserProfileError


def respond(client: Any, request: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Makes the call of a request. Raises ValueError or TypeError for an invalid request."""
    [(method, arguments)] = request.items()
    timeout = arguments.pop("timeout_ms", None)
    options = {"fields": arguments.pop("fields", None), "timeout": timeout and timeout / 1000}
    if method == "get_user":
        try:
            return outcome(client.get_user(**arguments, **options))
        except UserProfileError as error:
            return outcome(error)
    if method == "get_users":
        outcomes = client.iter_users(**arguments, **options)
        return {"results": [{"username": username} | outcome(found) for username, found in outcomes]}
    raise ValueError(f"there is no method {method}")


def outcome(found: User | UserProfileError) -> dict[str, Any]:
    """A user or an error as JSON, with what is set."""
    if isinstance(found, User):
        return {"user": _set(dataclasses.asdict(found))}
    field = re.search(r": (\S+) must ", found.message)  # the message is the only place that names it
    values = {"code": found.code.name, "reason": found.reason, "field": field and field[1]}
    return {"error": _set(values | {"retryable": found.retryable or None})}


def _set(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def main() -> None:
    """Responds to each line of stdin."""
    *flags, target = sys.argv[1:]
    with making("async" if "--async" in flags else "sync") as make:
        client = make(target)
        for line in sys.stdin:
            try:
                response = respond(client, json.loads(line))
            except (ValueError, TypeError) as error:
                print(f"error: not a request: {error}", file=sys.stderr)
                sys.exit(2)
            print(json.dumps(response, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
