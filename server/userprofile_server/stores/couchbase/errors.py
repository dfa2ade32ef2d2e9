"""Maps the exceptions of the Couchbase SDK to the domain's errors. A test fails if a class is missing here."""

from typing import Any

from couchbase import exceptions as sdk

from userprofile_server.errors import (
    StoreError,
    StoreMisconfiguredError,
    StoreTimeoutError,
    StoreUnavailableError,
)

TIMEOUTS: frozenset[type[Exception]] = frozenset(
    {sdk.TimeoutException, sdk.AmbiguousTimeoutException, sdk.UnAmbiguousTimeoutException}
)
"""The node got the request and didn't respond, or never got it; see `translate`."""

MISCONFIGURED: dict[type[Exception], str] = {
    sdk.AuthenticationException: "the username or password is wrong, or the user may not read this bucket",
    sdk.BucketNotFoundException: "the bucket doesn't exist, or isn't ready yet, or this user may not see it",
    sdk.BucketDoesNotExistException: "the bucket doesn't exist",
    sdk.ScopeNotFoundException: "the scope doesn't exist, or this user may not see it",
    sdk.CollectionNotFoundException: "the collection doesn't exist, or this user may not see it",
    sdk.KeyspaceNotFoundException: "the scope or collection doesn't exist, or this user may not see it",
    sdk.FeatureUnavailableException: "the server is too old, or lacks a feature",
    sdk.FeatureNotFoundException: "the server is too old, or lacks a feature",
    sdk.UnsupportedOperation: "the server is too old, or no Couchbase server",
    sdk.InvalidArgumentException: "the SDK or the server refuses an argument",
}
"""An operator has to change something, here or on the cluster."""

UNAVAILABLE: frozenset[type[Exception]] = frozenset(
    {
        sdk.CouchbaseException,  # the base class itself: a network error's code, or a status unknown to the SDK
        sdk.DocumentLockedException,
        sdk.InternalSDKException,
        sdk.InternalServerFailureException,
        sdk.MissingConnectionException,
        sdk.QuotaLimitedException,
        sdk.RateLimitedException,
        sdk.RequestCanceledException,
        sdk.ServiceUnavailableException,
        sdk.TemporaryFailException,
        sdk.UnsuccessfulOperationException,
    }
)
"""The cluster is unavailable now and may recover."""

OUTCOMES: frozenset[type[Exception]] = frozenset({sdk.DocumentNotFoundException, sdk.DocumentExistsException})
"""Not errors to us: the store handles them before it translates errors."""

NEVER: frozenset[type[Exception]] = frozenset(
    {
        # From operations that we don't use: sub-documents, CAS, locks, durability, counters, scans.
        sdk.CasMismatchException,
        sdk.DeltaInvalidException,
        sdk.DocumentNotJsonException,
        sdk.DocumentNotLockedException,
        sdk.DocumentUnretrievableException,
        sdk.DurabilityImpossibleException,
        sdk.DurabilityInvalidLevelException,
        sdk.DurabilitySyncWriteAmbiguousException,
        sdk.DurabilitySyncWriteInProgressException,
        sdk.InvalidValueException,
        sdk.MutationTokenOutdatedException,
        sdk.NumberTooBigException,
        sdk.PathExistsException,
        sdk.PathInvalidException,
        sdk.PathMismatchException,
        sdk.PathNotFoundException,
        sdk.PathTooBigException,
        sdk.PathTooDeepException,
        sdk.RangeScanCompletedException,
        sdk.ValueTooDeepException,
        # From encoding or encryption by the SDK: our values are bytes already.
        sdk.CryptoException,
        sdk.CryptoKeyNotFoundException,
        sdk.DecrypterAlreadyExistsException,
        sdk.DecrypterNotFoundException,
        sdk.DecryptionFailureException,
        sdk.EncrypterAlreadyExistsException,
        sdk.EncrypterNotFoundException,
        sdk.EncryptionFailureException,
        sdk.InvalidCipherTextException,
        sdk.InvalidCryptoKeyException,
        sdk.ValueFormatException,
        # From queries, search, views, analytics, eventing, transactions and management.
        sdk.AlreadyQueriedException,
        sdk.AnalyticsLinkExistsException,
        sdk.AnalyticsLinkNotFoundException,
        sdk.BucketAlreadyExistsException,
        sdk.BucketNotFlushableException,
        sdk.CollectionAlreadyExistsException,
        sdk.DatasetAlreadyExistsException,
        sdk.DatasetNotFoundException,
        sdk.DataverseAlreadyExistsException,
        sdk.DataverseNotFoundException,
        sdk.DesignDocumentNotFoundException,
        sdk.EventingFunctionAlreadyDeployedException,
        sdk.EventingFunctionCollectionNotFoundException,
        sdk.EventingFunctionCompilationFailureException,
        sdk.EventingFunctionIdenticalKeyspaceException,
        sdk.EventingFunctionNotBootstrappedException,
        sdk.EventingFunctionNotDeployedException,
        sdk.EventingFunctionNotFoundException,
        sdk.EventingFunctionNotUnDeployedException,
        sdk.GroupNotFoundException,
        sdk.HTTPException,
        sdk.InvalidIndexException,
        sdk.MissingTokenException,
        sdk.NoChildrenException,
        sdk.ParsingFailedException,
        sdk.QueryIndexAlreadyExistsException,
        sdk.QueryIndexNotFoundException,
        sdk.QueueEmpty,
        sdk.ScopeAlreadyExistsException,
        sdk.SearchIndexNotFoundException,
        sdk.TransactionCommitAmbiguous,
        sdk.TransactionException,
        sdk.TransactionExpired,
        sdk.TransactionFailed,
        sdk.TransactionOperationFailed,
        sdk.UserNotFoundException,
        sdk.WatchQueryIndexTimeoutException,
    }
)
"""Can't result from the operations that we use. If one occurs anyway, it counts as unavailable and the log names it."""

# A timeout with this reason isn't one: the SDK retried a missing collection until the timeout.
_NO_COLLECTION = "key_value_collection_outdated"

_LOCKED = "key_value_locked"

_VALUE_TOO_LARGE = 104  # an error code without a class of its own


def translate(error: Exception) -> StoreError:
    """Returns the domain's error for an exception of the SDK.

    The SDK's own text contains the document's key, so it is dropped. Class, code, the reasons of the SDK's retries, and
    the node are kept for operators.
    """
    summary = _summary(error)
    kind = type(error)
    reasons = _context(error, "retry_reasons") or ()
    if _NO_COLLECTION in reasons:
        return StoreMisconfiguredError(f"{MISCONFIGURED[sdk.CollectionNotFoundException]} ({summary})")
    if kind in MISCONFIGURED:
        return StoreMisconfiguredError(f"{MISCONFIGURED[kind]} ({summary})")
    if kind in TIMEOUTS and _context(error, "last_dispatched_to") and not reasons:
        return StoreTimeoutError(f"no response in time ({summary})")
    if kind in TIMEOUTS and not reasons:
        return StoreUnavailableError(f"not connected ({summary})")
    return StoreUnavailableError(f"the cluster is temporarily unavailable ({summary})")


def translate_opening(error: Exception, bucket: str) -> StoreError:
    """Returns the domain's error for an exception of the SDK while it opened a bucket, after logging in.

    For a user who may access any bucket, such as an administrator, a missing bucket is a timeout: the SDK waits for it.
    """
    if type(error) not in TIMEOUTS:
        return translate(error)
    why = "it doesn't exist, or isn't ready yet, or its nodes don't respond"
    return StoreUnavailableError(f"the bucket {bucket!r} can't be opened: {why} ({_summary(error)})")


def translate_write(error: Exception) -> StoreError:
    """Returns the domain's error for an exception of the SDK during a write, after logging in."""
    if isinstance(error, sdk.AuthenticationException):
        return StoreMisconfiguredError(f"the user may not write to this bucket or collection ({_summary(error)})")
    return translate(error)


def refusal(error: Exception) -> str | None:
    """Returns why the store refuses this one document; None if the error concerns the store."""
    if isinstance(error, sdk.DocumentLockedException) or _LOCKED in (_context(error, "retry_reasons") or ()):
        return "another program has locked this document; store it again"
    if isinstance(error, sdk.InvalidArgumentException):
        return "the store refuses this document as malformed"
    if getattr(error, "error_code", None) == _VALUE_TOO_LARGE:
        return "the document is larger than the store takes"
    return None


def _summary(error: Exception) -> str:
    parts = [type(error).__name__, f"code {getattr(error, 'error_code', None)}"]
    if reasons := _context(error, "retry_reasons"):
        parts.append(f"retried for {', '.join(sorted(reasons))}")
    if node := _context(error, "last_dispatched_to"):
        parts.append(f"node {node}")
    return ", ".join(parts)


def _context(error: Exception, name: str) -> Any:
    return getattr(getattr(error, "error_context", None), name, None)
