#!/usr/bin/env node
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { status, UserProfileClient, UserProfileError } from "./index.js";

const USAGE = `usage: userprofile get [options] USERNAME

Prints the public profile as JSON; fields without a value are left out.

  --target ADDRESS  the service (default: USERPROFILE_TARGET or localhost:50051)
  --tls             use TLS
  --ca FILE         root certificates to trust (PEM)
  --cert FILE       client certificate (PEM)
  --key FILE        private key of the client certificate (PEM)

USERPROFILE_TOKEN, if set, is sent as a bearer token.

exit status: 0 found, 2 usage error or invalid username, 3 no such user,
             4 the service is unavailable or too slow, 1 any other error
`;

const EXIT_STATUSES = new Map([
  [status.INVALID_ARGUMENT, 2],
  [status.UNAVAILABLE, 4],
  [status.DEADLINE_EXCEEDED, 4],
]);

async function main(): Promise<number> {
  const { username, client } = connect();
  try {
    const user = await client.findUser(username);
    if (!user) {
      console.error(`error: there is no user ${printable(username)}`);
      return 3;
    }
    console.log(printable(user));
    return 0;
  } catch (error) {
    if (!(error instanceof UserProfileError)) throw error;
    const { code, message, reason, requestId } = error;
    console.error(`error: ${message}`, {
      code: status[code],
      reason,
      requestId,
    });
    return EXIT_STATUSES.get(code) ?? 1;
  } finally {
    client.close();
  }
}

function connect(): { username: string; client: UserProfileClient } {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        target: { type: "string", default: process.env.USERPROFILE_TARGET },
        tls: { type: "boolean" },
        ca: { type: "string" },
        cert: { type: "string" },
        key: { type: "string" },
      },
    });
    const [command, username, ...rest] = positionals;
    if (command !== "get" || username === undefined || rest.length > 0) {
      throw new TypeError("expected get and one username");
    }
    const { target, tls, ca, cert, key } = values;
    if (!tls && (ca || cert || key))
      throw new TypeError("--ca, --cert and --key need --tls");
    const client = new UserProfileClient(target, {
      token: process.env.USERPROFILE_TOKEN,
      waitForReady: false, // people should see soon that the service is down
      tls: tls ? { ca: read(ca), cert: read(cert), key: read(key) } : undefined,
    });
    return { username, client };
  } catch (error) {
    console.error(`error: ${(error as Error).message}\n\n${USAGE}`);
    process.exit(2);
  }
}

function read(path: string | undefined): Buffer | undefined {
  return path === undefined ? undefined : readFileSync(path);
}

/** As JSON, with characters escaped that could control the terminal. */
function printable(value: unknown): string {
  return JSON.stringify(value).replace(
    /[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]/g,
    (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

process.exitCode = await main();
