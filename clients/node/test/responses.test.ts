import assert from "node:assert/strict";
import { describe, type TestContext, test } from "node:test";
import {
  type BatchResult,
  Reason,
  status,
  UserProfileClient,
} from "../src/index.js";
import type { Any } from "../src/gen/google/protobuf/any.js";
import {
  BadRequest,
  ErrorInfo,
  RequestInfo,
} from "../src/gen/google/rpc/error_details.js";
import { Status } from "../src/gen/google/rpc/status.js";
import type {
  BatchGetUsersResponse_Result,
  GetUserResponse,
} from "../src/gen/userprofile/v1/user_profile_service.js";
import { type Failure, found, serve } from "./server.js";

const UNREADABLE = {
  name: "UserProfileError",
  code: status.UNKNOWN,
  reason: undefined,
  message: "The client can't read the server's response.",
};

function connect(t: TestContext, port: number): UserProfileClient {
  const timeoutMs = 20_000;
  const client = new UserProfileClient(`127.0.0.1:${port}`, { timeoutMs });
  t.after(() => client.close());
  return client;
}

async function getUser(t: TestContext, response: GetUserResponse | Failure) {
  return connect(t, await serve(t, () => response)).getUser("johndoe");
}

async function iterUsers(
  t: TestContext,
  usernames: string[],
  results: BatchGetUsersResponse_Result[],
) {
  const port = await serve(t, undefined, undefined, { results });
  const outcomes: BatchResult[] = [];
  for await (const one of connect(t, port).iterUsers(usernames))
    outcomes.push(one);
  return outcomes;
}

function failed(username: string, code: number): BatchGetUsersResponse_Result {
  const value = { code, message: "as the test wants", details: [] };
  return { username, outcome: { $case: "error", value } };
}

describe("invalid responses", () => {
  for (const [name, response] of [
    ["without a user", { user: undefined }],
    ["with somebody else", { user: { username: "JohnDoe" } }],
  ] as const) {
    test(`a response ${name} is an error`, async (t) => {
      await assert.rejects(getUser(t, response), UNREADABLE);
    });
  }

  test("in a batch they are errors of their names alone", async (t) => {
    const names = ["johndoe", "b", "c", "missing", "d", "e", "f"];
    const [first, ...others] = await iterUsers(t, names, [
      // Results are found by their usernames, not by their places.
      failed("f", status.DATA_LOSS),
      found("not requested"),
      { ...found("somebody else"), username: "b" },
      { username: "c", outcome: undefined },
      failed("d", status.OK),
      failed("e", 99),
      found("johndoe"),
    ]);
    assert.deepEqual(first, {
      username: "johndoe",
      user: { username: "johndoe" },
    });
    const { message } = UNREADABLE;
    assert.deepEqual(
      others.map(({ username, error }) => [
        username,
        error?.code,
        error?.message,
      ]),
      [
        ["b", status.UNKNOWN, message],
        ["c", status.UNKNOWN, message],
        ["missing", status.UNKNOWN, message],
        ["d", status.UNKNOWN, "as the test wants"],
        ["e", status.UNKNOWN, "as the test wants"],
        ["f", status.DATA_LOSS, "as the test wants"],
      ],
    );
  });
});

test("a large response is read", async (t) => {
  const fullName = "x".repeat(32 * 1024 * 1024);
  const user = await getUser(t, { user: { username: "johndoe", fullName } });
  assert.equal(user.fullName?.length, fullName.length);
});

describe("without a server's reason, UNAVAILABLE is SERVICE_UNREACHABLE", () => {
  const expected = {
    code: status.UNAVAILABLE,
    reason: Reason.SERVICE_UNREACHABLE,
  };

  test("from a proxy", async (t) => {
    await assert.rejects(getUser(t, { code: status.UNAVAILABLE }), expected);
  });

  test("where nobody listens", async (t) => {
    const call = connect(t, 1).getUser("johndoe", { timeoutMs: 300 });
    await assert.rejects(call, expected);
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
  const username = "johndoe";
  const [result] = await iterUsers(t, [username], [{ username, outcome }]);
  const error = result?.error;
  assert(error);
  const escaped = "\\u{1b}[31mred\\u{d}\\u{a}\\u{202e}gpj.\\u{2028}";
  assert(error.message.startsWith(`${escaped}xx`));
  assert(error.message.length < 1100);
  assert.deepEqual(error.fieldViolations, [
    { field: escaped, description: escaped },
  ]);
  assert.equal(error.reason, undefined);
  assert.match(error.requestId ?? "", /^[0-9a-f]{32}$/); // the client's own
});

test("a reason counts with its own code alone", async (t) => {
  const reason = Reason.USER_NOT_FOUND;
  const domain = "userprofile";
  const details = [any(ErrorInfo, { reason, domain, metadata: {} })];
  const error = { code: status.INTERNAL, message: "No.", details };
  for (const value of [error, { ...error, code: status.NOT_FOUND }]) {
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
