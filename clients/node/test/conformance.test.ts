import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, describe, test } from "node:test";
import type { ServiceError } from "@grpc/grpc-js";
import {
  type CallOptions,
  Reason,
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
  retryable?: boolean;
  field?: string;
}

type Expected =
  | { user: ExpectedUser; error?: never }
  | { user?: never; error: ExpectedError };

interface Call {
  case: string;
  timeout?: number;
  fields?: NonNullable<CallOptions["fields"]>;
}

interface Table {
  get_user: (Call & { username: string } & Expected)[];
  batch_get_users: (Call & { usernames: string[] } & (
      | { results: ({ username: string } & Expected)[]; error?: never }
      | { results?: never; error: ExpectedError }
    ))[];
}

const { get_user, batch_get_users, ...others }: Table = JSON.parse(
  readFileSync(environment("USERPROFILE_CONFORMANCE_TABLE"), "utf8"),
);
const client = new UserProfileClient(environment("USERPROFILE_TARGET"));
after(() => client.close());

test("the table has only methods that are tested here", () => {
  assert.deepEqual(others, {});
  assert.notEqual(get_user.length, 0);
  assert.notEqual(batch_get_users.length, 0);
});

describe("getUser", () => {
  for (const given of get_user) {
    const { case: name, username, user, error } = given;
    test(name, async () => {
      const call = client.getUser(username, options(given));
      if (user) assertUser(await call, user);
      else assertCallError(await failure(call), error);
    });
  }
});

test("fields have the names of JavaScript", async () => {
  const user = await client.findUser("johndoe", { fields: ["fullName"] });
  assert.deepEqual(user, { username: "johndoe", fullName: "John Doe" });
});

test("every reason of the table is one of the contract's", () => {
  const errors = [...get_user, ...batch_get_users].map(({ error }) => error);
  for (const { reason } of errors.filter((error) => error !== undefined)) {
    assert.ok(reason === undefined || reason in Reason, reason);
  }
  assert.equal(Reason.USER_NOT_FOUND, "USER_NOT_FOUND");
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
  for (const given of batch_get_users) {
    const { case: name, usernames, results, error } = given;
    test(name, async () => {
      const call = client.batchGetUsers(usernames, options(given));
      if (!results) return assertCallError(await failure(call), error);
      const actual = await call;
      assert.equal(actual.length, results.length);
      for (const [i, expected] of results.entries()) {
        assert.equal(actual[i]?.username, expected.username);
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
  test("a call is attempted five times while the store is down", async () => {
    assert.deepEqual(await previousAttempts("down"), ["4"]);
  });

  test("a call is attempted once if the store is slow, because of the pushback", async () => {
    assert.deepEqual(await previousAttempts("slow"), []);
  });

  async function previousAttempts(username: string) {
    const error = await failure(
      client.getUser(username, { timeoutMs: milliseconds(60) }),
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

function options({ timeout, fields }: Call): CallOptions {
  return { timeoutMs: milliseconds(timeout), fields };
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
  if (expected.reason) {
    assert.equal(actual.reason, expected.reason);
    assert.equal(actual.retryable, expected.retryable ?? false);
  }
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
