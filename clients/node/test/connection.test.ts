import assert from "node:assert/strict";
import {
  createPrivateKey,
  generateKeyPairSync,
  X509Certificate,
} from "node:crypto";
import { before, describe, type TestContext, test } from "node:test";
import { ServerCredentials } from "@grpc/grpc-js";
import {
  type ClientOptions,
  status,
  type TlsOptions,
  UserProfileClient,
} from "../src/index.js";
import {
  type Identity,
  issue,
  makeAuthority,
  makeSelfSigned,
} from "./certificates.js";
import { type GetUserCall, serve } from "./server.js";

function connect(
  t: TestContext,
  target: string,
  options?: ClientOptions,
): UserProfileClient {
  const client = new UserProfileClient(target, {
    timeoutMs: 20_000,
    waitForReady: false, // a server that is refused is said to be so at once
    ...options,
  });
  t.after(() => client.close());
  return client;
}

/** Notes the `authorization` metadata of each call. */
function authorizations() {
  const seen: unknown[][] = [];
  const note = (call: GetUserCall) => {
    seen.push(call.metadata.get("authorization"));
    return undefined;
  };
  return { seen, note };
}

describe("TLS", () => {
  let authority: Identity;
  let stranger: Identity;
  let server: Identity;
  let client: Identity;

  before(async () => {
    [authority, stranger] = await Promise.all([
      makeAuthority(),
      makeAuthority(),
    ]);
    [server, client] = await Promise.all([
      issue(authority, "localhost"),
      issue(authority, "a client"),
    ]);
  });

  function serverCredentials(
    identity: Identity,
    clientAuthority?: Identity,
  ): ServerCredentials {
    const pair = { private_key: identity.key, cert_chain: identity.cert };
    return ServerCredentials.createSsl(
      clientAuthority?.cert ?? null,
      [pair],
      !!clientAuthority,
    );
  }

  test("the server is known by the given authority", async (t) => {
    const port = await serve(t, undefined, serverCredentials(server));
    const tls = { ca: authority.cert };
    const { username } = await connect(t, `localhost:${port}`, { tls }).getUser(
      "johndoe",
    );
    assert.equal(username, "johndoe");
  });

  for (const [name, ca] of [
    ["that Node.js trusts", () => undefined],
    ["that was given", () => stranger.cert],
  ] as const) {
    test(`a server that is not known by the authorities ${name} is refused`, async (t) => {
      const port = await serve(t, undefined, serverCredentials(server));
      const call = connect(t, `localhost:${port}`, {
        tls: { ca: ca() },
      }).getUser("johndoe");
      await assert.rejects(call, {
        code: status.UNAVAILABLE,
        message: /certificate/,
      });
    });
  }

  test("a server with another name is refused", async (t) => {
    const port = await serve(
      t,
      undefined,
      serverCredentials(await issue(authority, "elsewhere")),
    );
    const tls = { ca: authority.cert };
    const call = connect(t, `localhost:${port}`, { tls }).getUser("johndoe");
    await assert.rejects(call, {
      code: status.UNAVAILABLE,
      message: /altnames/,
    });
  });

  test("a server may be known by another name than the target's", async (t) => {
    const elsewhere = await issue(authority, "elsewhere");
    const port = await serve(t, undefined, serverCredentials(elsewhere));
    const tls = { ca: authority.cert, serverName: "elsewhere" };
    await connect(t, `localhost:${port}`, { tls }).getUser("johndoe");
  });

  test("the client's certificate is shown", async (t) => {
    const subjects: (string | undefined)[] = [];
    const note = (call: GetUserCall) => {
      const { sslPeerCertificate } = call.getAuthContext() as {
        sslPeerCertificate?: { subject: { CN: string } };
      };
      subjects.push(sslPeerCertificate?.subject.CN);
      return undefined;
    };
    const port = await serve(t, note, serverCredentials(server, authority));
    const tls = { ca: authority.cert, ...client };
    await connect(t, `localhost:${port}`, { tls }).getUser("johndoe");
    assert.deepEqual(subjects, ["a client"]);
  });

  for (const [name, identity] of [
    ["without a certificate", () => Promise.resolve({})],
    ["with a certificate of a stranger", () => issue(stranger, "a client")],
  ] as const) {
    test(`a client ${name} is refused where one is demanded`, async (t) => {
      const port = await serve(
        t,
        undefined,
        serverCredentials(server, authority),
      );
      const tls = { ca: authority.cert, ...(await identity()) };
      const call = connect(t, `localhost:${port}`, { tls }).getUser("johndoe");
      await assert.rejects(call, { code: status.UNAVAILABLE });
    });
  }

  test("a plaintext client gets nothing from a TLS server", async (t) => {
    const port = await serve(t, undefined, serverCredentials(server));
    const call = connect(t, `localhost:${port}`).getUser("johndoe");
    await assert.rejects(call, { code: status.UNAVAILABLE });
  });

  test("the token goes over TLS", async (t) => {
    const { seen, note } = authorizations();
    const port = await serve(t, note, serverCredentials(server));
    const tls = { ca: authority.cert };
    await connect(t, `localhost:${port}`, { tls, token: "secret" }).getUser(
      "johndoe",
    );
    assert.deepEqual(seen, [["Bearer secret"]]);
  });

  test("what can't be used is refused at once, and said", async () => {
    const nonsense = Buffer.from("nonsense");
    const empty = Buffer.alloc(0);
    const binary = new X509Certificate(authority.cert).raw;
    const expired = await makeSelfSigned(-2, -1);
    const early = await makeSelfSigned(1, 2);
    const forServers = await issue(authority, "localhost", "serverAuth");
    const { cert, key } = client;
    const lines = authority.cert.toString().split("\n");
    const damaged = Buffer.from(
      lines.with(2, "A".repeat(lines[2]?.length ?? 0)).join("\n"),
    );
    const cut = authority.cert.subarray(0, authority.cert.length / 2);
    const bom = Buffer.from("\ufeff");
    const object = createPrivateKey(key);
    const encrypted = (type: "pkcs8" | "sec1") =>
      Buffer.from(
        object.export({
          format: "pem",
          type,
          cipher: "aes-256-cbc",
          passphrase: "a password",
        }),
      );
    const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey;
    for (const [tls, says] of [
      [{ ca: empty }, "ca is empty"],
      [{ ca: Buffer.from(" \r\n") }, "ca is empty"],
      [{ ca: nonsense }, "ca isn't PEM"],
      [{ ca: binary }, "ca isn't PEM"],
      [{ ca: key }, "ca holds a PRIVATE KEY, not a certificate"],
      [{ ca: cert }, "ca holds a certificate issued by an authority"],
      [{ ca: damaged }, "certificate 1 in ca is damaged"],
      [
        { ca: Buffer.concat([authority.cert, damaged]) },
        "certificate 2 in ca is damaged",
      ],
      [{ ca: Buffer.concat([authority.cert, cut]) }, "ca is damaged"],
      [{ ca: Buffer.concat([bom, authority.cert]) }, "ca is damaged"],
      [{ ca: expired.cert }, "ca expired at"],
      [{ ca: early.cert }, "ca isn't valid before"],
      [{ cert: nonsense, key: nonsense }, "cert isn't PEM"],
      [{ cert: empty, key }, "cert is empty"],
      [{ cert, key: empty }, "key is empty"],
      [{ cert }, "cert needs key, and key needs cert"],
      [{ key }, "cert needs key, and key needs cert"],
      [{ cert, key: cert }, "key holds a CERTIFICATE, not a private key"],
      [{ cert, key: server.key }, "key doesn't belong to"],
      [
        {
          cert,
          key: Buffer.from(rsa.export({ format: "pem", type: "pkcs8" })),
        },
        "key doesn't belong to",
      ],
      [{ cert, key: encrypted("pkcs8") }, "key is encrypted"],
      [{ cert, key: encrypted("sec1") }, "key is encrypted"],
      [expired, "cert expired at"],
      [early, "cert isn't valid before"],
      [forServers, "cert's extended key usage lacks clientAuth"],
    ] as [TlsOptions, string][]) {
      assert.throws(
        () => new UserProfileClient("localhost:1", { tls }),
        ({ name, message }: Error) =>
          name === "TypeError" &&
          message.startsWith("Invalid TLS certificates or key: ") &&
          message.includes(says),
        says,
      );
    }
    const ca = Buffer.concat([expired.cert, authority.cert]);
    await new UserProfileClient("localhost:1", { tls: { ca } }).close();
    const tls = await issue(authority, "a client", "clientAuth");
    await new UserProfileClient("localhost:1", { tls }).close();
  });
});

describe("the token", () => {
  test("is sent in plaintext on this machine, past every proxy", async (t) => {
    const { seen, note } = authorizations();
    const port = await serve(t, note);
    process.env.grpc_proxy = "http://127.0.0.1:1";
    t.after(() => delete process.env.grpc_proxy);
    for (const host of [
      "localhost",
      "dns:///localhost",
      "127.0.0.1",
      "ipv4:127.0.0.1",
    ]) {
      await connect(t, `${host}:${port}`, { token: "secret" }).getUser(
        "johndoe",
      );
    }
    assert.deepEqual(seen, Array(4).fill(["Bearer secret"]));
  });

  test("is not sent if there is none", async (t) => {
    const { seen, note } = authorizations();
    const port = await serve(t, note);
    await connect(t, `localhost:${port}`).getUser("johndoe");
    assert.deepEqual(seen, [[]]);
  });

  for (const target of [
    "localhost:1",
    "127.9.9.9:1",
    "[::1]:1",
    "ipv6:[::1]:1",
    "unix:/socket",
  ]) {
    test(`may go to ${target} in plaintext`, (t) => {
      connect(t, target, { token: "secret" });
    });
  }

  for (const target of [
    "users.example.com:1",
    "10.0.0.1:1",
    "127.0.0.1.example.com:1",
    "localhost.example.com:1",
    "example.com/localhost:1",
    "dns://10.0.0.1/localhost:1",
    "dns:///users.example.com:1",
    "ipv4:127.0.0.1:1,10.0.0.1:1",
    "ipv6:[2001:db8::1]:1",
    "[::ffff:10.0.0.1]:1",
    "0.0.0.0:1",
  ]) {
    test(`may not go to ${target} in plaintext`, () => {
      assert.throws(() => new UserProfileClient(target, { token: "secret" }), {
        name: "TypeError",
        message: `The token would be sent to ${target} in plaintext; use TLS or allowPlaintextToken`,
      });
    });
  }

  test("may go anywhere with TLS, or if the caller insists", (t) => {
    connect(t, "users.example.com:1", { token: "secret", tls: {} });
    connect(t, "users.example.com:1", {
      token: "secret",
      allowPlaintextToken: true,
    });
  });

  for (const tls of [null, false, 0, ""] as never[]) {
    test(`is not safe because of tls: ${JSON.stringify(tls)}`, () => {
      for (const options of [{ tls }, { tlsFiles: tls }]) {
        assert.throws(
          () =>
            new UserProfileClient("192.0.2.1:1", {
              token: "secret",
              ...options,
            }),
          { name: "TypeError", message: /must be an object/ },
        );
      }
    });
  }

  for (const token of ["", "two words", "line\n", "é", null, 17] as never[]) {
    test(`can't be ${JSON.stringify(token)}, and stays out of the message`, () => {
      assert.throws(() => new UserProfileClient("localhost:1", { token }), {
        name: "TypeError",
        message:
          "The token must be printable ASCII without spaces, and not empty",
      });
    });
  }
});

for (const target of [
  "",
  "http://localhost:50051",
  "https://localhost",
  "two words:1",
  "localhost:1\n",
  null as never,
  50051 as never,
]) {
  test(`the target can't be ${JSON.stringify(target)}`, () => {
    assert.throws(() => new UserProfileClient(target), {
      name: "TypeError",
      message: /^The target must be host:port/,
    });
  });
}
