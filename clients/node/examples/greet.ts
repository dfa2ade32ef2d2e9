import {
  status,
  UserProfileClient,
  UserProfileError,
} from "userprofile-client";

const client = new UserProfileClient(process.env.USERPROFILE_TARGET, {
  token: process.env.USERPROFILE_TOKEN, // none if unset
});
try {
  const user = await client.findUser("johndoe", { fields: ["fullName"] });
  // A field that the profile lacks is undefined.
  console.log(user ? `Hello, ${user.fullName ?? user.username}!` : "Nobody.");

  const users = await client.getUsers(["johndoe", "nobody", "absent"]);
  for (const [username, { email }] of users)
    console.log(username, email ?? "has no address");
} catch (error) {
  if (!(error instanceof UserProfileError)) throw error;
  const { code, reason, requestId, message } = error;
  console.error(status[code], reason, requestId, message);
  process.exitCode = 1;
} finally {
  await client.close();
}
