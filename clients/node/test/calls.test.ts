import assert from "node:assert/strict";
import { describe, type TestContext, test } from "node:test";
import { status, UserProfileClient } from "../src/index.js";
import { type Failure, notFound, serve, withDetails } from "./server.js";

/** A client of a server that returns these failures, then users. */
async function connect(
  t: TestContext,
  failures: Failure[],
  timeoutMs = 20_000,
) {
  const calls: string[] = [];
  const port = await serve(t, (call) => {
    calls.push(call.request.username);
    return failures.shift();
  });
  const client = new UserProfileClient(`127.0.0.1:${port}`, { timeoutMs });
  t.after(() => client.close());
  return { client, calls };
}

function unavailable(times: number, pushback?: string): Failure[] {
  const trailers =
    pushback === undefined ? {} : { "grpc-retry-pushback-ms": pushback };
  return Array<Failure>(times).fill({ code: status.UNAVAILABLE, trailers });
}

describe("retries", () => {
  test("a call is retried until the server has recovered", async (t) => {
    const { client, calls } = await connect(t, unavailable(4));
    assert.equal((await client.getUser("johndoe")).username, "johndoe");
    assert.equal(calls.length, 5);
  });

  test("there are at most five attempts", async (t) => {
    const { client, calls } = await connect(t, unavailable(5));
    await assert.rejects(client.getUser("johndoe"), {
      code: status.UNAVAILABLE,
    });
    assert.equal(calls.length, 5);
  });

  test("none follows a pushback of -1", async (t) => {
    const { client, calls } = await connect(t, unavailable(1, "-1"));
    await assert.rejects(client.getUser("johndoe"), {
      code: status.UNAVAILABLE,
    });
    assert.equal(calls.length, 1);
  });

  test("they wait for the pushback, but not beyond the deadline", async (t) => {
    const { client, calls } = await connect(t, unavailable(1, "60000"), 2000);
    await assert.rejects(client.getUser("johndoe"), {
      code: status.DEADLINE_EXCEEDED,
    });
    assert.equal(calls.length, 1);
  });

  test("they make up for a lost server, but not for an outage", async (t) => {
    const failures = unavailable(100);
    const { client, calls } = await connect(t, failures);
    const callTimes = (times: number) =>
      Array.from({ length: times }, () => client.getUser("johndoe"));
    await Promise.all(callTimes(200));

    failures.push(...unavailable(10_000));
    await Promise.allSettled(callTimes(400));
    calls.length = 0;
    await assert.rejects(client.getUser("johndoe"));
    assert.equal(calls.length, 1);
  });

  test("no other code is retried", async (t) => {
    const { client, calls } = await connect(t, [{ code: status.INTERNAL }]);
    await assert.rejects(client.getUser("johndoe"), { code: status.INTERNAL });
    assert.equal(calls.length, 1);
  });
});

test("calls go to all addresses in turn", { timeout: 20_000 }, async (t) => {
  const seen = new Set<string>();
  const ports = await Promise.all(
    ["first", "second"].map((name) =>
      serve(t, () => {
        seen.add(name);
        return undefined;
      }),
    ),
  );
  const addresses = ports.map((port) => `127.0.0.1:${port}`);
  const client = new UserProfileClient(`ipv4:${addresses.join(",")}`);
  t.after(() => client.close());
  while (seen.size < 2) await client.getUser("johndoe");
});

describe("details of errors", () => {
  test("a reason of this service counts", async (t) => {
    const { client } = await connect(t, [notFound("userprofile")]);
    assert.equal(await client.findUser("johndoe"), undefined);
  });

  for (const [name, failure] of [
    ["a reason of another service", notFound("elsewhere")],
    ["no details", { code: status.NOT_FOUND }],
    ["bytes that are no details", withDetails(Buffer.from("nonsense"))],
  ] as const) {
    test(`a NOT_FOUND with ${name} says nothing about the user`, async (t) => {
      const { client } = await connect(t, [failure]);
      await assert.rejects(client.findUser("johndoe"), {
        name: "UserProfileError",
        code: status.NOT_FOUND,
        message: "as the test wants",
        reason: undefined,
      });
    });
  }
});

describe("bad arguments", () => {
  test("a lone surrogate is never sent", async (t) => {
    const { client, calls } = await connect(t, []);
    const expected = {
      code: status.INVALID_ARGUMENT,
      reason: "INVALID_USERNAME",
    };
    await assert.rejects(client.getUser("\ud800"), expected);
    assert.deepEqual(calls, []);
  });

  for (const timeoutMs of [
    0,
    -1,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    "5000" as never,
  ]) {
    test(`a call can't take ${JSON.stringify(timeoutMs)} milliseconds`, async (t) => {
      const expected = { name: "TypeError", message: /^timeoutMs must be / };
      assert.throws(
        () => new UserProfileClient("localhost:1", { timeoutMs }),
        expected,
      );
      const { client } = await connect(t, []);
      await assert.rejects(client.getUser("johndoe", { timeoutMs }), expected);
    });
  }

  test("JavaScript's wrong types are refused, and nothing is sent", async (t) => {
    const { client, calls } = await connect(t, []);
    for (const nothing of [undefined, null, 17, {}] as never[]) {
      const expected = { name: "TypeError", message: /username/ };
      await assert.rejects(client.getUser(nothing), expected);
      await assert.rejects(client.findUser(nothing), expected);
      await assert.rejects(client.getUsers([nothing]), expected);
      await assert.rejects(client.iterUsers([nothing]).next(), expected);
      await assert.rejects(client.getUsers(nothing), TypeError);
      await assert.rejects(client.iterUsers(nothing).next(), TypeError);
    }
    for (const fields of ["email", null, [17]] as never[]) {
      const expected = { name: "TypeError", message: /^fields must be / };
      const options = { fields };
      await assert.rejects(client.getUser("johndoe", options), expected);
      await assert.rejects(client.getUsers(["johndoe"], options), expected);
    }
    assert.deepEqual(calls, []);
  });

  test("a closed client says so", async (t) => {
    const { client } = await connect(t, []);
    await client.close();
    await assert.rejects(client.getUser("johndoe"), {
      message: "The client is closed",
    });
  });
});
