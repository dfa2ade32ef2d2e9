package userprofile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"
)

// lookInterval is how often a file is looked at, at most, and for how long it
// must have been left alone before it is read again.
var lookInterval = time.Second

// maxTokenBytes is more than metadata can carry.
const maxTokenBytes = 64 * 1024

var errBadToken = errors.New("the token is empty, or contains whitespace or another character that is not allowed in tokens")

// tokenFile is a token in a file that is renewed there.
type tokenFile struct {
	path string

	mutex sync.Mutex
	look  time.Time   // the last one
	read  os.FileInfo // when the file was read
	token string
}

func newTokenFile(path string) (*tokenFile, error) {
	info, err := os.Stat(path) // before reading: what is written meanwhile is a change
	if err != nil {
		return nil, fmt.Errorf("the token file: %w", err)
	}
	token, err := readToken(path)
	if err != nil {
		return nil, fmt.Errorf("the token file: %w", err)
	}
	return &tokenFile{path: path, look: time.Now(), read: info, token: token}, nil
}

// current returns the token in the file, or the last one if there is none now.
func (f *tokenFile) current() string {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	now := time.Now()
	if now.Sub(f.look) < lookInterval {
		return f.token
	}
	f.look = now
	info, err := os.Stat(f.path)
	if err != nil || !info.Mode().IsRegular() || unchanged(f.read, info) {
		return f.token
	}
	if age := now.Sub(info.ModTime()); age >= 0 && age < lookInterval {
		return f.token // it may be half of what it is going to be
	}
	if token, err := readToken(f.path); err == nil {
		f.token, f.read = token, info
	}
	return f.token
}

func unchanged(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// readToken returns errors that say nothing of what is in the file.
func readToken(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxTokenBytes+1))
	if err != nil {
		return "", err
	}
	if len(content) > maxTokenBytes {
		return "", fmt.Errorf("%s is larger than any token (%d bytes)", path, maxTokenBytes)
	}
	// What editors, shells and secret stores put around a value.
	token := strings.TrimFunc(string(content), func(r rune) bool { return unicode.IsSpace(r) || r == '\ufeff' })
	if err := checkToken(token); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return token, nil
}

func checkToken(token string) error {
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errBadToken
	}
	return nil
}
