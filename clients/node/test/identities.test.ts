// A real server that knows its callers; see tests/client_conformance/identities.py.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import {
  type ClientOptions,
  Reason,
  status,
  UserProfileClient,
} from "../src/index.js";
import { environment } from "./environment.js";

const folder = environment("USERPROFILE_IDENTITIES");
const content = (name: string) => readFileSync(join(folder, name));

function connect(
  t: TestContext,
  address: string,
  options: ClientOptions,
): UserProfileClient {
  const client = new UserProfileClient(content(address).toString(), {
    timeoutMs: 60_000,
    ...options,
    tls: { ca: content("ca.pem"), ...options.tls },
  });
  t.after(() => client.close());
  return client;
}

test("a token over TLS", async (t) => {
  const client = connect(t, "tls", { token: content("token").toString() });
  assert.equal((await client.getUser("johndoe")).email, "johndoe@example.com");
});

test("a certificate", async (t) => {
  const client = connect(t, "mtls", {
    tls: { cert: content("caller.pem"), key: content("caller.key") },
  });
  const user = await client.getUser("johndoe");
  assert.deepEqual([user.fullName, user.email], ["John Doe", undefined]);
  await assert.rejects(client.getUser("johndoe", { fields: ["email"] }), {
    code: status.PERMISSION_DENIED,
    reason: Reason.CALLER_NOT_ALLOWED,
    retryable: false,
  });
});

test("neither", async (t) => {
  for (const token of [undefined, "wrong"])
    await assert.rejects(connect(t, "tls", { token }).getUser("johndoe"), {
      code: status.UNAUTHENTICATED,
      reason: Reason.CALLER_UNKNOWN,
      retryable: false,
    });
});
