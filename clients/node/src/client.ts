import {
  type Batch,
  BATCHES_IN_FLIGHT,
  type BatchResult,
  checkSeveral,
  collect,
  split,
} from "./batches.js";
import {
  type CallOptions,
  type ReadOptions,
  readMask,
} from "./call_options.js";
import { Caller } from "./caller.js";
import type { ConnectionOptions } from "./connection.js";
import {
  isNotFound,
  unreadable,
  unsendable,
  UserProfileError,
} from "./errors.js";
import type { User } from "./gen/userprofile/v1/user_profile.js";
import { UserProfileServiceService as SERVICE } from "./gen/userprofile/v1/user_profile_service.js";
import { HEALTH_CHECK } from "./health.js";
import type { CallMetadata } from "./metadata.js";
import { untilAborted } from "./waiting.js";

const SERVICE_NAME = "userprofile.v1.UserProfileService";

/** Options of the client. */
export interface ClientOptions extends ConnectionOptions {
  /** Timeout of a call in milliseconds, retries included; 5000 by default. */
  timeoutMs?: number | undefined;
  /** Sent with every call. */
  metadata?: CallMetadata | undefined;
}

/**
 * Client of a userprofile service.
 *
 * The first call connects it; lost connections are re-established in the
 * background. Use one client for any number of concurrent calls, and close it
 * at the end, or declare it with `await using`.
 */
export class UserProfileClient implements AsyncDisposable {
  readonly #caller: Caller;

  /**
   * Takes the address of the service, in any form that gRPC resolves:
   * `host:port`, `dns:///host:port`, `ipv4:address:port,address:port`,
   * `unix:path`. Calls are balanced over all addresses.
   *
   * @throws TypeError if an option is invalid.
   */
  constructor(target = "localhost:50051", options: ClientOptions = {}) {
    const { timeoutMs = 5000, metadata = {}, ...connection } = options;
    this.#caller = new Caller(target, connection, timeoutMs, metadata);
  }

  /**
   * Returns the user with this username.
   *
   * @throws UserProfileError if there is no such user, or the call fails; see
   * also {@link findUser}.
   */
  async getUser(username: string, options: ReadOptions = {}): Promise<User> {
    const problem = unsendable(username);
    if (problem) throw problem;
    const { response, requestId } = await this.#caller.call(
      SERVICE.getUser,
      { username, readMask: readMask(options) },
      options,
    );
    if (response.user?.username !== username) throw unreadable(requestId);
    return response.user;
  }

  /** Like {@link getUser}, but returns undefined if there is no such user. */
  async findUser(
    username: string,
    options: ReadOptions = {},
  ): Promise<User | undefined> {
    try {
      return await this.getUser(username, options);
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  /**
   * Returns the users who exist, by username. Takes any number of usernames:
   * each call requests 100 users, and up to four calls are in flight. The
   * timeout applies to each call.
   *
   * @throws BatchError if some users could not be read; it has the others.
   * @throws UserProfileError if a call fails as a whole. No further calls are
   * made.
   */
  async getUsers(
    usernames: Iterable<string>,
    options: ReadOptions = {},
  ): Promise<Map<string, User>> {
    checkSeveral(usernames);
    const results: BatchResult[] = [];
    const batches = this.#prefetch(new Set(usernames), options);
    for await (const { pending } of batches) results.push(...(await pending));
    return collect(results);
  }

  /**
   * Yields a result for each username, in order, with its user or with the
   * error of {@link getUser}. For more usernames than fit into memory: at most
   * 400 are prefetched. An outage of the service skips no username.
   */
  async *iterUsers(
    usernames: Iterable<string> | AsyncIterable<string>,
    options: ReadOptions = {},
  ): AsyncGenerator<BatchResult, void, undefined> {
    checkSeveral(usernames);
    for await (const { batch, pending } of this.#prefetch(usernames, options)) {
      try {
        yield* await pending;
      } catch (error) {
        if (!(error instanceof UserProfileError)) throw error;
        yield* batch.failed(error);
      }
    }
  }

  /**
   * Returns whether one of the target's servers reports SERVING (gRPC health
   * checking protocol). Doesn't wait for a server by default, because it
   * reports the current state.
   *
   * @throws UserProfileError if the check fails.
   */
  async checkHealth(options: CallOptions = {}): Promise<boolean> {
    const now = { ...options, waitForReady: options.waitForReady ?? false };
    return (await this.#caller.call(HEALTH_CHECK, SERVICE_NAME, now)).response;
  }

  /**
   * Closes the connections. Calls in progress are cancelled, and later ones
   * fail. Resolves when all have ended.
   */
  close(): Promise<void> {
    return this.#caller.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Yields batches, with the calls of the next few already in flight. */
  async *#prefetch(
    usernames: Iterable<string> | AsyncIterable<string>,
    options: ReadOptions,
  ): AsyncGenerator<PendingBatch> {
    const abandoned = new AbortController();
    const { signal } = options;
    const abandon = () => {
      abandoned.abort(signal?.reason);
    };
    signal?.throwIfAborted();
    signal?.addEventListener("abort", abandon);
    const inFlight: PendingBatch[] = [];
    try {
      const batches = untilAborted(split(usernames), abandoned.signal);
      for await (const batch of batches) {
        const pending = this.#getBatch(batch, {
          ...options,
          signal: abandoned.signal,
        });
        pending.catch(() => undefined); // handled when its turn comes, if it does
        inFlight.push({ batch, pending });
        const [first] = inFlight;
        if (first && inFlight.length === BATCHES_IN_FLIGHT) {
          inFlight.shift();
          yield first;
        }
      }
      yield* inFlight;
    } finally {
      signal?.removeEventListener("abort", abandon);
      abandon();
    }
  }

  async #getBatch(batch: Batch, options: ReadOptions): Promise<BatchResult[]> {
    const usernames = batch.sendable;
    if (usernames.length === 0) return batch.results([], undefined);
    const { response, requestId } = await this.#caller.call(
      SERVICE.batchGetUsers,
      { usernames, readMask: readMask(options) },
      options,
    );
    return batch.results(response.results, requestId);
  }
}

interface PendingBatch {
  batch: Batch;
  pending: Promise<BatchResult[]>;
}
