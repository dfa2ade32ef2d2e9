package userprofile

// LookInterval is shorter in tests.
var LookInterval = &lookInterval
