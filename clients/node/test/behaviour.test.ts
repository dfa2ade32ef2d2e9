import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, describe, test } from "node:test";
import type { ServiceError } from "@grpc/grpc-js";
import {
  status,
  type User,
  UserProfileClient,
  UserProfileError,
} from "../src/index.js";
import { emailAddresses, greeting } from "./example.js";

interface ExpectedUser {
  username: string;
  email?: string;
  full_name?: string;
  disabled?: boolean;
}

interface ExpectedError {
  code: keyof typeof status;
  reason?: string;
  field?: string;
}

type Expected =
  | { user: ExpectedUser; error?: never }
  | { user?: never; error: ExpectedError };

interface Table {
  get_user: ({ case: string; username: string; timeout?: number } & Expected)[];
  batch_get_users: ({ case: string; usernames: string[]; timeout?: number } & (
    | { results: Expected[]; error?: never }
    | { results?: never; error: ExpectedError }
  ))[];
}

const { get_user, batch_get_users, ...others }: Table = JSON.parse(
  readFileSync(environment("USERPROFILE_BEHAVIOUR"), "utf8"),
);
const client = new UserProfileClient(environment("USERPROFILE_TARGET"));
after(() => client.close());

test("the table has only methods that are tested here", () => {
  assert.deepEqual(others, {});
  assert.notEqual(get_user.length, 0);
  assert.notEqual(batch_get_users.length, 0);
});

describe("getUser", () => {
  for (const { case: name, username, timeout, user, error } of get_user) {
    test(name, async () => {
      const call = client.getUser(username, {
        timeoutMs: milliseconds(timeout),
      });
      if (user) assertUser(await call, user);
      else assertCallError(await failure(call), error);
    });
  }
});

describe("findUser", () => {
  test("somebody has the name", async () => {
    assert.equal((await client.findUser("johndoe"))?.username, "johndoe");
  });

  test("nobody has the name", async () => {
    assert.equal(await client.findUser("nobody"), undefined);
  });

  test("other errors stay errors", async () => {
    assert.equal(
      (await failure(client.findUser("corrupt"))).code,
      status.DATA_LOSS,
    );
  });
});

describe("batchGetUsers", () => {
  for (const {
    case: name,
    usernames,
    timeout,
    results,
    error,
  } of batch_get_users) {
    test(name, async () => {
      const call = client.batchGetUsers(usernames, {
        timeoutMs: milliseconds(timeout),
      });
      if (!results) return assertCallError(await failure(call), error);
      const actual = await call;
      assert.equal(actual.length, results.length);
      for (const [i, expected] of results.entries()) {
        if (expected.user) assertUser(actual[i]?.user, expected.user);
        else assertError(actual[i]?.error, expected.error);
      }
    });
  }
});

describe("the README's example", () => {
  test("stands in the README", () => {
    const example = readFileSync(
      new URL("../../test/example.ts", import.meta.url),
      "utf8",
    );
    const readme = readFileSync(
      new URL("../../README.md", import.meta.url),
      "utf8",
    );
    assert.ok(readme.includes(`\`\`\`ts\n${example}\`\`\``));
  });

  test("greets", async () => {
    assert.equal(await greeting(client, "johndoe"), "Hello, John Doe!");
    assert.equal(await greeting(client, "absent"), "Hello, absent!");
    assert.equal(await greeting(client, "nobody"), "Nobody is called nobody.");
    assert.match(
      await greeting(client, "corrupt"),
      /^DATA_LOSS CORRUPT_DOCUMENT, request \S+: ./,
    );
  });

  test("finds addresses", async () => {
    const usernames = ["nobody", "johndoe", "absent"];
    assert.deepEqual(await emailAddresses(client, usernames), [
      "johndoe@example.com",
    ]);
  });
});

describe("retries", () => {
  test("a store that is down is asked five times", async () => {
    assert.deepEqual(await previousAttempts("down"), ["4"]);
  });

  test("a slow store is asked once, because the server says so", async () => {
    assert.deepEqual(await previousAttempts("slow"), []);
  });

  async function previousAttempts(username: string) {
    const error = await failure(
      client.getUser(username, { timeoutMs: milliseconds(undefined) }),
    );
    assert.equal(error.code, status.UNAVAILABLE);
    return (error.cause as ServiceError).metadata.get(
      "grpc-previous-rpc-attempts",
    );
  }
});

function environment(name: string): string {
  const value = process.env[name];
  if (!value)
    throw new Error(
      `${name} is not set; the README says how to run these tests`,
    );
  return value;
}

function milliseconds(timeout = 10): number {
  return timeout * 1000;
}

async function failure(call: Promise<unknown>): Promise<UserProfileError> {
  const error = await call.then(
    () => assert.fail("the call has not failed"),
    (error: unknown) => error,
  );
  assert.ok(error instanceof UserProfileError, String(error));
  return error;
}

function assertUser(
  actual: User | undefined,
  { full_name, ...rest }: ExpectedUser,
): void {
  assert.deepEqual(
    actual,
    full_name === undefined ? rest : { ...rest, fullName: full_name },
  );
}

function assertError(
  actual: UserProfileError | undefined,
  expected: ExpectedError,
): void {
  assert.ok(actual);
  assert.equal(status[actual.code], expected.code);
  assert.notEqual(actual.message, "");
  if (expected.reason) assert.equal(actual.reason, expected.reason);
  if (expected.field) {
    assert.deepEqual(
      actual.fieldViolations.map(({ field }) => field),
      [expected.field],
    );
  }
}

function assertCallError(
  actual: UserProfileError,
  expected: ExpectedError,
): void {
  assertError(actual, expected);
  if (actual.reason) assert.ok(actual.requestId);
}
