import assert from "node:assert/strict";
import {
  mkdtempSync,
  renameSync,
  rmSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { UserProfileServiceService } from "../src/gen/userprofile/v1/user_profile_service.js";
import { type ClientOptions, UserProfileClient } from "../src/index.js";
import { type Identity, issue, makeAuthority } from "./certificates.js";
import { TokenFile } from "../src/token_file.js";
import { type GetUserCall, serve } from "./server.js";

const ROTATIONS = 10;
const CALLERS = 16;
const TIMEOUT_MS = 50_000;

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "userprofile-"));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

/** Puts a file into the place of another, at once. */
function replace(path: string, content: string | Buffer): void {
  writeFileSync(`${path}.new`, content);
  renameSync(`${path}.new`, path);
}

async function eventually(what: string, condition: () => boolean) {
  for (const end = performance.now() + TIMEOUT_MS; !condition();) {
    assert.ok(performance.now() < end, `in vain: ${what}`);
    await sleep(1);
  }
}

/** Calls all the time, in many tasks. No call may fail. */
async function underLoad(
  t: TestContext,
  target: string,
  options: ClientOptions,
  during: (more: () => Promise<void>) => Promise<void>,
): Promise<void> {
  const client = new UserProfileClient(target, {
    timeoutMs: TIMEOUT_MS,
    ...options,
  });
  t.after(() => client.close());
  let calls = 0;
  let done = false;
  const call = async () => {
    while (!done) {
      await client.getUser("johndoe");
      calls++;
      await sleep(1);
    }
  };
  const callers = Promise.all(Array.from({ length: CALLERS }, call));
  const more = async () => {
    const before = calls;
    await eventually("calls succeed", () => calls > before + CALLERS);
  };
  try {
    await Promise.race([during(more), callers]);
  } finally {
    done = true;
  }
  await callers;
}

describe("the token file", () => {
  test("is read again when it changes", async (t) => {
    t.mock.timers.enable({ apis: ["Date"], now: Date.now() });
    const file = join(folder(t), "token");
    const sent: unknown[] = [];
    const port = await serve(t, (call: GetUserCall) => {
      sent.push(call.metadata.get("authorization")[0]);
      return undefined;
    });
    writeFileSync(file, "\ufeff token0 \r\n");
    const options = { tokenFile: file };
    await underLoad(t, `127.0.0.1:${port}`, options, async (more) => {
      const look = async () => {
        t.mock.timers.tick(10_000); // the next call looks at the file
        await more();
      };
      await more();
      for (let i = 1; i <= ROTATIONS; i++) {
        unlinkSync(file);
        await look();
        writeFileSync(file, "\n");
        await look();
        assert.equal(sent.at(-1), `Bearer token${i - 1}`);
        replace(file, `token${i}\n`);
        await look();
        await eventually(
          "it is sent",
          () => sent.at(-1) === `Bearer token${i}`,
        );
      }
    });
    const all = Array.from({ length: ROTATIONS + 1 }, (_, i) => `token${i}`);
    assert.deepEqual(
      [...new Set(sent)],
      all.map((token) => `Bearer ${token}`),
    );
  });

  test("is read again after the clock was set back", (t) => {
    const now = Date.now();
    t.mock.timers.enable({ apis: ["Date"], now: now + 3_600_000 });
    const file = join(folder(t), "token");
    writeFileSync(file, "token0");
    const tokenFile = new TokenFile(file);
    assert.equal(tokenFile.current, "token0");
    t.mock.timers.setTime(now);
    replace(file, "token1");
    utimesSync(file, 0, 0); // not as new as one that is being written
    assert.equal(tokenFile.current, "token1");
  });

  test("is not read while it is larger than any token", (t) => {
    t.mock.timers.enable({ apis: ["Date"], now: Date.now() });
    const file = join(folder(t), "token");
    writeFileSync(file, "token0");
    const tokenFile = new TokenFile(file);
    truncateSync(file, 2 ** 33); // more than can be read
    t.mock.timers.tick(10_000);
    assert.equal(tokenFile.current, "token0");
    assert.throws(() => new TokenFile(file), { message: /larger than any/ });
  });

  for (const [name, content] of [
    ["empty", "\n"],
    ["two lines", "a-secret\nanother-secret\n"],
    ["a space", "a secret"],
    ["UTF-16", Buffer.from("\ufeffsecret", "utf16le")],
    ["large", "secret".repeat(20_000)],
    ["missing", undefined],
  ] as const) {
    test(`is refused if it is no token: ${name}`, (t) => {
      const file = join(folder(t), "token");
      if (content !== undefined) writeFileSync(file, content);
      assert.throws(
        () => new UserProfileClient("localhost:1", { tokenFile: file }),
        ({ message }: TypeError) =>
          message.includes(file) && !message.includes("secret"),
      );
    });
  }

  test("is not sent to other machines in plaintext", (t) => {
    const tokenFile = join(folder(t), "token");
    writeFileSync(tokenFile, "secret");
    assert.throws(() => new UserProfileClient("192.0.2.1:1", { tokenFile }), {
      message: /in plaintext/,
    });
    assert.throws(
      () =>
        new UserProfileClient("localhost:1", { tokenFile, token: "secret" }),
      { message: /not both/ },
    );
  });
});

/** gRPC retries no call whose response has begun, so none is cut off. */
function drained(server: Server): Promise<unknown> {
  return new Promise((resolve) => server.tryShutdown(resolve));
}

describe("TLS files", () => {
  async function start(
    authority: Identity,
    callers: unknown[],
    port = 0,
  ): Promise<[Server, number]> {
    const own = await issue(authority, "localhost");
    const server = new Server();
    server.addService(UserProfileServiceService, {
      getUser(
        call: GetUserCall,
        callback: (error: null, value: object) => void,
      ) {
        const { sslPeerCertificate } = call.getAuthContext() as {
          sslPeerCertificate?: { subject: { CN: string } };
        };
        callers.push(sslPeerCertificate?.subject.CN);
        callback(null, { user: { username: call.request.username } });
      },
    });
    const pair = { private_key: own.key, cert_chain: own.cert };
    const credentials = ServerCredentials.createSsl(
      authority.cert,
      [pair],
      true,
    );
    return new Promise((resolve, reject) =>
      server.bindAsync(`127.0.0.1:${port}`, credentials, (error, bound) =>
        error ? reject(error) : resolve([server, bound]),
      ),
    );
  }

  test("are read for each connection", async (t) => {
    const path = folder(t);
    const tlsFiles = {
      ca: join(path, "ca.pem"),
      cert: join(path, "client.pem"),
      key: join(path, "client.key"),
    };
    const write = async (authority: Identity, name: string) => {
      const { cert, key } = await issue(authority, name);
      replace(tlsFiles.ca, authority.cert);
      replace(tlsFiles.cert, cert);
      replace(tlsFiles.key, key);
      return key;
    };
    const callers: unknown[] = [];
    let authority = await makeAuthority();
    await write(authority, "client0");
    const [first, port] = await start(authority, callers);
    let server = first;
    t.after(() => server.forceShutdown());
    await underLoad(t, `localhost:${port}`, { tlsFiles }, async (more) => {
      await more();
      for (let i = 1; i <= ROTATIONS; i++) {
        authority = await makeAuthority();
        const key = await write(authority, `client${i}`);
        await more();
        await drained(server);
        [server] = await start(authority, callers, port);
        await eventually("it is shown", () => callers.at(-1) === `client${i}`);
        replace(tlsFiles.key, ""); // half of a pair: the last good one goes on
        await drained(server);
        [server] = await start(authority, callers, port);
        await more();
        replace(tlsFiles.key, key);
      }
    });
  });

  test("are checked when the client is made", (t) => {
    const ca = join(folder(t), "ca.pem");
    assert.throws(
      () => new UserProfileClient("localhost:1", { tlsFiles: { ca } }),
      { message: /Invalid TLS certificates or key: .*no such file/ },
    );
    writeFileSync(ca, "");
    assert.throws(
      () => new UserProfileClient("localhost:1", { tlsFiles: { ca } }),
      { message: /ca is empty/ },
    );
    assert.throws(
      () => new UserProfileClient("localhost:1", { tls: {}, tlsFiles: { ca } }),
      { message: /not both/ },
    );
  });
});
