import type { ServerUnaryCall } from "@grpc/grpc-js";
import type { User } from "./gen/userprofile/v1/user_profile.js";
import type { CallMetadata } from "./metadata.js";

/** Options of every call. */
export interface CallOptions {
  /** Timeout of this call in milliseconds; by default the client's. */
  timeoutMs?: number | undefined;
  /** Cancels the call, which then rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
  /**
   * Whether to wait until a server can be reached, at most until the timeout;
   * by default the client's setting, and false for `checkHealth`.
   */
  waitForReady?: boolean | undefined;
  /**
   * Identifies the call in the server's log: 1 to 128 visible ASCII characters.
   * By default a random one.
   */
  requestId?: string | undefined;
  /** Sent with this call, in addition to the client's metadata. */
  metadata?: CallMetadata | undefined;
  /**
   * The call of your own gRPC server that needs this one. Its deadline and its
   * cancellation hold for this call too, and its request id and trace context
   * (`traceparent`, `tracestate`) are passed on.
   */
  parent?: ServerUnaryCall<unknown, unknown> | undefined;
}

/** Options of a call that reads users. */
export interface ReadOptions extends CallOptions {
  /**
   * The fields of the user to return; the others are undefined, and the
   * username is always set. By default all that the caller may see, like `*`.
   */
  fields?: readonly (keyof User | "*")[] | undefined;
}

/** Returns the paths of the read mask, by the contract's names: `full_name`. */
export function readMask({ fields }: ReadOptions): string[] | undefined {
  if (fields === undefined) return undefined;
  if (!isStrings(fields))
    throw new TypeError("fields must be an array of names");
  // An empty mask would request all fields.
  return ["username", ...new Set(fields.map(inContract))];
}

function isStrings(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((one) => typeof one === "string");
}

function inContract(field: string): string {
  return field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** Returns a timeout in milliseconds, or throws a TypeError. */
export function checkedTimeout(timeoutMs: number): number {
  // Beyond it, gRPC would set no timer at all. Text, say from the environment,
  // would be appended to the time instead of added.
  if (
    typeof (timeoutMs as unknown) !== "number" ||
    !(timeoutMs > 0 && timeoutMs < 2 ** 31)
  ) {
    throw new TypeError(
      `timeoutMs must be a number above 0 and below 2^31, not ${timeoutMs}`,
    );
  }
  return timeoutMs;
}
