import assert from "node:assert/strict";
import { describe, type TestContext, test } from "node:test";
import { status, UserProfileClient } from "../src/index.js";
import type { Any } from "../src/gen/google/protobuf/any.js";
import {
  BadRequest,
  ErrorInfo,
  RequestInfo,
} from "../src/gen/google/rpc/error_details.js";
import { Status } from "../src/gen/google/rpc/status.js";
import type {
  GetUserResponse,
  UserResult,
} from "../src/gen/userprofile/v1/user_profile.js";
import { type Failure, serve } from "./server.js";

const NOT_UNDERSTOOD = {
  name: "UserProfileError",
  code: status.UNKNOWN,
  reason: undefined,
  message: "The server's answer is one that this client doesn't understand.",
};

function connect(t: TestContext, port: number): UserProfileClient {
  const timeoutMs = 20_000;
  const client = new UserProfileClient(`127.0.0.1:${port}`, { timeoutMs });
  t.after(() => client.close());
  return client;
}

async function getUser(t: TestContext, answer: GetUserResponse | Failure) {
  return connect(t, await serve(t, () => answer)).getUser("johndoe");
}

async function batchGetUsers(
  t: TestContext,
  usernames: string[],
  results: UserResult[],
) {
  const port = await serve(t, undefined, undefined, { results });
  return connect(t, port).batchGetUsers(usernames);
}

function found(username: string): UserResult {
  return { outcome: { $case: "user", value: { username } } };
}

function failed(code: number): UserResult {
  const value = { code, message: "as the test wants", details: [] };
  return { outcome: { $case: "error", value } };
}

describe("answers that aren't understood", () => {
  for (const [name, answer] of [
    ["without a user", { user: undefined }],
    ["with somebody else", { user: { username: "JohnDoe" } }],
  ] as const) {
    test(`an answer ${name} is an error`, async (t) => {
      await assert.rejects(getUser(t, answer), NOT_UNDERSTOOD);
    });
  }

  test("in a batch they are errors of their names alone", async (t) => {
    const names = ["johndoe", "b", "c", "d", "e", "f"];
    const [first, ...others] = await batchGetUsers(t, names, [
      found("johndoe"),
      found("somebody else"),
      { outcome: undefined },
      failed(status.OK),
      failed(99),
      failed(status.DATA_LOSS),
    ]);
    assert.deepEqual(first, { user: { username: "johndoe" } });
    const { message } = NOT_UNDERSTOOD;
    const requestId = "the batch";
    assert.deepEqual(
      others.map(({ error }) => [
        error?.code,
        error?.message,
        error?.requestId,
      ]),
      [
        [status.UNKNOWN, message, requestId],
        [status.UNKNOWN, message, requestId],
        [status.UNKNOWN, "as the test wants", requestId],
        [status.UNKNOWN, "as the test wants", requestId],
        [status.DATA_LOSS, "as the test wants", requestId],
      ],
    );
  });

  for (const names of [[], ["a"], ["a", "b", "c"]]) {
    test(`${names.length} results for two names fail the batch`, async (t) => {
      const call = batchGetUsers(t, ["a", "b"], names.map(found));
      await assert.rejects(call, {
        ...NOT_UNDERSTOOD,
        requestId: "the batch",
      });
    });
  }
});

test("a large response is read", async (t) => {
  const fullName = "x".repeat(32 * 1024 * 1024);
  const user = await getUser(t, { user: { username: "johndoe", fullName } });
  assert.equal(user.fullName?.length, fullName.length);
});

describe("without a server's reason, UNAVAILABLE is SERVICE_UNREACHABLE", () => {
  const expected = {
    code: status.UNAVAILABLE,
    reason: "SERVICE_UNREACHABLE",
  };

  test("from a proxy", async (t) => {
    await assert.rejects(getUser(t, { code: status.UNAVAILABLE }), expected);
  });

  test("where nobody listens", async (t) => {
    await assert.rejects(connect(t, 1).getUser("johndoe"), expected);
  });
});

test("text can't steer a terminal, and is kept short", async (t) => {
  const evil = "\x1b[31mred\r\n\u202egpj.\u2028";
  const domain = "userprofile";
  const texts = { field: evil, description: evil };
  const violation = { ...texts, reason: "", localizedMessage: undefined };
  const details = [
    any(ErrorInfo, { reason: evil, domain, metadata: {} }),
    any(RequestInfo, { requestId: evil, servingData: "" }),
    any(BadRequest, { fieldViolations: [violation] }),
  ];
  const message = evil + "x".repeat(2000);
  const value = { code: status.INTERNAL, message, details };
  const outcome = { $case: "error" as const, value };
  const [result] = await batchGetUsers(t, ["johndoe"], [{ outcome }]);
  const error = result?.error;
  assert(error);
  const escaped = "\\u{1b}[31mred\\u{d}\\u{a}\\u{202e}gpj.\\u{2028}";
  assert(error.message.startsWith(`${escaped}xx`));
  assert(error.message.length < 1100);
  assert.deepEqual(error.fieldViolations, [
    { field: escaped, description: escaped },
  ]);
  assert.deepEqual([error.reason, error.requestId], [undefined, "the batch"]);
});

test("a reason counts with its own code alone", async (t) => {
  const reason = "USER_NOT_FOUND";
  const domain = "userprofile";
  const details = [any(ErrorInfo, { reason, domain, metadata: {} })];
  const told = { code: status.INTERNAL, message: "No.", details };
  for (const value of [told, { ...told, code: status.NOT_FOUND }]) {
    const port = await serve(t, () => ({
      code: status.INTERNAL,
      trailers: {
        "grpc-status-details-bin": Buffer.from(Status.encode(value).finish()),
      },
    }));
    await assert.rejects(connect(t, port).findUser("johndoe"), {
      code: status.INTERNAL,
    });
  }
});

interface Type<T> {
  $type: string;
  encode(message: T): { finish(): Uint8Array };
}

function any<T>(type: Type<T>, message: T): Any {
  const value = Buffer.from(type.encode(message).finish());
  return { typeUrl: `type.googleapis.com/${type.$type}`, value };
}
