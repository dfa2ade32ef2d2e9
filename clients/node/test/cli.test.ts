import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { status } from "../src/index.js";
import { type Failure, notFound, serve } from "./server.js";

const CLI = fileURLToPath(new URL("../src/cli.js", import.meta.url));

function run(args: string[], env: NodeJS.ProcessEnv = {}) {
  return new Promise<{ exit: unknown; stdout: string; stderr: string }>(
    (resolve) => {
      const options = { env: { ...process.env, ...env }, timeout: 20_000 };
      execFile(
        process.execPath,
        [CLI, ...args],
        options,
        (error, stdout, stderr) =>
          resolve({ exit: error ? error.code : 0, stdout, stderr }),
      );
    },
  );
}

async function get(t: TestContext, username: string, failure?: Failure) {
  const port = await serve(t, () => failure);
  return run(["get", username], { USERPROFILE_TARGET: `localhost:${port}` });
}

test("a user is printed as JSON that can't steer a terminal", async (t) => {
  const { exit, stdout } = await get(t, "john\u001b\u009bdoe");
  assert.equal(stdout, '{"username":"john\\u001b\\u009bdoe"}\n');
  assert.equal(exit, 0);
});

test("it is said if nobody has the name", async (t) => {
  const { exit, stdout, stderr } = await get(
    t,
    "johndoe",
    notFound("userprofile"),
  );
  assert.equal(stdout, "");
  assert.equal(stderr, 'error: there is no user "johndoe"\n');
  assert.equal(exit, 3);
});

test("an error is named, and its kind is the exit status", async (t) => {
  for (const [code, expected] of [
    [status.INVALID_ARGUMENT, 2],
    [status.DEADLINE_EXCEEDED, 4],
    [status.DATA_LOSS, 1],
  ] as const) {
    const { exit, stderr } = await get(t, "johndoe", { code });
    assert.match(
      stderr,
      new RegExp(`^error: as the test wants .*${status[code]}`),
    );
    assert.equal(exit, expected);
  }
});

test("wrong use is explained", async () => {
  for (const args of [
    [],
    ["get"],
    ["get", "johndoe", "janedoe"],
    ["get", "johndoe", "--target", "http://localhost"],
    ["get", "johndoe", "--ca", "ca.pem"],
    ["get", "johndoe", "--tls", "--ca", "/nonexistent"],
    ["get", "johndoe", "--unknown"],
  ]) {
    const { exit, stderr } = await run(args);
    assert.match(stderr, /^error: .*\n\nusage: userprofile get/);
    assert.equal(exit, 2);
  }
});
