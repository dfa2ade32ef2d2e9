package userprofile_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	userprofile "userprofile.example/go"
)

const rotations = 10

// underLoad calls the service from many goroutines, and fails the test if any
// call fails. It is to be called with what happens meanwhile, which gets a
// function that waits for further calls.
func underLoad(t *testing.T, client *userprofile.Client, during func(more func())) {
	t.Helper()
	var calls atomic.Int64
	stop := make(chan struct{})
	failures := make(chan error, 16)
	for range cap(failures) {
		go func() {
			for {
				select {
				case <-stop:
					failures <- nil
					return
				default:
				}
				if _, err := client.GetUser(context.Background(), "johndoe"); err != nil {
					failures <- err
					return
				}
				calls.Add(1)
			}
		}()
	}
	during(func() {
		t.Helper()
		before := calls.Load()
		eventually(t, "calls succeed", func() bool { return calls.Load() > before+int64(cap(failures)) })
	})
	close(stop)
	for range cap(failures) {
		if err := <-failures; err != nil {
			t.Error(err)
		}
	}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// replaceFile puts a file into the place of another, at once.
func replaceFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func lookOften(t *testing.T) {
	t.Helper()
	usual := *userprofile.LookInterval
	*userprofile.LookInterval = 20 * time.Millisecond
	t.Cleanup(func() { *userprofile.LookInterval = usual })
}

func TestTokenFileIsReadAgainWhenItChanges(t *testing.T) {
	lookOften(t)
	server := startFakeServer(t)
	file := filepath.Join(t.TempDir(), "token")
	replaceFile(t, file, "\ufeff token0 \r\n")
	client := newClient(t, server.address, userprofile.Config{TokenFile: file})
	lastSent := func() string {
		attempts := server.attempts()
		return attempts[len(attempts)-1].Get("authorization")[0]
	}
	underLoad(t, client, func(more func()) {
		more()
		for i := range rotations {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			more()
			replaceFile(t, file, "\n")
			more()
			token := fmt.Sprintf("token%d", i+1)
			replaceFile(t, file, token+"\n")
			eventually(t, token+" is sent", func() bool { return lastSent() == "Bearer "+token })
		}
	})
	for _, attempt := range server.attempts() {
		if sent := attempt.Get("authorization"); len(sent) != 1 || !strings.HasPrefix(sent[0], "Bearer token") {
			t.Fatalf("a call came with %q", sent)
		}
	}
}

func TestTokenFileThatIsBeingWrittenIsLeftAlone(t *testing.T) {
	server := startFakeServer(t)
	file := filepath.Join(t.TempDir(), "token")
	replaceFile(t, file, "old")
	lookOften(t)
	client := newClient(t, server.address, userprofile.Config{TokenFile: file})
	*userprofile.LookInterval = 0
	replaceFile(t, file, "new")
	// As if it were a file of the next second, which is all that a look can see.
	if err := os.Chtimes(file, time.Time{}, time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := getUser(t, client); err != nil {
		t.Fatal(err)
	}
	if sent := server.attempts()[0].Get("authorization"); sent[0] != "Bearer new" {
		t.Errorf("sent %q", sent)
	}
}

func TestTokenFileWithoutATokenIsRefused(t *testing.T) {
	folder := t.TempDir()
	for name, content := range map[string]string{
		"empty":     " \n",
		"two lines": "a-secret\nanother-secret\n",
		"a space":   "a secret",
		"UTF-16":    "\xff\xfes\x00e\x00c\x00r\x00e\x00t\x00",
		"large":     strings.Repeat("secret", 20_000),
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(folder, name)
			replaceFile(t, file, content)
			_, err := userprofile.NewClient("localhost:1", userprofile.Config{TokenFile: file})
			if err == nil || !strings.Contains(err.Error(), file) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want an error with the path and nothing of the file", err)
			}
		})
	}
	for name, config := range map[string]userprofile.Config{
		"no such file":        {TokenFile: filepath.Join(folder, "missing")},
		"set one of Token":    {Token: "token", TokenFile: filepath.Join(folder, "missing")},
		"TLS or TLSFiles":     {TLS: &tls.Config{}, TLSFiles: &userprofile.TLSFiles{}},
		"reading the CA":      {TLSFiles: &userprofile.TLSFiles{CA: filepath.Join(folder, "missing")}},
		"needs both its cert": {TLSFiles: &userprofile.TLSFiles{Key: filepath.Join(folder, "missing")}},
	} {
		if _, err := userprofile.NewClient("localhost:1", config); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want it to say %q", err, name)
		}
	}
}

func TestTokenFileIsNotSentToAnotherMachineInPlaintext(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	replaceFile(t, file, "secret")
	if client, err := userprofile.NewClient("192.0.2.1:50051", userprofile.Config{TokenFile: file}); err == nil {
		client.Close()
		t.Error("the token would go to another machine")
	}
	server := startFakeServer(t)
	checkToken(t, server, newClient(t, server.address, userprofile.Config{TokenFile: file}))
}

func TestTheNameOfTheServersCertificateMayBeGiven(t *testing.T) {
	a := newAuthority(t) // whose servers are 127.0.0.1
	server := a.startTLSServer(t, tls.NoClientCert)
	target := strings.Replace(server.address, "127.0.0.1", "localhost", 1)
	config := userprofile.Config{FailFast: true, TLSFiles: &userprofile.TLSFiles{CA: a.ca}}
	checkNeverCalled(t, server, newClient(t, target, config))
	config.TLSFiles.ServerName = "127.0.0.1"
	if err := getUser(t, newClient(t, target, config)); err != nil {
		t.Error(err)
	}
}

// The server has new certificates and trusts a new CA each time, connections
// live for a moment, and the client's files are replaced one after the other.
func TestTLSFilesAreReadForEachConnection(t *testing.T) {
	var current atomic.Pointer[authority]
	var caller atomic.Pointer[string]
	change := func() authority {
		a := newAuthority(t)
		current.Store(&a)
		return a
	}
	first := change()
	files := userprofile.TLSFiles{
		CA:   filepath.Join(t.TempDir(), "ca.pem"),
		Cert: filepath.Join(t.TempDir(), "client.pem"),
		Key:  filepath.Join(t.TempDir(), "client.key"),
	}
	write := func(a authority) {
		replaceFile(t, files.CA, read(t, a.ca))
		replaceFile(t, files.Cert, read(t, a.clientCert))
		replaceFile(t, files.Key, read(t, a.clientKey))
	}
	write(first)
	server := startFakeServer(t,
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 30 * time.Millisecond, MaxConnectionAgeGrace: time.Minute}),
		grpc.Creds(credentials.NewTLS(&tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			a := current.Load()
			pair, err := tls.LoadX509KeyPair(a.serverCert, a.serverKey)
			return &tls.Config{
				Certificates: []tls.Certificate{pair},
				ClientAuth:   tls.RequireAndVerifyClientCert,
				ClientCAs:    loadTLS(t, a.ca, "", "").RootCAs,
				NextProtos:   []string{"h2"},
				VerifyPeerCertificate: func(_ [][]byte, chains [][]*x509.Certificate) error {
					shown := string(chains[0][0].Raw)
					caller.Store(&shown)
					return nil
				},
			}, err
		}})),
	)
	client := newClient(t, server.address, userprofile.Config{TLSFiles: &files, Timeout: time.Minute})
	underLoad(t, client, func(more func()) {
		more()
		for range rotations {
			a := change() // whoever connects now waits for the client's files
			write(a)
			own, err := tls.LoadX509KeyPair(a.clientCert, a.clientKey)
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the new certificate is shown", func() bool { return *caller.Load() == string(own.Certificate[0]) })
			more()
			replaceFile(t, files.Key, "") // half of a pair: the last good one goes on
			more()
			replaceFile(t, files.Key, read(t, a.clientKey))
		}
	})
}
