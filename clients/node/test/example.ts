import {
  status,
  type UserProfileClient,
  UserProfileError,
} from "userprofile-client";

export async function greeting(
  client: UserProfileClient,
  username: string,
): Promise<string> {
  try {
    const user = await client.findUser(username, { timeoutMs: 2000 });
    if (!user) return `Nobody is called ${username}.`;
    return `Hello, ${user.fullName ?? user.username}!`; // undefined if it has no value
  } catch (error) {
    if (!(error instanceof UserProfileError)) throw error;
    return `${status[error.code]} ${error.reason}, request ${error.requestId}: ${error.message}`;
  }
}

export async function emailAddresses(
  client: UserProfileClient,
  usernames: string[],
): Promise<string[]> {
  const results = await client.batchGetUsers(usernames);
  return results.flatMap(({ user, error }) => {
    if (error) console.warn(`skipped: ${error.reason}`);
    return user?.email ?? [];
  });
}
