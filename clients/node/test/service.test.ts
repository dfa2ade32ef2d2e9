// The real server; see tests/client_conformance.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { ServiceError } from "@grpc/grpc-js";
import { status, UserProfileClient, UserProfileError } from "../src/index.js";
import { environment } from "./environment.js";

const target = environment("USERPROFILE_TARGET");
const file = (path: string) => fileURLToPath(new URL(path, import.meta.url));

describe("the README's example", () => {
  test("stands in the README", () => {
    const example = readFileSync(file("../../examples/greet.ts"), "utf8");
    const readme = readFileSync(file("../../README.md"), "utf8");
    const [first] = /(?<=```js\n)[^]*?(?=```)/.exec(readme) ?? [];
    assert.equal(first, example);
  });

  test("prints users", async () => {
    const command = [file("../examples/greet.js")];
    const { stdout } = await promisify(execFile)(process.execPath, command);
    assert.equal(
      stdout,
      "Hello, John Doe!\njohndoe johndoe@example.com\nabsent has no address\n",
    );
  });
});

test("the service is healthy", async () => {
  await using client = new UserProfileClient(target);
  assert.equal(await client.checkHealth(), true);
});

describe("a user whose store", () => {
  for (const [name, username, reason, previous] of [
    ["is down is asked for five times", "down", "STORE_UNAVAILABLE", ["4"]],
    [
      "is slow is asked for once: the server forbids it",
      "slow",
      "STORE_TIMEOUT",
      [],
    ],
  ] as const) {
    test(name, async () => {
      await using client = new UserProfileClient(target, { timeoutMs: 60_000 });
      await assert.rejects(client.getUser(username), (error) => {
        assert.ok(error instanceof UserProfileError);
        assert.equal(error.code, status.UNAVAILABLE);
        assert.equal(error.reason, reason);
        const { metadata } = error.cause as ServiceError;
        assert.deepEqual(metadata.get("grpc-previous-rpc-attempts"), previous);
        return true;
      });
    });
  }
});
