"""The stage that identifies the caller and checks the policy, before anything is looked up."""

import logging
from collections.abc import Callable

import grpc

from userprofile_server.errors import (
    CallerNotAllowedError,
    CallerNotVerifiedError,
    CallerUnknownError,
    DomainError,
    FieldNotAllowedError,
)
from userprofile_server.rpc import health
from userprofile_server.rpc.error_table import status_for
from userprofile_server.rpc.read_mask import visible_fields
from userprofile_server.rpc.stages import Handler, Method, Stage
from userprofile_server.security.policy import Policy
from userprofile_server.telemetry import call

_NOTHING_SHOWN = "the call has neither token nor certificate"

_audit = logging.getLogger("userprofile_server.audit")


def authorization(
    principal_of: Callable[[grpc.ServicerContext], str | None], current_policy: Callable[[], Policy]
) -> Stage:
    """Returns the stage. `principal_of` returns the caller's principal, None for an anonymous caller, or raises.

    Health checks are always allowed: load balancers and the kubelet have no identity, and health reveals nothing about
    users.
    """

    def with_authorization(method: Method, handle: Handler) -> Handler:
        if method.containing_service is health.SERVICE:
            return handle
        path = f"/{method.containing_service.full_name}/{method.name}"

        def handle_authorized(request: object, context: grpc.ServicerContext) -> object:
            principal = None
            try:
                principal = call.current.get().principal = principal_of(context)
                decision = current_policy().decide(principal, path)
                if decision is None:
                    raise CallerNotAllowedError if principal else CallerUnknownError(_NOTHING_SHOWN)
                visible_fields.set(decision.fields)  # grpc runs every call in a context of its own
                return handle(request, context)
            except (CallerUnknownError, CallerNotVerifiedError, CallerNotAllowedError, FieldNotAllowedError) as error:
                _audit_denial(principal, context.peer(), path, error)
                raise

        return handle_authorized

    return with_authorization


def _audit_denial(principal: str | None, peer: str, path: str, error: DomainError) -> None:
    """Writes the audit line of a denial. Repeats are counted instead of written (`telemetry/logs.py`)."""
    caller, reason = principal or "a caller", status_for(error).reason
    if principal and " " in principal:  # possible in a JWT; unquoted, it could imitate the rest of an audit line
        caller = repr(principal)
    why = f": {error}" if str(error) else ""
    kind = f"{caller} was denied {path}: {reason}"
    _audit.warning("%s from %s was denied %s: %s%s", caller, peer, path, reason, why, extra={"kind": kind})
