import assert from "node:assert/strict";
import { describe, type TestContext, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import {
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  status,
} from "@grpc/grpc-js";
import {
  type BatchGetUsersRequest,
  type BatchGetUsersResponse,
  UserProfileServiceService,
} from "../src/gen/userprofile/v1/user_profile_service.js";
import { BatchError, Reason, UserProfileClient } from "../src/index.js";
import { found } from "./server.js";

type Respond = (error: object | null, value?: BatchGetUsersResponse) => void;

/** A client of a server whose batches `respond` responds to. */
async function connect(
  t: TestContext,
  respond: (usernames: string[], callback: Respond) => void = all,
) {
  const batches: string[][] = [];
  let cancelled = 0;
  const server = new Server();
  t.after(() => {
    server.forceShutdown();
  });
  server.addService(UserProfileServiceService, {
    getUser: () => undefined,
    batchGetUsers: (
      call: ServerUnaryCall<BatchGetUsersRequest, BatchGetUsersResponse>,
      callback: Respond,
    ) => {
      call.on("cancelled", () => cancelled++);
      batches.push(call.request.usernames);
      respond(call.request.usernames, callback);
    },
  });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(
      "127.0.0.1:0",
      ServerCredentials.createInsecure(),
      (error, port) => {
        if (error) reject(error);
        else resolve(port);
      },
    );
  });
  const client = new UserProfileClient(`127.0.0.1:${port}`, {
    timeoutMs: 20_000,
    retries: 0,
  });
  t.after(() => client.close());
  return { client, batches, cancelled: () => cancelled };
}

function all(usernames: string[], callback: Respond): void {
  callback(null, { results: usernames.map(found) });
}

function names(count: number): string[] {
  return Array.from({ length: count }, (_, i) => `user${i}`);
}

test("any number of usernames is split into batches, in order", async (t) => {
  const { client, batches } = await connect(t);
  const usernames = names(1050);
  assert.deepEqual([...(await client.getUsers(usernames)).keys()], usernames);
  assert.deepEqual(
    batches.map((batch) => batch.length),
    [...Array.from({ length: 10 }, () => 100), 50],
  );
  const seen: string[] = [];
  for await (const { username, user } of client.iterUsers(usernames)) {
    assert.equal(user?.username, username);
    seen.push(username);
  }
  assert.deepEqual(seen, usernames);
});

test("no username makes no call", async (t) => {
  const { client, batches } = await connect(t);
  assert.equal((await client.getUsers([])).size, 0);
  for await (const result of client.iterUsers([])) assert.fail(result.username);
  assert.equal(batches.length, 0);
});

test("getUsers requests a username once, iterUsers as often as it comes", async (t) => {
  const { client, batches } = await connect(t);
  assert.equal((await client.getUsers(["johndoe", "johndoe"])).size, 1);
  assert.deepEqual(batches, [["johndoe"]]);
  const seen: string[] = [];
  for await (const { username, user } of client.iterUsers([
    "johndoe",
    "johndoe",
  ]))
    if (user) seen.push(username);
  assert.deepEqual(seen, ["johndoe", "johndoe"]);
});

test("a single string is a mistake", async (t) => {
  const { client } = await connect(t);
  await assert.rejects(client.getUsers("johndoe"), TypeError);
  await assert.rejects(client.iterUsers("johndoe").next(), TypeError);
});

test("four calls are in flight at most, and usernames are taken as needed", async (t) => {
  const waiting: (() => void)[] = [];
  const { client, batches } = await connect(t, (usernames, callback) => {
    waiting.push(() => {
      all(usernames, callback);
    });
  });
  let taken = 0;
  const source = async function* () {
    for (const name of names(1000)) {
      taken++;
      yield await Promise.resolve(name);
    }
  };
  const results = client.iterUsers(source());
  const first = results.next();
  while (batches.length < 4) await turn();
  for (let i = 0; i < 50; i++) await turn();
  assert.equal(batches.length, 4);
  assert.equal(taken, 400);
  for (const respond of waiting) respond();
  assert.equal((await first).value?.username, "user0");
  await results.return();
});

test("abandoning iterUsers cancels what is in flight", async (t) => {
  const respond = (usernames: string[], callback: Respond) => {
    if (usernames.includes("user0")) all(usernames, callback);
  };
  const { client, batches, cancelled } = await connect(t, respond);
  for await (const { username } of client.iterUsers(names(400))) {
    assert.equal(username, "user0");
    while (batches.length < 4) await turn();
    break;
  }
  while (cancelled() < 3) await turn();
});

describe("errors", () => {
  const failing = (code: status) => (_: string[], callback: Respond) => {
    callback({ code, details: "as the test wants" });
  };

  test("a username that can't be sent is an error of its own", async (t) => {
    const { client, batches } = await connect(t);
    const usernames = ["johndoe", "\ud800", "x".repeat(601)];
    const reasons: (string | undefined)[] = [];
    for await (const { error } of client.iterUsers(usernames))
      reasons.push(error?.reason);
    const { INVALID_USERNAME } = Reason;
    assert.deepEqual(reasons, [undefined, INVALID_USERNAME, INVALID_USERNAME]);
    assert.deepEqual(batches, [["johndoe"]]);
  });

  test("a call that fails ends getUsers, and no username of iterUsers is skipped", async (t) => {
    const { client, batches } = await connect(t, failing(status.DATA_LOSS));
    await assert.rejects(client.getUsers(names(2000)), (error) => {
      return (
        !(error instanceof BatchError) &&
        (error as { code: unknown }).code === status.DATA_LOSS
      );
    });
    assert.ok(batches.length <= 5);
    let failed = 0;
    for await (const { error } of client.iterUsers(names(250)))
      if (error?.code === status.DATA_LOSS) failed++;
    assert.equal(failed, 250);
  });

  test("getUsers has those that were found, and who could not be read", async (t) => {
    const failure = (code: status, username: string) => ({
      username,
      outcome: {
        $case: "error" as const,
        value: { code, message: "No.", details: [] },
      },
    });
    const { client } = await connect(t, (usernames, callback) => {
      const results = usernames.map((name) =>
        name === "b" ? failure(status.DATA_LOSS, name) : found(name),
      );
      callback(null, { results });
    });
    await assert.rejects(client.getUsers(["a", "b", "c"]), (error) => {
      assert.ok(error instanceof BatchError);
      assert.deepEqual([...error.users.keys()], ["a", "c"]);
      assert.deepEqual([...error.errors.keys()], ["b"]);
      assert.equal(error.code, status.DATA_LOSS);
      assert.equal(error.requestId, error.errors.get("b")?.requestId);
      return true;
    });
  });
});
