import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type ServerHttp2Session } from "node:http2";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { UserProfileClient } from "../src/index.js";

/** How often the server allows a ping; it closes connections that ping more. */
const ALLOWED_MS = 20_000;

test("an idle connection is pinged, as often as the server allows", async (t) => {
  const server = createServer();
  server.on("stream", (stream) => stream.close()); // no call stays open
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const client = new UserProfileClient(`127.0.0.1:${port}`, {
    waitForReady: false,
  });
  t.after(async () => {
    await client.close();
    server.close();
  });

  const connected = once(server, "session");
  const began = performance.now();
  await assert.rejects(client.getUser("johndoe"));
  const [session] = (await connected) as [ServerHttp2Session];
  await once(session, "ping");
  assert.ok(performance.now() - began > ALLOWED_MS);
});
