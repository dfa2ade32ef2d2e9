package userprofile_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	userprofile "userprofile.example/go"
	userprofilev1 "userprofile.example/go/gen/userprofile/v1"
)

// A real server that knows its callers; see tests/client_conformance/identities.py.
func TestIdentities(t *testing.T) {
	folder := needEnv(t, "USERPROFILE_IDENTITIES")
	content := func(name string) string {
		content, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	connect := func(address, token string, certificate ...string) *userprofile.Client {
		files := append(certificate, "", "")
		for i, name := range files {
			if name != "" {
				files[i] = filepath.Join(folder, name)
			}
		}
		tls, err := userprofile.LoadTLS(filepath.Join(folder, "ca.pem"), files[0], files[1])
		if err != nil {
			t.Fatal(err)
		}
		return newClient(t, content(address), userprofile.Config{Token: token, TLS: tls, Timeout: time.Minute})
	}
	t.Run("a token over TLS", func(t *testing.T) {
		user, err := connect("tls", content("token")).GetUser(t.Context(), "johndoe")
		if err != nil || user.GetEmail() != "johndoe@example.com" {
			t.Errorf("got %v, %v", user, err)
		}
	})
	t.Run("a certificate", func(t *testing.T) {
		client := connect("mtls", "", "caller.pem", "caller.key")
		user, err := client.GetUser(t.Context(), "johndoe")
		if err != nil || user.GetFullName() != "John Doe" || user.Email != nil {
			t.Errorf("got %v, %v", user, err)
		}
		_, err = client.GetUser(t.Context(), "johndoe", userprofile.WithFields("email"))
		wantFailure(t, err, codes.PermissionDenied, userprofilev1.ErrorReason_ERROR_REASON_CALLER_NOT_ALLOWED)
	})
	t.Run("neither", func(t *testing.T) {
		for _, token := range []string{"", "wrong"} {
			_, err := connect("tls", token).GetUser(t.Context(), "johndoe")
			wantFailure(t, err, codes.Unauthenticated, userprofilev1.ErrorReason_ERROR_REASON_CALLER_UNKNOWN)
		}
	})
}

func wantFailure(t *testing.T, err error, code codes.Code, reason userprofilev1.ErrorReason) {
	t.Helper()
	failure, ok := asError(err)
	if !ok || failure.Code != code || failure.Reason != userprofile.Reason(reason) || failure.Retryable {
		t.Errorf("got %v", err)
	}
}
