import { randomBytes } from "node:crypto";
import { Metadata, type MetadataValue } from "@grpc/grpc-js";
import type { CallOptions } from "./call_options.js";

/**
 * Metadata by lower-case key; an array sends the key several times. The values
 * of keys that end in `-bin` are Buffers.
 */
export type CallMetadata = Readonly<
  Record<string, MetadataValue | readonly MetadataValue[]>
>;

const REQUEST_ID_KEY = "x-request-id";
const AUTHORIZATION_KEY = "authorization";
const TRACE_CONTEXT = ["traceparent", "tracestate"];

const OPTION_OF: ReadonlyMap<string, string> = new Map([
  [REQUEST_ID_KEY, "requestId"],
  [AUTHORIZATION_KEY, "token"],
]);

const KEY = /^(?!grpc-)[0-9a-z_.-]+$/;
const VALUE = /^[ -~]*$/;

/** The form of request ids. Any other is not from the service. */
export const REQUEST_ID = /^[!-~]{1,128}$/;

/** What of a call's metadata does not depend on the client. */
type OwnOptions = Pick<CallOptions, "requestId" | "metadata" | "parent">;

/** Returns the metadata of a call, without its token, and its request id. */
export function metadataOf(
  common: CallMetadata,
  waitForReady: boolean,
  { requestId, metadata = {}, parent }: OwnOptions,
): [Metadata, string] {
  const sent = new Metadata({ waitForReady });
  add(sent, common);
  add(sent, metadata);
  for (const key of TRACE_CONTEXT) {
    const received = textOf(parent?.metadata, key);
    if (received !== undefined && sent.get(key).length === 0)
      sent.set(key, received);
  }
  const id = requestId ?? receivedId(parent?.metadata) ?? randomId();
  if (!REQUEST_ID.test(id)) {
    throw new TypeError("requestId must be 1 to 128 visible ASCII characters");
  }
  sent.set(REQUEST_ID_KEY, id);
  return [sent, id];
}

/** Adds the token, if there is one, to a call's metadata. */
export function addToken(sent: Metadata, token: string | undefined): void {
  if (token !== undefined) sent.set(AUTHORIZATION_KEY, `Bearer ${token}`);
}

/** Throws a TypeError, without the value, for what gRPC can't send. */
export function checkMetadata(metadata: CallMetadata): void {
  add(new Metadata(), metadata);
}

function add(sent: Metadata, metadata: CallMetadata): void {
  for (const [key, values] of Object.entries(metadata)) {
    if (!KEY.test(key)) throw new TypeError(`"${key}" is no metadata key`);
    const option = OPTION_OF.get(key);
    if (option !== undefined)
      throw new TypeError(`Pass "${key}" as the option ${option}`);
    for (const value of valuesOf(values)) {
      const sendable = key.endsWith("-bin")
        ? Buffer.isBuffer(value)
        : typeof value === "string" && VALUE.test(value);
      if (!sendable) {
        throw new TypeError(
          `The value of "${key}" must be printable ASCII, or a Buffer if the key ends in -bin`,
        );
      }
      sent.add(key, value);
    }
  }
}

function valuesOf(values: CallMetadata[string]): readonly MetadataValue[] {
  return areSeveral(values) ? values : [values];
}

function areSeveral(
  values: CallMetadata[string],
): values is readonly MetadataValue[] {
  return Array.isArray(values);
}

function receivedId(received: Metadata | undefined): string | undefined {
  const id = textOf(received, REQUEST_ID_KEY);
  return id !== undefined && REQUEST_ID.test(id) ? id : undefined;
}

/** Repeated headers are equivalent to one with commas (RFC 9110, 5.3). */
function textOf(received: Metadata | undefined, key: string) {
  const text = received?.get(key).join(",");
  // Invalid metadata from a caller is no reason to fail.
  return text !== undefined && text !== "" && VALUE.test(text)
    ? text
    : undefined;
}

function randomId(): string {
  return randomBytes(16).toString("hex");
}
