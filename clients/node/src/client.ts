import {
  type CallOptions,
  type ClientUnaryCall,
  connectivityState,
  Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { type ConnectionOptions, prepareConnection } from "./connection.js";
import {
  fromServiceError,
  fromStatus,
  neverReached,
  notUnderstood,
  requestIdOf,
  UserProfileError,
} from "./errors.js";
import {
  type User,
  UserProfileServiceClient,
} from "./gen/userprofile/v1/user_profile.js";

const REFUSAL_TIMEOUT_MS = 1000;

/** How to connect, and how long calls may take. */
export interface ClientOptions extends ConnectionOptions {
  /** The milliseconds that a call with its retries may take; else 5000. */
  timeoutMs?: number | undefined;
}

/** What one call does differently. */
export interface CallTimeout {
  /** The milliseconds that this call may take; by default the client's. */
  timeoutMs?: number | undefined;
}

/** What became of one name of a batch: the user, or why there is none. */
export type BatchResult =
  | { user: User; error?: undefined }
  | { user?: undefined; error: UserProfileError };

/**
 * Asks a userprofile service.
 *
 * Connects with the first call, and again by itself whenever the connection is
 * lost. One client serves any number of calls at a time; close it when there
 * will be no more.
 */
export class UserProfileClient {
  readonly #stub: UserProfileServiceClient;
  readonly #metadata: Metadata;
  readonly #timeoutMs: number;

  /**
   * Takes the server's address, in any form that gRPC resolves: `host:port`,
   * `dns:///host:port`, `ipv4:address:port,address:port`, `unix:path`. Calls go
   * to all addresses in turn.
   *
   * @throws TypeError if an option can't be used.
   */
  constructor(target = "localhost:50051", options: ClientOptions = {}) {
    const { timeoutMs = 5000, ...connectionOptions } = options;
    this.#timeoutMs = checked(timeoutMs);
    const connection = prepareConnection(target, connectionOptions);
    this.#stub = new UserProfileServiceClient(
      target,
      connection.credentials,
      connection.channelOptions,
    );
    this.#metadata = connection.metadata;
  }

  /**
   * Returns the user who has this name.
   *
   * @throws UserProfileError if there is none, or the call fails; see also
   * {@link findUser}.
   */
  async getUser(username: string, options: CallTimeout = {}): Promise<User> {
    checkUnicode(username, "username");
    const [{ user }, requestId] = await this.#call(
      this.#stub.getUser,
      { username },
      options,
    );
    if (user?.username !== username) throw notUnderstood(requestId);
    return user;
  }

  /** Like {@link getUser}, but returns undefined where nobody has this name. */
  async findUser(
    username: string,
    options: CallTimeout = {},
  ): Promise<User | undefined> {
    try {
      return await this.getUser(username, options);
    } catch (error) {
      const notFound =
        error instanceof UserProfileError &&
        error.code === status.NOT_FOUND &&
        error.reason === "USER_NOT_FOUND";
      if (notFound) return undefined;
      throw error;
    }
  }

  /**
   * Returns a result for each of up to 100 names, in their order.
   *
   * @throws UserProfileError if nothing could be asked, or there is no telling
   * which answer is whose.
   */
  async batchGetUsers(
    usernames: readonly string[],
    options: CallTimeout = {},
  ): Promise<BatchResult[]> {
    for (const [i, username] of usernames.entries()) {
      checkUnicode(username, `usernames[${i}]`);
    }
    const [{ results }, requestId] = await this.#call(
      this.#stub.batchGetUsers,
      { usernames: [...usernames] },
      options,
    );
    if (results.length !== usernames.length) throw notUnderstood(requestId);
    return results.map(({ outcome }, i) => {
      if (outcome?.$case === "error") {
        return { error: fromStatus(outcome.value, requestId) };
      }
      const user = outcome?.value;
      if (!user || user.username !== usernames[i]) {
        return { error: notUnderstood(requestId) };
      }
      return { user };
    });
  }

  /** Closes the connections; the client takes no further calls. */
  close(): void {
    this.#stub.close();
  }

  /** Returns the response, and the request id. */
  async #call<Request, Response>(
    method: UnaryMethod<Request, Response>,
    request: Request,
    { timeoutMs = this.#timeoutMs }: CallTimeout,
  ): Promise<[Response, string | undefined]> {
    const deadline = Date.now() + checked(timeoutMs);
    try {
      return await new Promise((resolve, reject) => {
        let answer: Response;
        const call = method.call(
          this.#stub,
          request,
          this.#metadata,
          { deadline },
          (error, response) => {
            if (error) reject(error);
            else answer = response;
          },
        );
        // The trailing metadata has the request id, and comes last.
        call.on("status", ({ metadata }) =>
          resolve([answer, requestIdOf(metadata)]),
        );
      });
    } catch (error) {
      if (!isServiceError(error)) throw error;
      throw (await this.#lastFailure(error)) ?? fromServiceError(error);
    }
  }

  /** Returns why a call was over before any server could be reached, if so. */
  async #lastFailure({
    code,
  }: ServiceError): Promise<UserProfileError | undefined> {
    if (code !== status.DEADLINE_EXCEEDED) return undefined;
    if (!this.#metadata.getOptions().waitForReady) return undefined;
    try {
      const state = this.#stub.getChannel().getConnectivityState(false);
      if (state !== connectivityState.TRANSIENT_FAILURE) return undefined;
      // While the channel fails, gRPC refuses this at once and sends nothing.
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
  options: Partial<CallOptions>,
  callback: (error: ServiceError | null, response: Response) => void,
) => ClientUnaryCall;

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

/** A lone surrogate would be sent as U+FFFD, in the name of somebody else. */
function checkUnicode(username: string, field: string): void {
  if (!username.isWellFormed()) {
    const description = "must be valid Unicode";
    throw new UserProfileError(
      status.INVALID_ARGUMENT,
      "The username is not valid.",
      {
        reason: "INVALID_USERNAME",
        fieldViolations: [{ field, description }],
      },
    );
  }
}
