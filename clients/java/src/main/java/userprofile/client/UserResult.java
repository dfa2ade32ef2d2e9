package userprofile.client;

/** The result for one username of a batch: a user or a failure. */
public sealed interface UserResult permits User, Failure {}
