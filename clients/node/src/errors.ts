import { type ServiceError, status } from "@grpc/grpc-js";
import type { Any } from "./gen/google/protobuf/any.js";
import {
  BadRequest,
  type BadRequest_FieldViolation,
  ErrorInfo,
  RequestInfo,
  RetryInfo,
} from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";
import type { User } from "./gen/userprofile/v1/user_profile.js";
import { inWords } from "./gateway.js";
import { REQUEST_ID } from "./metadata.js";
import { Reason } from "./reason.js";

const DOMAIN = "userprofile";

// The form of the service's reasons. Anything else is not from the service.
const REASON = /^[A-Z][A-Z0-9_]{0,62}$/;

/** A hundred usernames of this size fit into a request. */
const MAX_USERNAME_BYTES = 600;

/** What gRPC says of a message that is too large. */
const SIZE = /larger than|size|too large/i;

/** Limit of a message in characters. The service's have about 100. */
const MAX_MESSAGE = 1000;

// Control characters, line ends, bidirectional formatting and invisible
// characters.
const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}]/gu;

/** The details of an error from the service. */
export interface ErrorDetails {
  /**
   * For example `USER_NOT_FOUND`, see {@link Reason}, or a later version's.
   * Two are the client's own: `SERVICE_UNREACHABLE`, if no server sent a
   * response, and `CALL_REFUSED`, if gRPC in a server or proxy dropped the
   * call. Undefined if the error is not from the service.
   */
  reason?: string | undefined;
  /**
   * Whether a retry may help after a pause: the service says so, or the reason
   * is the client's own.
   */
  retryable?: boolean;
  /**
   * Identifies the call in the server's log. Undefined if the username can't be
   * sent, so that no call is made.
   */
  requestId?: string | undefined;
  /** The invalid fields of the request, and why they are invalid. */
  fieldViolations?: Pick<BadRequest_FieldViolation, "field" | "description">[];
}

/** The error of a call, or of one username of a batch. */
export class UserProfileError extends Error {
  override readonly name = "UserProfileError";
  /** The gRPC status code, to compare with `status.NOT_FOUND` and the like. */
  readonly code: status;
  /** See {@link ErrorDetails.reason}. */
  readonly reason: string | undefined;
  /** See {@link ErrorDetails.retryable}. */
  readonly retryable: boolean;
  /** See {@link ErrorDetails.requestId}. */
  readonly requestId: string | undefined;
  /** See {@link ErrorDetails.fieldViolations}. */
  readonly fieldViolations: NonNullable<ErrorDetails["fieldViolations"]>;

  /** The message is for people; programs check the code and the reason. */
  constructor(
    code: status,
    message: string,
    details: ErrorDetails = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.code = code;
    this.reason = details.reason;
    this.retryable = details.retryable ?? false;
    this.requestId = details.requestId;
    this.fieldViolations = details.fieldViolations ?? [];
  }
}

/** The error of `getUsers` if some of the users could not be read. */
export class BatchError extends UserProfileError {
  /** The users that were found, by username. */
  readonly users: ReadonlyMap<string, User>;
  /**
   * The errors of users that could not be read, by username. Users that don't
   * exist are in neither map.
   */
  readonly errors: ReadonlyMap<string, UserProfileError>;

  /** Its code, reason, id and retryability are those of the first error. */
  constructor(
    users: ReadonlyMap<string, User>,
    errors: ReadonlyMap<string, UserProfileError>,
  ) {
    const [first] = errors.values();
    if (!first) throw new TypeError("A BatchError has at least one error");
    super(
      first.code,
      `${errors.size} of the users could not be read; the first error: ${first.message}`,
      first,
      { cause: first },
    );
    this.users = users;
    this.errors = errors;
  }
}

/** Whether an error says that no user has the username. */
export function isNotFound(error: unknown): boolean {
  return (
    error instanceof UserProfileError &&
    error.code === status.NOT_FOUND &&
    error.reason === Reason.USER_NOT_FOUND
  );
}

/**
 * Returns the error of a username that can't be sent; undefined for any other,
 * which the server validates.
 */
export function unsendable(username: string): UserProfileError | undefined {
  if (typeof (username as unknown) !== "string")
    throw new TypeError(`A username is a string, not ${typeof username}`);
  // A lone surrogate would be sent as U+FFFD: another username.
  if (!username.isWellFormed()) return invalid("must be valid Unicode");
  return Buffer.byteLength(username) > MAX_USERNAME_BYTES
    ? invalid("must not be longer than 233 bytes in UTF-8")
    : undefined;
}

function invalid(description: string): UserProfileError {
  const fieldViolations = [{ field: "username", description }];
  const reason = Reason.INVALID_USERNAME;
  const message = `The username is not valid: username ${description}.`;
  const details = { reason, fieldViolations };
  return new UserProfileError(status.INVALID_ARGUMENT, message, details);
}

/** Returns the error of a call that was in progress when its client closed. */
export function closedMeanwhile(requestId: string): UserProfileError {
  const message = "The client was closed.";
  return new UserProfileError(status.CANCELLED, message, { requestId });
}

/** Returns the error of a call whose `parent` was cancelled. */
export function cancelledByParent(requestId: string): UserProfileError {
  const message = "The call that needed this one was cancelled.";
  return new UserProfileError(status.CANCELLED, message, { requestId });
}

/** Returns the error of a call whose deadline passed before it had its token. */
export function lateToken(requestId: string): UserProfileError {
  const message =
    "The token function did not return a token before the deadline.";
  return new UserProfileError(status.DEADLINE_EXCEEDED, message, { requestId });
}

/** Converts the error of a stub. */
export function fromServiceError(
  cause: ServiceError,
  requestId: string,
): UserProfileError {
  const trailer = cause.metadata.get("grpc-status-details-bin")[0];
  const details = readDetails(() => {
    const received = trailer ? Status.decode(trailer as Buffer) : undefined;
    // Details with another code than the call's are not from our server.
    return received?.code === cause.code ? received.details : [];
  });
  // gRPC's own rule: a pushback that is no number forbids retries, as -1 does.
  const retryAllowed = cause.metadata
    .get("grpc-retry-pushback-ms")
    .every((pause) => /^\d+$/.test(pause.toString()));
  const found = { requestId, ...details };
  return make(
    cause.code,
    inWords(cause.details),
    found,
    { cause },
    retryAllowed,
  );
}

/**
 * Returns the error of a call that waited for a server until its deadline;
 * `cause` is gRPC's last connection error.
 */
export function neverReached(
  cause: ServiceError,
  requestId: string,
): UserProfileError {
  const message = `No server could be reached in time: ${cause.details}`;
  return make(status.UNAVAILABLE, message, { requestId }, { cause });
}

/** Converts the error of one result of a batch. */
export function fromStatus(
  { code, message, details }: Status,
  requestId: string | undefined,
): UserProfileError {
  const found = readDetails(() => details);
  return make(code, message, { requestId, ...found });
}

/**
 * Returns the error for a response of a later version, or of another kind of
 * server. Another user's profile must never pass for the requested one.
 */
export function unreadable(requestId: string | undefined): UserProfileError {
  return make(status.UNKNOWN, "The client can't read the server's response.", {
    requestId,
  });
}

function make(
  received: number,
  message: string,
  details: ErrorDetails,
  options?: ErrorOptions,
  retryAllowed = true,
): UserProfileError {
  // An error with code OK, or with an unknown code, is UNKNOWN.
  const name = status[received] as keyof typeof status | undefined;
  const code = status[name === undefined || name === "OK" ? "UNKNOWN" : name];
  if (details.reason === undefined) {
    details.reason = ownReason(code, message);
    details.retryable = details.reason !== undefined && retryAllowed;
  }
  return new UserProfileError(code, printable(message), details, options);
}

/** Returns the client's own reason for an error without one of the service. */
function ownReason(code: status, message: string): Reason | undefined {
  if (code === status.UNAVAILABLE) return Reason.SERVICE_UNREACHABLE;
  const dropped =
    code === status.CANCELLED ||
    (code === status.RESOURCE_EXHAUSTED && !SIZE.test(message));
  return dropped ? Reason.CALL_REFUSED : undefined;
}

/** Escapes characters that could control or spoof a terminal. */
function printable(text: string): string {
  const more = text.length - MAX_MESSAGE;
  const kept =
    more > 0
      ? `${text.slice(0, MAX_MESSAGE)}… (${more} more characters)`
      : text;
  return kept.replace(
    UNPRINTABLE,
    (letter) => `\\u{${letter.codePointAt(0)?.toString(16)}}`,
  );
}

function readDetails(unpack: () => Any[]): ErrorDetails {
  const found: ErrorDetails = {};
  try {
    for (const { typeUrl, value } of unpack()) {
      switch (typeUrl.slice(typeUrl.lastIndexOf("/") + 1)) {
        case ErrorInfo.$type: {
          const info = ErrorInfo.decode(value);
          if (info.domain === DOMAIN && REASON.test(info.reason)) {
            found.reason = info.reason;
          }
          break;
        }
        case RequestInfo.$type: {
          const { requestId } = RequestInfo.decode(value);
          if (REQUEST_ID.test(requestId)) found.requestId = requestId;
          break;
        }
        case RetryInfo.$type:
          found.retryable = true;
          break;
        case BadRequest.$type:
          found.fieldViolations = BadRequest.decode(value).fieldViolations.map(
            ({ field, description }) => ({
              field: printable(field),
              description: printable(description),
            }),
          );
      }
    }
  } catch {
    // Unreadable details are not from the service; keep code and message.
  }
  return found;
}
