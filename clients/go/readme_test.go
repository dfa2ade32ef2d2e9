package userprofile_test

import (
	"os"
	"strings"
	"testing"
)

func TestTheReadmeShowsTheExample(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```go\n")
	shown, _, found := strings.Cut(rest, "```")
	if !found || !strings.Contains(strings.ReplaceAll(string(example), "\n\t", "\n"), shown) {
		t.Error("README.md shows something other than example_test.go")
	}
}
