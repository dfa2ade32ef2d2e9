package userprofile.client;

/** What became of one name of a batch: a user, or why there is none. */
public sealed interface UserResult permits User, Failure {}
