import type { ServiceError, status } from "@grpc/grpc-js";
import type { Any } from "./gen/google/protobuf/any.js";
import {
  BadRequest,
  type BadRequest_FieldViolation,
  ErrorInfo,
  RequestInfo,
} from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";

const DOMAIN = "userprofile";

/** What the service tells about an error beyond its code and its message. */
export interface ErrorDetails {
  /** Like `USER_NOT_FOUND`; undefined where gRPC itself answered. */
  reason?: string | undefined;
  /**
   * Finds the call in the server's log; undefined where the service didn't
   * answer, and in the results of a batch.
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
  const details = readDetails(() =>
    trailer ? Status.decode(trailer as Buffer).details : [],
  );
  return new UserProfileError(cause.code, cause.details, details, { cause });
}

/** Returns the error that stands for one result of a batch. */
export function fromStatus({
  code,
  message,
  details,
}: Status): UserProfileError {
  return new UserProfileError(
    code,
    message,
    readDetails(() => details),
  );
}

function readDetails(unpack: () => Any[]): ErrorDetails {
  const found: ErrorDetails = {};
  try {
    for (const { typeUrl, value } of unpack()) {
      switch (typeUrl.slice(typeUrl.lastIndexOf("/") + 1)) {
        case ErrorInfo.$type: {
          const info = ErrorInfo.decode(value);
          if (info.domain === DOMAIN) found.reason = info.reason;
          break;
        }
        case RequestInfo.$type:
          found.requestId = RequestInfo.decode(value).requestId;
          break;
        case BadRequest.$type:
          found.fieldViolations = BadRequest.decode(value).fieldViolations;
      }
    }
  } catch {
    // Other bytes aren't from this service; code and message still count.
  }
  return found;
}
