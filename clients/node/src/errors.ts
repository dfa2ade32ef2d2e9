import { type Metadata, type ServiceError, status } from "@grpc/grpc-js";
import type { Any } from "./gen/google/protobuf/any.js";
import {
  BadRequest,
  type BadRequest_FieldViolation,
  ErrorInfo,
  RequestInfo,
} from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";
import { inWords } from "./gateway.js";

const DOMAIN = "userprofile";

// What the service's reasons and request ids look like. Anything else isn't
// ours.
const REASON = /^[A-Z][A-Z0-9_]{0,62}$/;
const REQUEST_ID = /^[ -~]{1,128}$/;

/** Characters of a message that are kept; what is longer is for nobody. */
const MAX_MESSAGE = 1000;

// Control characters, line ends, what changes the direction of writing, and
// what can't be seen.
const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}]/gu;

/** What the service tells about an error beyond its code and its message. */
export interface ErrorDetails {
  /**
   * Like `USER_NOT_FOUND`; `SERVICE_UNREACHABLE` is the client's own, where no
   * server gave an answer. Undefined where something else answered.
   */
  reason?: string | undefined;
  /**
   * Finds the call in the server's log; for the results of a batch that of the
   * whole batch. Undefined where the service didn't answer.
   */
  requestId?: string | undefined;
  /** The fields of the request that are not valid, and why. */
  fieldViolations?: Pick<BadRequest_FieldViolation, "field" | "description">[];
}

/** Why a call, or one name of a batch, has no user. */
export class UserProfileError extends Error {
  override readonly name = "UserProfileError";
  /** The gRPC status code, to compare with `status.NOT_FOUND` and the like. */
  readonly code: status;
  /** See {@link ErrorDetails.reason}. */
  readonly reason: string | undefined;
  /** See {@link ErrorDetails.requestId}. */
  readonly requestId: string | undefined;
  /** See {@link ErrorDetails.fieldViolations}. */
  readonly fieldViolations: NonNullable<ErrorDetails["fieldViolations"]>;

  /** The message is for people; programs look at the code and the reason. */
  constructor(
    code: status,
    message: string,
    details: ErrorDetails = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.code = code;
    this.reason = details.reason;
    this.requestId = details.requestId;
    this.fieldViolations = details.fieldViolations ?? [];
  }
}

/** Returns the error that stands for what a stub failed with. */
export function fromServiceError(cause: ServiceError): UserProfileError {
  const trailer = cause.metadata.get("grpc-status-details-bin")[0];
  const details = readDetails(() => {
    const told = trailer ? Status.decode(trailer as Buffer) : undefined;
    // Details of another status than the call's aren't our server's.
    return told?.code === cause.code ? told.details : [];
  });
  const requestId = requestIdOf(cause.metadata);
  const message = inWords(cause.details);
  return make(cause.code, message, { requestId, ...details }, { cause });
}

/**
 * Returns the error of a call that waited for a server until its time was over;
 * `cause` has what gRPC last saw.
 */
export function neverReached(cause: ServiceError): UserProfileError {
  const message = `No server could be reached in time: ${cause.details}`;
  return make(status.UNAVAILABLE, message, {}, { cause });
}

/** Returns the error that stands for one result of a batch. */
export function fromStatus(
  { code, message, details }: Status,
  requestId: string | undefined,
): UserProfileError {
  const found = readDetails(() => details);
  return make(code, message, { requestId, ...found });
}

/**
 * Returns the error of an answer of a later version, or of a server that isn't
 * ours. Another user's profile must never pass for the one that was asked for.
 */
export function notUnderstood(requestId: string | undefined): UserProfileError {
  return make(
    status.UNKNOWN,
    "The server's answer is one that this client doesn't understand.",
    { requestId },
  );
}

/** Returns the id that the server has given to a call. */
export function requestIdOf(trailer: Metadata): string | undefined {
  const id = trailer.get("x-request-id")[0]?.toString();
  return id !== undefined && REQUEST_ID.test(id) ? id : undefined;
}

function make(
  code: number,
  message: string,
  details: ErrorDetails,
  options?: ErrorOptions,
): UserProfileError {
  // An error that says that it is none, or one that nobody knows.
  if (code === status.OK || !(code in status)) code = status.UNKNOWN;
  if (code === status.UNAVAILABLE) details.reason ??= "SERVICE_UNREACHABLE";
  return new UserProfileError(code, printable(message), details, options);
}

/** Escapes what would steer a terminal, or deceive who reads. */
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
    // Other bytes aren't from this service; code and message still count.
  }
  return found;
}
