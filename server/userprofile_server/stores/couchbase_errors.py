"""What each exception of the Couchbase SDK means to us. Every class is decided here; a test fails on one that isn't."""

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
"""The node was asked and didn't answer, or never could be asked; see `translate`."""

MISCONFIGURED: dict[type[Exception], str] = {
    sdk.AuthenticationException: "the username or password is wrong, or the user may not read this bucket",
    sdk.BucketNotFoundException: "the bucket doesn't exist, or the user may not see it",
    sdk.BucketDoesNotExistException: "the bucket doesn't exist",
    sdk.ScopeNotFoundException: "the scope doesn't exist",
    sdk.CollectionNotFoundException: "the collection doesn't exist",
    sdk.KeyspaceNotFoundException: "the scope or collection doesn't exist",
    sdk.FeatureUnavailableException: "the server is too old, or lacks a feature",
    sdk.FeatureNotFoundException: "the server is too old, or lacks a feature",
    sdk.UnsupportedOperation: "the server is too old, or no Couchbase server",
    sdk.InvalidArgumentException: "the SDK or the server refuses an argument",
}
"""Somebody has to change something, here or on the cluster."""

UNAVAILABLE: frozenset[type[Exception]] = frozenset(
    {
        sdk.CouchbaseException,  # bare, with a network error's code, or a status that the SDK doesn't know
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
"""The cluster can't answer now and may well later."""

ANSWERS: frozenset[type[Exception]] = frozenset({sdk.DocumentNotFoundException, sdk.DocumentExistsException})
"""Not errors to us: the store reads them as answers before it asks here."""

NEVER: frozenset[type[Exception]] = frozenset(
    {
        # Of operations that we don't use: sub-documents, CAS, locks, durability, counters, scans.
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
        # Of values that the SDK would encode or encrypt: ours are bytes already.
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
        # Of queries, search, views, analytics, eventing, transactions and management.
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
"""Can't come of what we ask for. Should one come all the same, it counts as unavailable and the log names it."""

# A timeout with this reason isn't one: the SDK went on asking for a collection until its time was up.
_NO_COLLECTION = "key_value_collection_outdated"


def translate(error: Exception) -> StoreError:
    """Returns the domain's error for what the SDK raised.

    The SDK's own text names the document's key, so it is left behind; what helps an operator is
    taken out of it: class, code, why the SDK had to try again, and which node it was.
    """
    summary = _summary(error)
    kind = type(error)
    reasons = _context(error, "retry_reasons") or ()
    if _NO_COLLECTION in reasons:
        return StoreMisconfiguredError(f"the collection doesn't exist ({summary})")
    if kind in MISCONFIGURED:
        return StoreMisconfiguredError(f"{MISCONFIGURED[kind]} ({summary})")
    if kind in TIMEOUTS and _context(error, "last_dispatched_to") and not reasons:
        return StoreTimeoutError(f"no answer in time ({summary})")
    if kind in TIMEOUTS and not reasons:
        return StoreUnavailableError(f"not connected ({summary})")
    return StoreUnavailableError(f"the cluster can't answer now ({summary})")


def _summary(error: Exception) -> str:
    parts = [type(error).__name__, f"code {getattr(error, 'error_code', None)}"]
    if reasons := _context(error, "retry_reasons"):
        parts.append(f"tried again for {', '.join(sorted(reasons))}")
    if node := _context(error, "last_dispatched_to"):
        parts.append(f"node {node}")
    return ", ".join(parts)


def _context(error: Exception, name: str) -> Any:
    return getattr(getattr(error, "error_context", None), name, None)
