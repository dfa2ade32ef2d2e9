import assert from "node:assert/strict";
import { once } from "node:events";
import { connect as connectTcp, createServer } from "node:net";
import { type TestContext, test } from "node:test";
import { ErrorInfo, RetryInfo } from "../src/gen/google/rpc/error_details.js";
import { Status } from "../src/gen/google/rpc/status.js";
import { Reason, status, UserProfileClient } from "../src/index.js";
import { type Failure, serve } from "./server.js";

function connect(t: TestContext, port: number): UserProfileClient {
  const client = new UserProfileClient(`127.0.0.1:${port}`, {
    timeoutMs: 30_000,
  });
  t.after(() => client.close());
  return client;
}

/** The error of a server without room for a call. */
function overloaded(pushback: string): Failure {
  const details = [
    [
      ErrorInfo.$type,
      ErrorInfo.encode({
        domain: "userprofile",
        reason: Reason.OVERLOADED,
        metadata: {},
      }),
    ] as const,
    [RetryInfo.$type, RetryInfo.encode({ retryDelay: undefined })] as const,
  ].map(([type, message]) => ({
    typeUrl: `type.googleapis.com/${type}`,
    value: Buffer.from(message.finish()),
  }));
  const code = status.RESOURCE_EXHAUSTED;
  const bytes = Status.encode({ code, message: "", details }).finish();
  return {
    code,
    trailers: {
      "grpc-status-details-bin": Buffer.from(bytes),
      "grpc-retry-pushback-ms": pushback,
    },
  };
}

test("a call that an overloaded server refuses is retried after its pushback", async (t) => {
  const attempts: number[] = [];
  const port = await serve(t, () => {
    attempts.push(performance.now());
    return attempts.length === 1 ? overloaded("400") : undefined;
  });
  const user = await connect(t, port).getUser("johndoe");
  assert.equal(user.username, "johndoe");
  const [refused = 0, retried = 0] = attempts;
  // A timer of Node.js may be a millisecond early.
  assert.ok(retried - refused >= 399, `after ${retried - refused} ms`);
});

test("a call that an overloaded server does not want again is not retried", async (t) => {
  let attempts = 0;
  const port = await serve(t, () => {
    attempts++;
    return overloaded("-1");
  });
  await assert.rejects(connect(t, port).getUser("johndoe"), {
    code: status.RESOURCE_EXHAUSTED,
    reason: "OVERLOADED",
    retryable: true,
  });
  assert.equal(attempts, 1);
});

test("a sustained overload is not multiplied", async (t) => {
  let attempts = 0;
  const port = await serve(t, () => {
    attempts++;
    return overloaded("1");
  });
  const client = connect(t, port);
  const calls = 1000;
  const callers = Array.from({ length: 20 }, async () => {
    for (let call = 0; call < calls / 20; call++)
      await assert.rejects(client.getUser("johndoe"));
  });
  await Promise.all(callers);
  // 500 failures until the throttle ends the retries.
  assert.ok(attempts <= calls + 600, `${attempts} attempts`);
});

test("a username that is too long is not sent", async (t) => {
  let attempts = 0;
  const port = await serve(t, () => {
    attempts++;
    return undefined;
  });
  const client = connect(t, port);
  const long = "x".repeat(601);
  for (const call of [client.getUser(long), client.getUsers([long])]) {
    await assert.rejects(call, {
      code: status.INVALID_ARGUMENT,
      reason: Reason.INVALID_USERNAME,
      retryable: false,
    });
  }
  assert.equal(attempts, 0);
});

for (const [pushback, retryable] of [
  ["1", true],
  ["-1", false],
  ["soon", false],
] as const) {
  test(`a failure without a reason and a pushback of ${pushback}`, async (t) => {
    const trailers = { "grpc-retry-pushback-ms": pushback };
    const failure = { code: status.UNAVAILABLE, trailers };
    const port = await serve(t, () => failure);
    await assert.rejects(connect(t, port).getUser("johndoe"), {
      reason: Reason.SERVICE_UNREACHABLE,
      retryable,
    });
  });
}

test("each client has a connection of its own", async (t) => {
  const port = await serve(t);
  let connections = 0;
  const proxy = createServer((socket) => {
    connections++;
    const server = connectTcp(port, "127.0.0.1");
    socket.pipe(server).pipe(socket);
    for (const end of [socket, server]) end.on("error", () => {});
  }).listen(0, "127.0.0.1");
  t.after(() => proxy.close());
  await once(proxy, "listening");
  const address = proxy.address();
  assert.ok(address !== null && typeof address === "object");
  for (let client = 1; client <= 3; client++) {
    await connect(t, address.port).getUser("johndoe");
    assert.equal(connections, client);
  }
});
