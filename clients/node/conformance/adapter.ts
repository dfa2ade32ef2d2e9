// What `make test-conformance` drives; see tests/client_conformance/README.md.
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import {
  type ReadOptions,
  status,
  type User,
  UserProfileClient,
  UserProfileError,
} from "../src/index.js";

interface Arguments {
  username?: string;
  usernames?: string[];
  fields?: NonNullable<ReadOptions["fields"]>;
  timeout_ms?: number;
}

async function respond(client: UserProfileClient, line: string) {
  const [[method, given] = [], ...more] = Object.entries(
    JSON.parse(line) as Record<string, Arguments>,
  );
  const { username, usernames, fields, timeout_ms, ...others } = given ?? {};
  const options = { fields, timeoutMs: timeout_ms };
  const known = more.length === 0 && Object.keys(others).length === 0;
  if (known && method === "get_user" && username !== undefined && !usernames) {
    try {
      return { user: inContract(await client.getUser(username, options)) };
    } catch (error) {
      return { error: failure(error) };
    }
  }
  if (known && method === "get_users" && usernames && username === undefined) {
    const results = [];
    for await (const result of client.iterUsers(usernames, options)) {
      results.push({
        username: result.username,
        ...(result.user
          ? { user: inContract(result.user) }
          : { error: failure(result.error) }),
      });
    }
    return { results };
  }
  throw new TypeError("unknown keys");
}

function inContract({ fullName, ...user }: User) {
  return { ...user, full_name: fullName };
}

function failure(error: unknown) {
  if (!(error instanceof UserProfileError)) throw error;
  const { code, reason, fieldViolations, retryable } = error;
  return {
    code: status[code],
    reason,
    field: fieldViolations[0]?.field,
    ...(retryable && { retryable }),
  };
}

const { positionals } = parseArgs({ allowPositionals: true });
await using client = new UserProfileClient(positionals[0]);
for await (const line of createInterface({ input: process.stdin })) {
  try {
    console.log(JSON.stringify(await respond(client, line)));
  } catch (error) {
    console.error(`error: not a request: ${String(error)}`);
    process.exitCode = 2;
    break;
  }
}
