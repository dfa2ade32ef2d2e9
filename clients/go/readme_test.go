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
	example, err := os.ReadFile("examples/get/main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```go\n")
	if shown, _, _ := strings.Cut(rest, "```"); shown != string(example) {
		t.Error("README.md shows something other than examples/get/main.go")
	}
}
