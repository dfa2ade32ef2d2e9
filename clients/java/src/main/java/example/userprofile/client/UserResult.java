package example.userprofile.client;

/** The result for one username among several: a user or a failure. */
public sealed interface UserResult permits User, Failure {}
