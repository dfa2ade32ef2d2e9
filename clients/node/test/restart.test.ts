import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { createServer as createHttp2Server } from "node:http2";
import {
  type AddressInfo,
  connect as connectTcp,
  createServer,
} from "node:net";
import { describe, type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import {
  ChannelCredentials,
  InterceptingCall,
  type Interceptor,
  Metadata,
  Server,
  ServerCredentials,
} from "@grpc/grpc-js";
import {
  type ClientOptions,
  status,
  UserProfileClient,
  UserProfileError,
} from "../src/index.js";
import {
  GetUserResponse,
  UserProfileServiceService,
} from "../src/gen/userprofile/v1/user_profile_service.js";
import { Retries, withRetries } from "../src/retries.js";
import { TlsCredentials } from "../src/tls_credentials.js";
import { serve } from "./server.js";

function connect(
  t: TestContext,
  target: string | number,
  options: ClientOptions = { timeoutMs: 30_000 },
): UserProfileClient {
  const address = typeof target === "number" ? `127.0.0.1:${target}` : target;
  const client = new UserProfileClient(address, options);
  t.after(() => client.close());
  return client;
}

async function start(
  port: number,
  waits = () => false,
): Promise<[Server, number]> {
  const server = new Server();
  server.addService(UserProfileServiceService, {
    getUser: (
      call: { request: { username: string } },
      callback: (error: null, value: object) => void,
    ) => {
      if (!waits())
        callback(null, { user: { username: call.request.username } });
    },
  });
  const bound = await new Promise<number>((resolve, reject) =>
    server.bindAsync(
      `127.0.0.1:${port}`,
      ServerCredentials.createInsecure(),
      (error, port) => (error ? reject(error) : resolve(port)),
    ),
  );
  return [server, bound];
}

/** A port on which nobody listens. */
async function unusedPort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

/** A port on which somebody listens, and says nothing. */
async function silentPort(t: TestContext): Promise<number> {
  const server = createServer((socket) => {
    t.after(() => socket.destroy());
    socket.on("error", () => {});
  }).listen(0, "127.0.0.1");
  t.after(() => server.close());
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

test("a restart is not felt", async (t) => {
  // gRPC retries no call whose response has begun, and Node's server, unlike
  // ours, sends the status apart from the message. So the server is shut down
  // while all calls wait in it.
  let hold = false;
  let held = 0;
  const waits = () => hold && ++held > 0;
  const [first, port] = await start(0, waits);
  let server = first;
  t.after(() => server.forceShutdown());
  const client = connect(t, port);
  let calls = 0;
  let done = false;
  const callers = Array.from({ length: 8 }, async () => {
    while (!done) {
      assert.equal((await client.getUser("johndoe")).username, "johndoe");
      calls++;
    }
  });
  // Whatever fails there ends the waiting below.
  const failure = Promise.all(callers);
  const more = async () => {
    const before = calls;
    while (calls < before + 100) await Promise.race([failure, sleep(1)]);
  };
  for (let restart = 0; restart < 3; restart++) {
    await more();
    held = 0;
    hold = true;
    while (held < callers.length) await Promise.race([failure, sleep(1)]);
    server.forceShutdown();
    hold = false;
    await sleep(1200);
    [server] = await start(port, waits);
  }
  await more();
  done = true;
  await failure;
});

describe("a service that is not there", () => {
  for (const [name, options] of [
    ["waited for", { timeoutMs: 500 }],
    ["not waited for", { timeoutMs: 30_000, waitForReady: false }],
    ["short of time", { timeoutMs: 500, waitForReady: false }],
  ] as const) {
    test(`is said to be so: ${name}`, async (t) => {
      const client = connect(t, await unusedPort(), options);
      await assert.rejects(client.getUser("johndoe"), {
        name: "UserProfileError",
        code: status.UNAVAILABLE,
        reason: "SERVICE_UNREACHABLE",
        message: /ECONNREFUSED/,
      });
    });
  }

  for (const tls of ["undefined", "{}"]) {
    test(`lets a process end that gives up: tls: ${tls}`, async (t) => {
      const port = await silentPort(t);
      const index = new URL("../src/index.js", import.meta.url);
      const program = `
        import { UserProfileClient } from "${index.href}";
        const client = new UserProfileClient("localhost:${port}", { tls: ${tls}, timeoutMs: 300 });
        await client.getUser("johndoe").catch(({ code }) => console.log(code));
        await client.close();`;
      const command = ["--input-type=module", "--eval", program];
      const options = { timeout: 15_000 }; // then it is killed, and fails
      const done = await promisify(execFile)(
        process.execPath,
        command,
        options,
      );
      assert.equal(done.stdout, `${status.DEADLINE_EXCEEDED}\n`);
    });
  }

  test("is tried again if it begins no TLS", async (t) => {
    const port = await silentPort(t);
    const credentials = new TlsCredentials(
      () => ChannelCredentials.createSsl(),
      50,
    );
    const target = { scheme: "dns", path: `localhost:${port}` };
    const connector = credentials._createSecureConnector(target, {});
    const socket = connectTcp(port, "127.0.0.1");
    t.after(() => socket.destroy());
    await once(socket, "connect");
    const message = "no TLS handshake within 50 ms";
    await assert.rejects(connector.connect(socket), { message });
  });

  test("is not hammered", async (t) => {
    let done: (took: number) => void;
    const nineAttempts = new Promise<number>((resolve) => (done = resolve));
    const began = Date.now();
    let attempts = 0;
    const hangingUp = createServer((socket) => {
      socket.on("error", () => {});
      socket.destroy();
      if (++attempts === 9) done(Date.now() - began);
    }).listen(0, "127.0.0.1");
    t.after(() => hangingUp.close());
    await once(hangingUp, "listening");
    const { port } = hangingUp.address() as AddressInfo;
    const client = connect(t, port, { timeoutMs: 50 });
    let ended = false;
    const callers = Array.from({ length: 20 }, async () => {
      while (!ended) await assert.rejects(client.getUser("johndoe"));
    });
    const took = await nineAttempts;
    ended = true;
    await Promise.all(callers);
    // 100 ms that grow by 1.6 to a second, each a fifth shorter at the least.
    assert.ok(took >= 3000, `9 attempts to connect in ${took} ms`);
  });
});

test("a server without its store is not felt beside others", async (t) => {
  const broken = await serve(t, () => ({ code: status.UNAVAILABLE }));
  const ports = [broken, await serve(t), await serve(t)];
  const target = `ipv4:${ports.map((port) => `127.0.0.1:${port}`).join(",")}`;
  const client = connect(t, target);
  // In turn, the next is another server.
  for (let call = 0; call < 20; call++) await client.getUser("johndoe");
  let failed = 0;
  const callers = Array.from({ length: 50 }, async () => {
    for (let call = 0; call < 60; call++)
      await client.getUser("johndoe").catch(() => failed++);
  });
  await Promise.all(callers);
  // Among many calls a retry may meet the same server, but five times in one of 243.
  assert.ok(failed <= 60, `${failed} of 3000 calls failed`);
});

describe("a gateway's HTTP status", () => {
  for (const [http, code, says] of [
    [401, status.UNAUTHENTICATED, "HTTP 401 (Unauthorized)"],
    [403, status.PERMISSION_DENIED, "HTTP 403 (Forbidden)"],
    [404, status.UNIMPLEMENTED, "HTTP 404 (Not Found)"],
    [502, status.UNAVAILABLE, "HTTP 502 (Bad Gateway)"],
    [503, status.UNAVAILABLE, "HTTP 503 (Service Unavailable)"],
  ] as const) {
    test(`${http} is an error in words`, async (t) => {
      const gateway = createHttp2Server((_, response) => {
        response.writeHead(http, { "content-type": "text/html" });
        response.end("<html></html>");
      }).listen(0, "127.0.0.1");
      t.after(() => gateway.close());
      await once(gateway, "listening");
      const client = connect(t, (gateway.address() as AddressInfo).port);
      await assert.rejects(client.getUser("johndoe"), (error) => {
        assert.ok(error instanceof UserProfileError);
        assert.equal(error.code, code);
        assert.ok(error.message.startsWith(`A gateway returned ${says}`));
        return true;
      });
    });
  }
});

describe("a gateway whose service is away", () => {
  /** Responds with these HTTP statuses, and then as the service. */
  async function gateway(
    t: TestContext,
    pages: number[],
    options?: ClientOptions,
  ) {
    let attempts = 0;
    const server = createHttp2Server((request, response) => {
      attempts++;
      request.resume();
      const page = pages.shift();
      if (page !== undefined) {
        response.writeHead(page, { "content-type": "text/html" });
        response.end("<html></html>");
        return;
      }
      const message = Buffer.from(
        GetUserResponse.encode({ user: { username: "johndoe" } }).finish(),
      );
      const head = Buffer.alloc(5);
      head.writeUInt32BE(message.length, 1);
      response.writeHead(200, { "content-type": "application/grpc" });
      response.write(Buffer.concat([head, message]));
      response.addTrailers({ "grpc-status": "0" });
      response.end();
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const client = connect(t, (server.address() as AddressInfo).port, options);
    t.after(() => server.close());
    return { client, attempts: () => attempts };
  }

  test("is retried", async (t) => {
    const { client, attempts } = await gateway(t, [502, 503, 504]);
    assert.equal((await client.getUser("johndoe")).username, "johndoe");
    assert.equal(attempts(), 4);
  });

  test("gets five attempts", async (t) => {
    const { client, attempts } = await gateway(t, Array<number>(9).fill(502));
    await assert.rejects(client.getUser("johndoe"), { message: /HTTP 502/ });
    assert.equal(attempts(), 5);
  });

  test("gets each attempt as the interceptors make it, and no more", async (t) => {
    const tags: number[] = [];
    const tag: Interceptor = (options, next) =>
      new InterceptingCall(next(options), {
        start: (metadata, listener, next) => {
          metadata.add("tag", "intercepted");
          tags.push(metadata.get("tag").length);
          next(metadata, listener);
        },
      });
    const options = { interceptors: [tag], timeoutMs: 20_000 };
    const { client } = await gateway(t, [502, 502], options);
    await client.getUser("johndoe");
    assert.deepEqual(tags, [1, 1, 1]);
  });

  test("gets no attempt that the deadline leaves no time for", async (t) => {
    const pages = Array<number>(9).fill(502);
    const { client } = await gateway(t, pages, { timeoutMs: 1000 });
    await assert.rejects(client.getUser("johndoe"), {
      code: status.UNAVAILABLE,
      message: /HTTP 502/,
    });
  });

  test("gets one attempt if it refuses the call", async (t) => {
    const { client, attempts } = await gateway(t, Array<number>(9).fill(403));
    await assert.rejects(client.getUser("johndoe"), { message: /HTTP 403/ });
    assert.equal(attempts(), 1);
  });

  test("gets no retry from a closed client", async (t) => {
    const { client, attempts } = await gateway(t, Array<number>(9).fill(502));
    const call = client.getUser("johndoe");
    while (attempts() < 2) await sleep(1);
    await client.close();
    await assert.rejects(call, { name: "UserProfileError" });
  });

  test("gets as many retries at once as the throttle allows", () => {
    const retries = new Retries(withRetries());
    const error = Object.assign(new Error(), {
      code: status.UNAVAILABLE,
      details: "Received HTTP status code 502",
      metadata: new Metadata(),
    });
    const deadline = Date.now() + 3_600_000;
    const GET_USER = "/userprofile.v1.UserProfileService/GetUser";
    let made = 0;
    for (let call = 0; call < 5000; call++)
      if (retries.pause(GET_USER, error, 0, deadline) !== undefined) made++;
    // Some are given back meanwhile.
    assert.ok(made >= 500 && made < 2500, `${made} retries`);
  });
});
