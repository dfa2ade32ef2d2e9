import { setMaxListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import {
  Client,
  connectivityState,
  Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { type CallOptions, checkedTimeout } from "./call_options.js";
import { type ConnectionOptions, prepareConnection } from "./connection.js";
import {
  cancelledByParent,
  closedMeanwhile,
  fromServiceError,
  lateToken,
  neverReached,
  type UserProfileError,
} from "./errors.js";
import { HEALTH_CHECK } from "./health.js";
import {
  addToken,
  type CallMetadata,
  checkMetadata,
  metadataOf,
} from "./metadata.js";
import { Retries } from "./retries.js";
import type { TokenSource } from "./token.js";
import { unlessAborted } from "./waiting.js";

const REFUSAL_TIMEOUT_MS = 1000;

/** A method as a stub defines it. */
export interface Method<Request, Response> {
  path: string;
  requestSerialize: (request: Request) => Buffer;
  responseDeserialize: (bytes: Buffer) => Response;
}

/** A response, and the id of its call. */
export interface Received<Response> {
  response: Response;
  requestId: string;
}

/** What all attempts of a call have in common. */
interface Call {
  metadata: Metadata;
  requestId: string;
  deadline: number;
  /** Aborts when the call has to end early. The reason is its error. */
  stop: AbortSignal;
}

/** Makes calls: with metadata, a deadline and retries, until it is closed. */
export class Caller {
  readonly #connections: [Client, ...Client[]];
  readonly #token: TokenSource;
  readonly #metadata: CallMetadata;
  readonly #timeoutMs: number;
  readonly #waitForReady: boolean;
  readonly #retries: Retries;
  readonly #closing = new AbortController();
  readonly #inFlight = new Set<Promise<unknown>>();
  #turn = 0;

  constructor(
    target: string,
    options: ConnectionOptions,
    timeoutMs: number,
    metadata: CallMetadata,
  ) {
    setMaxListeners(Infinity, this.#closing.signal); // as many calls may wait
    this.#timeoutMs = checkedTimeout(timeoutMs);
    checkMetadata(metadata);
    this.#metadata = metadata;
    const connection = prepareConnection(target, options);
    this.#token = connection.token;
    this.#waitForReady = connection.waitForReady;
    this.#retries = new Retries(connection.serviceConfig);
    const { credentials, clientOptions, connections } = connection;
    const open = () => new Client(target, credentials, clientOptions);
    this.#connections = [
      open(),
      ...Array.from({ length: connections - 1 }, open),
    ];
  }

  /** Makes a call. It rejects with a UserProfileError if it fails. */
  call<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions,
  ): Promise<Received<Response>> {
    const result = this.#call(method, request, options);
    const ended = result
      .catch(() => undefined)
      .finally(() => this.#inFlight.delete(ended));
    this.#inFlight.add(ended);
    return result;
  }

  /** Cancels calls in progress, and resolves when they have ended. */
  async close(): Promise<void> {
    this.#closing.abort();
    for (const connection of this.#connections) connection.close();
    await Promise.all(this.#inFlight);
  }

  async #call<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    options: CallOptions,
  ): Promise<Received<Response>> {
    const { signal, parent } = options;
    signal?.throwIfAborted();
    if (this.#closing.signal.aborted) throw new Error("The client is closed");
    const deadline = Math.min(
      Date.now() + checkedTimeout(options.timeoutMs ?? this.#timeoutMs),
      Number(parent?.getDeadline() ?? Infinity),
    );
    const [metadata, requestId] = metadataOf(
      this.#metadata,
      options.waitForReady ?? this.#waitForReady,
      options,
    );
    const stopping = new AbortController();
    const close = () => stopping.abort(closedMeanwhile(requestId));
    const abort = () => stopping.abort(signal?.reason);
    const cancel = () => stopping.abort(cancelledByParent(requestId));
    const late = () => stopping.abort(lateToken(requestId));
    // As many calls may wait.
    for (const one of [signal, parent]) if (one) setMaxListeners(Infinity, one);
    this.#closing.signal.addEventListener("abort", close);
    signal?.addEventListener("abort", abort);
    // grpc-js would listen too, but never stop, and be too late for a past one.
    parent?.on("cancelled", cancel);
    if (parent?.cancelled) cancel();
    try {
      const { signal: stop } = stopping;
      addToken(metadata, await this.#tokenInTime(deadline, late, stop));
      const call = { metadata, requestId, deadline, stop };
      const response = await this.#withRetries(method, request, call);
      return { response, requestId };
    } catch (error) {
      stopping.signal.throwIfAborted();
      throw error;
    } finally {
      this.#closing.signal.removeEventListener("abort", close);
      signal?.removeEventListener("abort", abort);
      parent?.off("cancelled", cancel);
    }
  }

  async #tokenInTime(deadline: number, late: () => void, stop: AbortSignal) {
    const token = this.#token();
    if (!(token instanceof Promise)) return token;
    const timer = setTimeout(late, deadline - Date.now());
    try {
      return await unlessAborted(token, stop);
    } finally {
      clearTimeout(timer);
    }
  }

  async #withRetries<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    call: Call,
  ): Promise<Response> {
    for (let retries = 0, outage: ServiceError | undefined; ; retries++) {
      const connection = this.#nextConnection();
      try {
        return await attempt(connection, method, request, call);
      } catch (error) {
        if (!isServiceError(error)) throw error;
        const { requestId, deadline } = call;
        // The outage is the cause of the exceeded deadline.
        if (outage && error.code === status.DEADLINE_EXCEEDED)
          throw fromServiceError(outage, requestId);
        const pause = this.#retries.pause(
          method.path,
          error,
          retries,
          deadline,
        );
        if (pause === undefined) {
          throw (
            (await lastFailure(connection, error, call)) ??
            fromServiceError(error, requestId)
          );
        }
        outage = error;
        await sleep(pause, undefined, { signal: call.stop });
      }
    }
  }

  #nextConnection(): Client {
    this.#turn = (this.#turn + 1) % this.#connections.length;
    const [first] = this.#connections;
    return this.#connections[this.#turn] ?? first;
  }
}

function attempt<Request, Response>(
  connection: Client,
  method: Method<Request, Response>,
  request: Request,
  { metadata, deadline, stop }: Call,
): Promise<Response> {
  return new Promise((resolve, reject) => {
    stop.throwIfAborted();
    const call = connection.makeUnaryRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      metadata.clone(), // interceptors may add to it
      { deadline },
      (error, response) => {
        stop.removeEventListener("abort", cancel);
        if (error) reject(complete(error));
        else resolve(response as Response);
      },
    );
    // An interceptor may keep the end of a cancelled call to itself.
    function cancel() {
      call.cancel();
      reject(stop.reason as Error);
    }
    stop.addEventListener("abort", cancel);
    if (stop.aborted) cancel();
  });
}

/** An interceptor's own status may lack what those of grpc-js always have. */
function complete(error: ServiceError): ServiceError {
  const { details, metadata } = error as Partial<ServiceError>;
  return Object.assign(error, {
    details: details ?? "",
    metadata: metadata ?? new Metadata(),
  });
}

/** Returns the connection error if a call ended before a server was reached. */
async function lastFailure(
  connection: Client,
  { code }: ServiceError,
  { requestId, stop }: Call,
): Promise<UserProfileError | undefined> {
  if (code !== status.DEADLINE_EXCEEDED) return undefined;
  try {
    const state = connection.getChannel().getConnectivityState(false);
    if (state !== connectivityState.TRANSIENT_FAILURE) return undefined;
    // In TRANSIENT_FAILURE, gRPC fails this call at once and sends nothing.
    await attempt(connection, HEALTH_CHECK, "", {
      metadata: new Metadata(),
      requestId,
      deadline: Date.now() + REFUSAL_TIMEOUT_MS,
      stop,
    });
  } catch (refusal) {
    if (isServiceError(refusal) && refusal.code === status.UNAVAILABLE)
      return neverReached(refusal, requestId);
    // Or the call was stopped meanwhile.
  }
  return undefined;
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "metadata" in error;
}
