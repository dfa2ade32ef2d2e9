import type { BatchGetUsersResponse_Result } from "./gen/userprofile/v1/user_profile_service.js";
import type { User } from "./gen/userprofile/v1/user_profile.js";
import {
  BatchError,
  fromStatus,
  isNotFound,
  unreadable,
  unsendable,
  UserProfileError,
} from "./errors.js";

/** The maximum number of usernames that the server accepts per call. */
const BATCH_SIZE = 100;

/**
 * How many calls are in flight: enough to keep a server busy while responses
 * are on the network.
 */
export const BATCHES_IN_FLIGHT = 4;

/** The result for one username: the user or an error. */
export type BatchResult = { username: string } & (
  | { user: User; error?: undefined }
  | { user?: undefined; error: UserProfileError }
);

/** The usernames of one call. */
export class Batch {
  readonly #usernames: readonly string[];
  /** The errors of usernames that can't be sent. */
  readonly #unsendable = new Map<string, UserProfileError>();

  constructor(usernames: readonly string[]) {
    this.#usernames = usernames;
    for (const username of usernames) {
      const problem = unsendable(username);
      if (problem) this.#unsendable.set(username, problem);
    }
  }

  /** The usernames that can be sent. */
  get sendable(): string[] {
    return this.#usernames.filter((name) => !this.#unsendable.has(name));
  }

  /** Returns a result for each username, in order, from those of the service. */
  results(
    received: readonly BatchGetUsersResponse_Result[],
    requestId: string | undefined,
  ): BatchResult[] {
    const outcomes = new Map(
      received.map(({ username, outcome }) => [username, outcome]),
    );
    return this.#usernames.map((username) => {
      const problem = this.#unsendable.get(username);
      if (problem) return { username, error: problem };
      const outcome = outcomes.get(username);
      if (outcome?.$case === "error")
        return { username, error: fromStatus(outcome.value, requestId) };
      const user = outcome?.value;
      return user?.username === username
        ? { username, user }
        : { username, error: unreadable(requestId) };
    });
  }

  /** Returns a result for each username after the call has failed. */
  failed(error: UserProfileError): BatchResult[] {
    return this.#usernames.map((username) => ({
      username,
      error: this.#unsendable.get(username) ?? error,
    }));
  }
}

/** Yields usernames in batches, and consumes no more of them than it yields. */
export async function* split(
  usernames: Iterable<string> | AsyncIterable<string>,
): AsyncGenerator<Batch> {
  let names: string[] = [];
  for await (const name of usernames) {
    names.push(name);
    if (names.length < BATCH_SIZE) continue;
    yield new Batch(names);
    names = [];
  }
  if (names.length > 0) yield new Batch(names);
}

/**
 * Throws a TypeError for what a Set would take without a word: nothing at all,
 * and a single string, which has letters to iterate over.
 */
export function checkSeveral(usernames: unknown): void {
  if (usernames === undefined || usernames === null)
    throw new TypeError("Expected usernames, got none");
  if (typeof usernames === "string")
    throw new TypeError("Expected several usernames, got a single string");
}

/**
 * Returns the users that were found.
 *
 * @throws BatchError if others could not be read.
 */
export function collect(results: readonly BatchResult[]): Map<string, User> {
  const users = new Map<string, User>();
  const errors = new Map<string, UserProfileError>();
  for (const { username, user, error } of results) {
    if (user) users.set(username, user);
    else if (!isNotFound(error)) errors.set(username, error);
  }
  if (errors.size > 0) throw new BatchError(users, errors);
  return users;
}
