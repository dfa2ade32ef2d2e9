// What a caller can say of a call, and of its connection.
import assert from "node:assert/strict";
import { describe, type TestContext, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import {
  credentials,
  InterceptingCall,
  type Interceptor,
  Metadata,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  status,
  type StatusObject,
} from "@grpc/grpc-js";
import {
  type CallOptions,
  type ClientOptions,
  Reason,
  UserProfileClient,
  UserProfileError,
} from "../src/index.js";
import {
  UserProfileServiceClient,
  UserProfileServiceService,
} from "../src/gen/userprofile/v1/user_profile_service.js";
import { type GetUserCall, serve } from "./server.js";
import { withResolvers } from "./promises.js";

/** A client of a server that notes the calls it gets. */
async function connect(t: TestContext, options: ClientOptions = {}) {
  const calls: GetUserCall[] = [];
  const port = await serve(t, (call) => {
    calls.push(call);
    return undefined;
  });
  const client = new UserProfileClient(`127.0.0.1:${port}`, {
    timeoutMs: 20_000,
    ...options,
  });
  t.after(() => client.close());
  const sent = (key: string) => calls.map(({ metadata }) => metadata.get(key));
  return { client, calls, sent };
}

/** A client of a server that holds calls; `held` resolves with the first. */
async function connectToSlow(t: TestContext, options: ClientOptions = {}) {
  const server = new Server();
  t.after(() => {
    server.forceShutdown();
  });
  const held = withResolvers<GetUserCall>();
  const hold = (call: GetUserCall) => {
    held.resolve(call);
  };
  server.addService(UserProfileServiceService, {
    getUser: hold,
    batchGetUsers: hold,
  });
  const port = await bind(server);
  const client = new UserProfileClient(`127.0.0.1:${port}`, {
    timeoutMs: 20_000,
    ...options,
  });
  t.after(() => client.close());
  return { client, held: held.promise };
}

function bind(server: Server): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(
      "127.0.0.1:0",
      ServerCredentials.createInsecure(),
      (error, port) => {
        if (error) reject(error);
        else resolve(port);
      },
    );
  });
}

/** Notes what Node.js warns about, such as too many listeners. */
function watchWarnings(t: TestContext): Error[] {
  const warnings: Error[] = [];
  const note = (warning: Error) => warnings.push(warning);
  process.on("warning", note);
  t.after(() => process.off("warning", note));
  return warnings;
}

describe("an AbortSignal", () => {
  const reason = new Error("no longer needed");

  test("that was aborted before makes no call", async (t) => {
    const { client, calls } = await connect(t);
    const options = { signal: AbortSignal.abort(reason) };
    await assert.rejects(client.getUser("johndoe", options), reason);
    await assert.rejects(client.getUsers(["johndoe"], options), reason);
    assert.equal(calls.length, 0);
  });

  test("cancels the call, and is its error", async (t) => {
    const { client, held } = await connectToSlow(t);
    const controller = new AbortController();
    const { signal } = controller;
    const calls = [
      client.getUser("johndoe", { signal }),
      client.getUsers(["johndoe"], { signal }),
      client.iterUsers(["johndoe"], { signal }).next(),
    ];
    const { promise: cancelled, resolve } = withResolvers();
    (await held).on("cancelled", resolve);
    controller.abort(reason);
    for (const call of calls) await assert.rejects(call, reason);
    await cancelled;
  });

  test("ends the wait for usernames that don't come", async (t) => {
    const { client } = await connect(t);
    const controller = new AbortController();
    const stalled = withResolvers();
    const source = async function* () {
      yield "johndoe";
      stalled.resolve();
      await new Promise(() => {});
    };
    const { signal } = controller;
    const first = client.iterUsers(source(), { signal }).next();
    await stalled.promise;
    controller.abort(reason);
    await assert.rejects(first, reason);
  });

  test("may be shared by many calls", async (t) => {
    const warnings = watchWarnings(t);
    const { client } = await connect(t);
    const { signal } = new AbortController();
    const call = () => client.getUser("johndoe", { signal });
    await Promise.all(Array.from({ length: 50 }, call));
    assert.deepEqual(warnings, []);
  });
});

describe("metadata", () => {
  test("of the client and of the call are sent", async (t) => {
    const { client, sent } = await connect(t, {
      metadata: { team: "billing" },
    });
    const bytes = Buffer.from([0, 255]);
    const metadata = { tag: ["one", "two"], "sum-bin": bytes };
    await client.getUser("johndoe", { metadata });
    assert.deepEqual(sent("team"), [["billing"]]);
    assert.deepEqual(sent("tag"), [["one, two"]]);
    assert.deepEqual(sent("sum-bin"), [[bytes]]);
  });

  for (const [name, metadata] of [
    ["an unknown kind of key", { "Not a key": "a-secret" }],
    ["gRPC's own key", { "grpc-timeout": "a-secret" }],
    ["the token's key", { authorization: "a-secret" }],
    ["the request id's key", { "x-request-id": "a-secret" }],
    ["a line end", { tag: "a-secret\n" }],
    ["text for bytes", { "tag-bin": "a-secret" }],
    ["bytes for text", { tag: Buffer.from("a-secret") }],
    ["a number", { tag: 17 as never }],
    ["nothing", { tag: ["a-secret", undefined as never] }],
  ] as const) {
    test(`with ${name} is refused, without its value`, async (t) => {
      const refusal = (error: Error) =>
        error instanceof TypeError && !error.message.includes("a-secret");
      assert.throws(
        () => new UserProfileClient("localhost:1", { metadata }),
        refusal,
      );
      const { client } = await connect(t);
      await assert.rejects(client.getUser("johndoe", { metadata }), refusal);
    });
  }
});

test("fields are requested once, by the contract's names", async (t) => {
  const { client, calls } = await connect(t);
  const fields = Array<"email" | "fullName">(20_000).fill("fullName");
  await client.getUser("johndoe", { fields: [...fields, "email"] });
  const masks = calls.map(({ request }) => request.readMask);
  assert.deepEqual(masks, [["username", "full_name", "email"]]);
});

describe("the request id", () => {
  test("is another random one for each call", async (t) => {
    const { client, sent } = await connect(t);
    for (let call = 0; call < 2; call++) await client.getUser("johndoe");
    const ids = sent("x-request-id").flat();
    for (const id of ids) assert.match(String(id), /^[0-9a-f]{32}$/);
    assert.equal(new Set(ids).size, 2);
  });

  test("of the caller is sent, and is that of the error", async (t) => {
    const { client, held } = await connectToSlow(t);
    const requestId = "order-17";
    const call = client.getUser("johndoe", { requestId, timeoutMs: 300 });
    await assert.rejects(call, { code: status.DEADLINE_EXCEEDED, requestId });
    assert.deepEqual((await held).metadata.get("x-request-id"), [requestId]);
  });

  test("can't have spaces or line ends", async (t) => {
    const { client } = await connect(t);
    for (const requestId of ["", "two words", "line\n", "x".repeat(129)])
      await assert.rejects(client.getUser("johndoe", { requestId }), TypeError);
  });
});

describe("the call of one's own server", () => {
  /** Makes a call from within a call with this metadata and deadline. */
  async function callWithin(
    t: TestContext,
    client: UserProfileClient,
    metadata: Record<string, string>,
    options: CallOptions = {},
    timeoutMs = 20_000,
  ): Promise<unknown> {
    const server = new Server();
    t.after(() => {
      server.forceShutdown();
    });
    const outcome = withResolvers<unknown>();
    server.addService(UserProfileServiceService, {
      getUser: (parent: ServerUnaryCall<unknown, unknown>) => {
        outcome.resolve(client.getUser("johndoe", { ...options, parent }));
      },
      batchGetUsers: () => undefined,
    });
    const address = `127.0.0.1:${await bind(server)}`;
    const outer = new UserProfileServiceClient(
      address,
      credentials.createInsecure(),
    );
    t.after(() => {
      outer.close();
    });
    const headers = new Metadata();
    for (const [key, value] of Object.entries(metadata))
      headers.set(key, value);
    const deadline = Date.now() + timeoutMs;
    outer.getUser(
      { username: "x", readMask: undefined },
      headers,
      { deadline },
      () => undefined,
    );
    return outcome.promise;
  }

  const received = {
    "x-request-id": "order-17",
    traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    tracestate: "vendor=value",
  };

  test("passes its request id and trace context on", async (t) => {
    const { client, sent } = await connect(t);
    await callWithin(t, client, { ...received, cookie: "private" });
    for (const [key, value] of Object.entries(received))
      assert.deepEqual(sent(key), [[value]]);
    assert.deepEqual(sent("cookie"), [[]]);
  });

  test("gives way to what the caller says", async (t) => {
    const { client, sent } = await connect(t);
    const metadata = { tracestate: "own=1" };
    await callWithin(t, client, received, { requestId: "mine", metadata });
    assert.deepEqual(sent("x-request-id"), [["mine"]]);
    assert.deepEqual(sent("tracestate"), [["own=1"]]);
  });

  test("can't break a call by an invalid request id", async (t) => {
    const { client, sent } = await connect(t);
    await callWithin(t, client, { "x-request-id": "two words" });
    assert.match(String(sent("x-request-id")[0]), /^[0-9a-f]{32}$/);
  });

  /** A call that a server holds, and what cancels it. */
  async function heldCall(t: TestContext) {
    const { client, held } = await connectToSlow(t);
    const controller = new AbortController();
    const { signal } = controller;
    client.getUser("outer", { signal }).catch(() => undefined);
    return { parent: await held, cancel: () => controller.abort() };
  }

  test("ends it by being cancelled, before or meanwhile", async (t) => {
    const { parent, cancel } = await heldCall(t);
    const { client, held } = await connectToSlow(t);
    const meanwhile = client.getUser("johndoe", { parent });
    await held;
    cancel();
    const expected = {
      name: "UserProfileError",
      code: status.CANCELLED,
      message: "The call that needed this one was cancelled.",
      retryable: false,
    };
    await assert.rejects(meanwhile, expected);
    await assert.rejects(client.getUser("johndoe", { parent }), expected);
  });

  test("may need many others, and keeps nothing of them", async (t) => {
    const warnings = watchWarnings(t);
    const { parent } = await heldCall(t);
    const before = parent.listenerCount("cancelled");
    const { client } = await connect(t);
    const call = () => client.getUser("johndoe", { parent });
    await Promise.all(Array.from({ length: 50 }, call));
    assert.equal(parent.listenerCount("cancelled"), before);
    assert.deepEqual(warnings, []);
  });

  test("limits it by its deadline", async (t) => {
    const { client } = await connectToSlow(t);
    await assert.rejects(callWithin(t, client, {}, {}, 300), (error) => {
      assert.ok(error instanceof UserProfileError);
      // Whichever is seen first: the deadline, or that the outer call is over.
      assert.ok(
        error.code === status.DEADLINE_EXCEEDED ||
          error.code === status.CANCELLED,
      );
      assert.equal(error.retryable, false);
      return true;
    });
  });
});

describe("interceptors and channel options", () => {
  test("an interceptor sees every call", async (t) => {
    const paths: string[] = [];
    const note: Interceptor = (options, next) => {
      paths.push(options.method_definition.path);
      return new InterceptingCall(next(options), {
        start: (metadata: Metadata, listener, next) => {
          metadata.set("tag", "intercepted");
          next(metadata, listener);
        },
      });
    };
    const { client, sent } = await connect(t, { interceptors: [note] });
    await client.getUser("johndoe");
    await client.getUsers(["johndoe"]);
    assert.deepEqual(sent("tag"), [["intercepted"]]);
    assert.deepEqual(
      paths.map((path) => path.split("/").at(-1)),
      ["GetUser", "BatchGetUsers"],
    );
  });

  test("an interceptor may respond by itself, at once", async () => {
    const outcomes: Partial<StatusObject>[] = [
      { code: status.OK, details: "", metadata: new Metadata() },
      { code: status.UNAVAILABLE }, // as `StatusBuilder` makes it
    ];
    const respond: Interceptor = (options, next) =>
      new InterceptingCall(next(options), {
        start: (_, listener) => {
          listener.onReceiveMetadata(new Metadata());
          listener.onReceiveMessage({ user: { username: "johndoe" } });
          listener.onReceiveStatus(outcomes.shift() as StatusObject);
        },
        sendMessage: () => {},
        halfClose: () => {},
      });
    await using client = new UserProfileClient("127.0.0.1:1", {
      interceptors: [respond],
    });
    assert.equal((await client.getUser("johndoe")).username, "johndoe");
    await assert.rejects(client.getUser("johndoe"), {
      name: "UserProfileError",
      reason: Reason.SERVICE_UNREACHABLE,
    });
  });

  test("an interceptor can't keep a call that ends from its caller", async (t) => {
    const keep: Interceptor = (options, next) =>
      new InterceptingCall(next(options), {
        start: (metadata, _, next) =>
          next(metadata, { onReceiveStatus: () => {} }),
      });
    const { client, calls } = await connect(t, { interceptors: [keep] });
    const controller = new AbortController();
    const { signal } = controller;
    const aborted = client.getUser("johndoe", { signal });
    const closed = client.getUser("johndoe");
    closed.catch(() => undefined);
    while (calls.length < 2) await turn();
    controller.abort();
    await assert.rejects(aborted, { name: "AbortError" });
    await client.close();
    await assert.rejects(closed, { message: "The client was closed." });
  });

  test("an interceptor that throws fails the call", async (t) => {
    const failure = new Error("no");
    const throwing: Interceptor = () => {
      throw failure;
    };
    const { client } = await connect(t, { interceptors: [throwing] });
    await assert.rejects(client.getUser("johndoe"), failure);
  });

  test("an option of the channel overrides the client's", async (t) => {
    const channelOptions = { "grpc.max_receive_message_length": 1 };
    const { client } = await connect(t, { channelOptions });
    await assert.rejects(client.getUser("johndoe"), {
      code: status.RESOURCE_EXHAUSTED,
      retryable: false,
    });
  });

  test("calls take turns on several connections", async (t) => {
    const peers = new Set<string>();
    const port = await serve(t, (call) => {
      peers.add(call.getPeer());
      return undefined;
    });
    const options = { connections: 3, timeoutMs: 20_000 };
    await using client = new UserProfileClient(`127.0.0.1:${port}`, options);
    for (let call = 0; call < 6; call++) await client.getUser("johndoe");
    assert.equal(peers.size, 3);
    for (const connections of [0, 65, 1.5])
      assert.throws(
        () => new UserProfileClient("localhost:1", { connections }),
        TypeError,
      );
  });
});

describe("a function for the token", () => {
  test("is called for each call", async (t) => {
    let number = 0;
    const token = () => Promise.resolve(`token${++number}`);
    const { client, sent } = await connect(t, { token });
    for (let call = 0; call < 2; call++) await client.getUser("johndoe");
    assert.deepEqual(sent("authorization"), [
      ["Bearer token1"],
      ["Bearer token2"],
    ]);
  });

  test("fails the call if it fails, or returns no token", async (t) => {
    const failure = new Error("the issuer is away");
    const failing = await connect(t, { token: () => Promise.reject(failure) });
    await assert.rejects(failing.client.getUser("johndoe"), failure);
    for (const token of ["a secret", undefined, null, 17]) {
      const wrong = await connect(t, { token: () => token as string });
      await assert.rejects(
        wrong.client.getUser("johndoe"),
        (error) =>
          error instanceof TypeError && !error.message.includes("secret"),
      );
      assert.equal(wrong.calls.length, 0);
    }
  });

  describe("that never returns", () => {
    const token = () => new Promise<string>(() => {});

    test("holds a call until its deadline", async (t) => {
      const { client } = await connect(t, { token });
      await assert.rejects(client.getUser("johndoe", { timeoutMs: 50 }), {
        name: "UserProfileError",
        code: status.DEADLINE_EXCEEDED,
        message: /token function/,
      });
    });

    test("holds no call that is aborted", async (t) => {
      const { client } = await connect(t, { token });
      const controller = new AbortController();
      const { signal } = controller;
      const call = client.getUser("johndoe", { signal });
      controller.abort();
      await assert.rejects(call, { name: "AbortError" });
    });

    test("does not hold up `close`", async (t) => {
      const { client } = await connect(t, { token });
      const call = client.getUser("johndoe");
      call.catch(() => undefined);
      await client.close();
      await assert.rejects(call, { message: "The client was closed." });
    });
  });
});

describe("retries", () => {
  test("can be turned off", async (t) => {
    let attempts = 0;
    const port = await serve(t, () => {
      attempts++;
      return { code: status.UNAVAILABLE };
    });
    const target = `127.0.0.1:${port}`;
    for (const retries of [0, 1]) {
      attempts = 0;
      await using client = new UserProfileClient(target, { retries });
      await assert.rejects(client.getUser("johndoe"), { retryable: true });
      assert.equal(attempts, retries + 1);
    }
    for (const retries of [-1, 5, 0.5])
      assert.throws(
        () => new UserProfileClient("localhost:1", { retries }),
        TypeError,
      );
  });

  test("a call that gRPC in a server dropped is CALL_REFUSED", async (t) => {
    for (const code of [status.CANCELLED, status.RESOURCE_EXHAUSTED]) {
      const port = await serve(t, () => ({ code }));
      await using client = new UserProfileClient(`127.0.0.1:${port}`, {
        retries: 0,
      });
      await assert.rejects(client.getUser("johndoe"), {
        code,
        reason: Reason.CALL_REFUSED,
        retryable: true,
      });
    }
  });

  test("a call need not wait for a server", async () => {
    await using client = new UserProfileClient("127.0.0.1:1", {
      timeoutMs: 60_000,
    });
    await assert.rejects(client.getUser("johndoe", { waitForReady: false }), {
      reason: Reason.SERVICE_UNREACHABLE,
    });
    await assert.rejects(client.checkHealth(), {
      reason: Reason.SERVICE_UNREACHABLE,
    });
  });
});

describe("closing", () => {
  test("cancels calls in progress, and waits for their end", async (t) => {
    const { client, held } = await connectToSlow(t);
    const outcome = client.getUser("johndoe").catch((error: unknown) => error);
    await held;
    let ended = false;
    void outcome.then(() => (ended = true));
    await client.close();
    assert.ok(ended);
    const error = await outcome;
    assert.ok(error instanceof UserProfileError);
    assert.equal(error.code, status.CANCELLED);
    assert.equal(error.message, "The client was closed.");
    assert.equal(error.retryable, false);
    await client.close(); // again
  });

  test("comes with the end of the block of `await using`", async (t) => {
    const port = await serve(t);
    let outside: UserProfileClient;
    {
      await using client = new UserProfileClient(`127.0.0.1:${port}`);
      await client.getUser("johndoe");
      outside = client;
    }
    await assert.rejects(outside.getUser("johndoe"), {
      message: "The client is closed",
    });
  });
});
