package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestGet(t *testing.T) {
	if os.Getenv("USERPROFILE_TARGET") == "" {
		t.Fatal("USERPROFILE_TARGET is not set: this test needs the server of tests/client_conformance; see README.md")
	}
	tests := map[string]struct {
		args   string
		status int
		stdout string
		stderr string
	}{
		"a user":           {"get johndoe", 0, "username   \"johndoe\"\nemail      \"johndoe@example.com\"\nfull name  \"John Doe\"\ndisabled   false\n", ""},
		"unset is a dash":  {"get absent", 0, "username   \"absent\"\nemail      -\nfull name  -\ndisabled   -\n", ""},
		"nobody":           {"get nobody", 3, "", "USER_NOT_FOUND"},
		"a corrupt user":   {"get corrupt", 1, "", "CORRUPT_DOCUMENT"},
		"a bad timeout":    {"get -timeout -1s johndoe", 1, "", "the timeout must not be negative"},
		"a missing CA":     {"get -ca /nonexistent johndoe", 2, "", "reading the CA"},
		"an empty CA":      {"get -ca= johndoe", 2, "", "-ca is empty"},
		"an unknown flag":  {"get -unknown johndoe", 2, "", "-unknown"},
		"no name":          {"get", 2, "", "usage"},
		"no command":       {"", 2, "", "usage"},
		"a target in vain": {"get -target= johndoe", 1, "", "the target is empty"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := run(strings.Fields(test.args), &stdout, &stderr)
			if status != test.status {
				t.Errorf("status %d, want %d", status, test.status)
			}
			printed := stdout.Len() > 0
			if !strings.HasPrefix(stdout.String(), test.stdout) || printed != (status == 0) || !strings.Contains(stderr.String(), test.stderr) {
				t.Errorf("printed %q and %q", stdout.String(), stderr.String())
			}
		})
	}
}
