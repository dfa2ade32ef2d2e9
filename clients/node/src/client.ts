import { setMaxListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import {
  type ClientUnaryCall,
  connectivityState,
  type CallOptions as GrpcCallOptions,
  Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { type ConnectionOptions, prepareConnection } from "./connection.js";
import {
  fromServiceError,
  fromStatus,
  neverReached,
  unreadable,
  requestIdOf,
  UserProfileError,
} from "./errors.js";
import type { User } from "./gen/userprofile/v1/user_profile.js";
import { UserProfileServiceClient } from "./gen/userprofile/v1/user_profile_service.js";
import { Reason } from "./reason.js";
import { Retries } from "./retries.js";

const REFUSAL_TIMEOUT_MS = 1000;

/** Options of the client. */
export interface ClientOptions extends ConnectionOptions {
  /** Timeout of a call in milliseconds, retries included; 5000 by default. */
  timeoutMs?: number | undefined;
}

/** Options of a single call. */
export interface CallOptions {
  /** Timeout of this call in milliseconds; by default the client's. */
  timeoutMs?: number | undefined;
  /**
   * The fields of the user to return; the others are undefined, and the
   * username is always set. By default all that the caller may see, like `*`.
   */
  fields?: readonly (keyof User | "*")[] | undefined;
}

/** The result for one username of a batch: the user or an error. */
export type BatchResult = { username: string } & (
  | { user: User; error?: undefined }
  | { user?: undefined; error: UserProfileError }
);

/**
 * Client of a userprofile service.
 *
 * The first call connects it; lost connections are re-established in the
 * background. Use one client for any number of concurrent calls, and close it
 * at the end.
 */
export class UserProfileClient {
  readonly #stub: UserProfileServiceClient;
  readonly #metadata: () => Metadata;
  readonly #timeoutMs: number;
  readonly #retries = new Retries();
  readonly #closing = new AbortController();

  /**
   * Takes the address of the service, in any form that gRPC resolves:
   * `host:port`, `dns:///host:port`, `ipv4:address:port,address:port`,
   * `unix:path`. Calls are balanced over all addresses.
   *
   * @throws TypeError if an option is invalid.
   */
  constructor(target = "localhost:50051", options: ClientOptions = {}) {
    const { timeoutMs = 5000, ...connectionOptions } = options;
    this.#timeoutMs = checked(timeoutMs);
    setMaxListeners(Infinity, this.#closing.signal); // as many calls may wait
    const connection = prepareConnection(target, connectionOptions);
    this.#stub = new UserProfileServiceClient(
      target,
      connection.credentials,
      connection.channelOptions,
    );
    this.#metadata = connection.metadata;
  }

  /**
   * Returns the user with this username.
   *
   * @throws UserProfileError if there is no such user, or the call fails; see
   * also {@link findUser}.
   */
  async getUser(username: string, options: CallOptions = {}): Promise<User> {
    checkUnicode(username, "username");
    const [{ user }, requestId] = await this.#call(
      "GetUser",
      this.#stub.getUser,
      { username, readMask: readMask(options) },
      options,
    );
    if (user?.username !== username) throw unreadable(requestId);
    return user;
  }

  /** Like {@link getUser}, but returns undefined if there is no such user. */
  async findUser(
    username: string,
    options: CallOptions = {},
  ): Promise<User | undefined> {
    try {
      return await this.getUser(username, options);
    } catch (error) {
      const notFound =
        error instanceof UserProfileError &&
        error.code === status.NOT_FOUND &&
        error.reason === Reason.USER_NOT_FOUND;
      if (notFound) return undefined;
      throw error;
    }
  }

  /**
   * Returns a result for each of up to 100 usernames, in order.
   *
   * @throws UserProfileError if the call fails as a whole.
   */
  async batchGetUsers(
    usernames: readonly string[],
    options: CallOptions = {},
  ): Promise<BatchResult[]> {
    for (const [i, username] of usernames.entries()) {
      checkUnicode(username, `usernames[${i}]`);
    }
    const [{ results }, requestId] = await this.#call(
      "BatchGetUsers",
      this.#stub.batchGetUsers,
      { usernames: [...usernames], readMask: readMask(options) },
      options,
    );
    const outcomes = new Map(
      results.map(({ username, outcome }) => [username, outcome]),
    );
    return usernames.map((username) => {
      const outcome = outcomes.get(username);
      if (outcome?.$case === "error") {
        return { username, error: fromStatus(outcome.value, requestId) };
      }
      const user = outcome?.value;
      if (user?.username !== username) {
        return { username, error: unreadable(requestId) };
      }
      return { username, user };
    });
  }

  /** Closes the connections. Later calls fail. */
  close(): void {
    this.#closing.abort();
    this.#stub.close();
  }

  /** Returns the response, and the request id. */
  async #call<Request, Response>(
    name: string,
    method: UnaryMethod<Request, Response>,
    request: Request,
    { timeoutMs = this.#timeoutMs }: CallOptions,
  ): Promise<[Response, string | undefined]> {
    const deadline = Date.now() + checked(timeoutMs);
    for (let retries = 0, outage: ServiceError | undefined; ; retries++) {
      try {
        return await this.#attempt(method, request, deadline);
      } catch (error) {
        if (!isServiceError(error)) throw error;
        // The outage is the cause of the exceeded deadline.
        if (outage && error.code === status.DEADLINE_EXCEEDED)
          throw fromServiceError(outage);
        const pause = this.#retries.pause(name, error, retries, deadline);
        if (pause === undefined)
          throw (await this.#lastFailure(error)) ?? fromServiceError(error);
        outage = error;
        await this.#sleep(pause, error);
      }
    }
  }

  #attempt<Request, Response>(
    method: UnaryMethod<Request, Response>,
    request: Request,
    deadline: number,
  ): Promise<[Response, string | undefined]> {
    return new Promise((resolve, reject) => {
      let received: Response;
      const call = method.call(
        this.#stub,
        request,
        this.#metadata(),
        { deadline },
        (error, response) => {
          if (error) reject(error);
          else received = response;
        },
      );
      // The trailing metadata arrives last, and has the request id.
      call.on("status", ({ metadata }) =>
        resolve([received, requestIdOf(metadata)]),
      );
    });
  }

  /** Sleeps until the client is closed, at most. */
  async #sleep(ms: number, error: ServiceError): Promise<void> {
    try {
      await sleep(ms, undefined, { signal: this.#closing.signal });
    } catch {
      throw fromServiceError(error);
    }
  }

  /** Returns the connection error if a call ended before a server was reached. */
  async #lastFailure({
    code,
  }: ServiceError): Promise<UserProfileError | undefined> {
    if (code !== status.DEADLINE_EXCEEDED) return undefined;
    try {
      const state = this.#stub.getChannel().getConnectivityState(false);
      if (state !== connectivityState.TRANSIENT_FAILURE) return undefined;
      // In TRANSIENT_FAILURE, gRPC fails this call at once and sends nothing.
      const refusal = await new Promise<ServiceError | null>((resolve) =>
        this.#stub.makeUnaryRequest(
          "/grpc.health.v1.Health/Check",
          () => Buffer.alloc(0),
          () => null,
          null,
          new Metadata(),
          { deadline: Date.now() + REFUSAL_TIMEOUT_MS },
          resolve,
        ),
      );
      if (refusal?.code === status.UNAVAILABLE) return neverReached(refusal);
    } catch {
      // The client was closed meanwhile.
    }
    return undefined;
  }
}

type UnaryMethod<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: Partial<GrpcCallOptions>,
  callback: (error: ServiceError | null, response: Response) => void,
) => ClientUnaryCall;

function readMask({ fields }: CallOptions): string[] | undefined {
  // An empty mask would request all fields.
  return fields && ["username", ...fields.map(inContract)];
}

/** Returns the contract's name of a field: `full_name`. */
function inContract(field: string): string {
  return field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "metadata" in error;
}

function checked(timeoutMs: number): number {
  // Beyond it, gRPC would set no timer at all.
  if (!(timeoutMs > 0 && timeoutMs < 2 ** 31)) {
    throw new TypeError(
      `timeoutMs must be above 0 and below 2^31, not ${timeoutMs}`,
    );
  }
  return timeoutMs;
}

/** A lone surrogate would be sent as U+FFFD: another username. */
function checkUnicode(username: string, field: string): void {
  if (!username.isWellFormed()) {
    const description = "must be valid Unicode";
    throw new UserProfileError(
      status.INVALID_ARGUMENT,
      "The username is not valid.",
      {
        reason: Reason.INVALID_USERNAME,
        fieldViolations: [{ field, description }],
      },
    );
  }
}
