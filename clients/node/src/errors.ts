import { type Metadata, type ServiceError, status } from "@grpc/grpc-js";
import type { Any } from "./gen/google/protobuf/any.js";
import {
  BadRequest,
  type BadRequest_FieldViolation,
  ErrorInfo,
  RequestInfo,
  RetryInfo,
} from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";
import { inWords } from "./gateway.js";
import { Reason } from "./reason.js";

const DOMAIN = "userprofile";

// The form of the service's reasons and request ids. Anything else is not from
// the service.
const REASON = /^[A-Z][A-Z0-9_]{0,62}$/;
const REQUEST_ID = /^[ -~]{1,128}$/;

/** Limit of a message in characters. The service's have about 100. */
const MAX_MESSAGE = 1000;

// Control characters, line ends, bidirectional formatting and invisible
// characters.
const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}]/gu;

/** The details of an error from the service. */
export interface ErrorDetails {
  /**
   * For example `USER_NOT_FOUND`, see {@link Reason}, or a later version's.
   * `SERVICE_UNREACHABLE` is the client's own: no server sent a response.
   * Undefined if the error is not from the service.
   */
  reason?: string | undefined;
  /**
   * Whether a retry may help after a pause: the service says so, or no server
   * sent a response.
   */
  retryable?: boolean;
  /**
   * Identifies the call in the server's log. All results of a batch have the
   * same. Undefined if the service sent no response.
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

/** Converts the error of a stub. */
export function fromServiceError(cause: ServiceError): UserProfileError {
  const trailer = cause.metadata.get("grpc-status-details-bin")[0];
  const details = readDetails(() => {
    const received = trailer ? Status.decode(trailer as Buffer) : undefined;
    // Details with another code than the call's are not from our server.
    return received?.code === cause.code ? received.details : [];
  });
  const requestId = requestIdOf(cause.metadata);
  const message = inWords(cause.details);
  // gRPC's own rule: a pushback that is no number forbids retries, as -1 does.
  const retryAllowed = cause.metadata
    .get("grpc-retry-pushback-ms")
    .every((pause) => /^\d+$/.test(pause.toString()));
  const found = { requestId, ...details };
  return make(cause.code, message, found, { cause }, retryAllowed);
}

/**
 * Returns the error of a call that waited for a server until its deadline;
 * `cause` is gRPC's last connection error.
 */
export function neverReached(cause: ServiceError): UserProfileError {
  const message = `No server could be reached in time: ${cause.details}`;
  return make(status.UNAVAILABLE, message, {}, { cause });
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

/** Returns the request id in the trailing metadata. */
export function requestIdOf(trailer: Metadata): string | undefined {
  const id = trailer.get("x-request-id")[0]?.toString();
  return id !== undefined && REQUEST_ID.test(id) ? id : undefined;
}

function make(
  code: number,
  message: string,
  details: ErrorDetails,
  options?: ErrorOptions,
  retryAllowed = true,
): UserProfileError {
  // An error with code OK, or with an unknown code.
  if (code === status.OK || !(code in status)) code = status.UNKNOWN;
  if (details.reason === undefined) {
    const unreachable = code === status.UNAVAILABLE;
    if (unreachable) details.reason = Reason.SERVICE_UNREACHABLE;
    details.retryable = unreachable && retryAllowed;
  }
  return new UserProfileError(code, printable(message), details, options);
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
