package userprofile_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	userprofile "userprofile.example/go"
)

// authority is a CA with one certificate for servers and one for clients, all
// in PEM files.
type authority struct {
	ca, serverCert, serverKey, clientCert, clientKey string
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	folder := t.TempDir()
	root := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "test CA"},
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	rootKey := newKey(t)
	issue := func(name string, template *x509.Certificate, key *ecdsa.PrivateKey) (certFile, keyFile string) {
		cert, err := x509.CreateCertificate(rand.Reader, template, root, key.Public(), rootKey)
		if err != nil {
			t.Fatal(err)
		}
		encodedKey, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return writePEM(t, filepath.Join(folder, name+".crt"), "CERTIFICATE", cert),
			writePEM(t, filepath.Join(folder, name+".key"), "PRIVATE KEY", encodedKey)
	}
	leaf := func(usage x509.ExtKeyUsage) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(2),
			NotAfter:     time.Now().Add(time.Hour),
			IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
			ExtKeyUsage:  []x509.ExtKeyUsage{usage},
		}
	}
	var a authority
	a.ca, _ = issue("ca", root, rootKey)
	a.serverCert, a.serverKey = issue("server", leaf(x509.ExtKeyUsageServerAuth), newKey(t))
	a.clientCert, a.clientKey = issue("client", leaf(x509.ExtKeyUsageClientAuth), newKey(t))
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writePEM(t *testing.T, file, kind string, content []byte) string {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// startTLSServer requests client certificates if clientAuth says so.
func (a authority) startTLSServer(t *testing.T, clientAuth tls.ClientAuthType) *fakeServer {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(a.serverCert, a.serverKey)
	if err != nil {
		t.Fatal(err)
	}
	return startFakeServer(t, grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair},
		ClientAuth:   clientAuth,
		ClientCAs:    loadTLS(t, a.ca, "", "").RootCAs,
	})))
}

func loadTLS(t *testing.T, ca, cert, key string) *tls.Config {
	t.Helper()
	config, err := userprofile.LoadTLS(ca, cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func checkToken(t *testing.T, server *fakeServer, client *userprofile.Client) {
	t.Helper()
	if err := getUser(t, client); err != nil {
		t.Fatal(err)
	}
	if got := server.attempts()[0].Get("authorization"); len(got) != 1 || got[0] != "Bearer secret" {
		t.Errorf("the server was sent authorization %q", got)
	}
}

func checkNeverCalled(t *testing.T, server *fakeServer, client *userprofile.Client) {
	t.Helper()
	if err := getUser(t, client); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want Unavailable", err)
	}
	if len(server.attempts()) != 0 {
		t.Error("the call reached the server")
	}
}

func TestTLSWithOwnCAAndToken(t *testing.T) {
	a := newAuthority(t)
	server := a.startTLSServer(t, tls.NoClientCert)
	checkToken(t, server, newClient(t, server.address, userprofile.Config{TLS: loadTLS(t, a.ca, "", ""), Token: "secret"}))
}

func TestTLSRefusesAServerOfAnotherCA(t *testing.T) {
	server := newAuthority(t).startTLSServer(t, tls.NoClientCert)
	for name, ca := range map[string]string{"the system's": "", "another": newAuthority(t).ca} {
		t.Run(name, func(t *testing.T) {
			checkNeverCalled(t, server, newClient(t, server.address, userprofile.Config{FailFast: true, TLS: loadTLS(t, ca, "", "")}))
		})
	}
}

func TestMutualTLS(t *testing.T) {
	a := newAuthority(t)
	server := a.startTLSServer(t, tls.RequireAndVerifyClientCert)
	checkNeverCalled(t, server, newClient(t, server.address, userprofile.Config{FailFast: true, TLS: loadTLS(t, a.ca, "", "")}))
	if err := getUser(t, newClient(t, server.address, userprofile.Config{TLS: loadTLS(t, a.ca, a.clientCert, a.clientKey)})); err != nil {
		t.Error(err)
	}
}

func TestLoadTLSRefusesBadFiles(t *testing.T) {
	a := newAuthority(t)
	folder := t.TempDir()
	write := func(name string, parts ...string) string {
		file := filepath.Join(folder, name)
		if err := os.WriteFile(file, []byte(strings.Join(parts, "")), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	ca, key := read(t, a.ca), read(t, a.clientKey)
	damaged := strings.Replace(ca, strings.Split(ca, "\n")[2], strings.Repeat("A", 64), 1)
	body := key[strings.Index(key, "\n"):strings.Index(key, "-----END")]
	now := time.Now()
	oldCA, oldKey := selfSigned(t, now.Add(-48*time.Hour), now.Add(-time.Hour))
	youngCA, youngKey := selfSigned(t, now.Add(time.Hour), now.Add(48*time.Hour))
	tests := map[string]struct {
		ca, cert, key string
		says          string
	}{
		"no such CA":                {filepath.Join(folder, "missing"), "", "", "no such file"},
		"a folder":                  {folder, "", "", "is a directory"},
		"an empty CA":               {write("empty"), "", "", "is empty"},
		"a blank CA":                {write("blank", " \r\n"), "", "", "is empty"},
		"garbage":                   {write("garbage", "garbage"), "", "", "isn't PEM"},
		"a CA that is a key":        {a.clientKey, "", "", "holds a private key, not a certificate"},
		"a CA that is none":         {a.serverCert, "", "", "not the authority's own"},
		"a damaged CA":              {write("damaged.pem", damaged), "", "", "certificate 1 is damaged"},
		"a CA and a damaged one":    {write("two.pem", ca, damaged), "", "", "certificate 2 is damaged"},
		"a CA that is cut off":      {write("cut.pem", ca, ca[:len(ca)/2]), "", "", "1 of its 2 PEM blocks"},
		"a byte order mark between": {write("bom.pem", ca, "\ufeff", ca), "", "", "1 of its 2 PEM blocks"},
		"an expired CA":             {oldCA, "", "", "expired at"},
		"a CA that isn't valid yet": {youngCA, "", "", "isn't valid before"},
		"no such certificate":       {"", filepath.Join(folder, "missing"), a.clientKey, "no such file"},
		"no key":                    {"", a.clientCert, "", "both"},
		"no certificate":            {"", "", a.clientKey, "both"},
		"another's key":             {"", a.clientCert, a.serverKey, "does not match"},
		"an empty certificate":      {"", write("empty"), a.clientKey, "is empty"},
		"an empty key":              {"", a.clientCert, write("empty"), "is empty"},
		"a certificate as the key":  {"", a.clientCert, a.clientCert, "a certificate rather than a key"},
		"an encrypted key":          {"", a.clientCert, write("1.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----", body, "-----END ENCRYPTED PRIVATE KEY-----\n"), "is encrypted"},
		"an older encrypted key":    {"", a.clientCert, write("2.key", "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n", body, "-----END EC PRIVATE KEY-----\n"), "is encrypted"},
		"an expired certificate":    {"", oldCA, oldKey, "expired at"},
		"one that isn't valid yet":  {"", youngCA, youngKey, "isn't valid before"},
		"a server's certificate":    {"", a.serverCert, a.serverKey, "lacks clientAuth"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := userprofile.LoadTLS(test.ca, test.cert, test.key)
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want it to say %q", err, test.says)
			}
			if err != nil && strings.Contains(err.Error(), strings.TrimSpace(body)[:40]) {
				t.Error("the error has the key in it")
			}
		})
	}
	loadTLS(t, write("one expired.pem", read(t, oldCA), ca), "", "")
	loadTLS(t, write("crlf.pem", "# A comment\r\n", strings.ReplaceAll(ca, "\n", "\r\n")), "", "")
}

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func selfSigned(t *testing.T, notBefore, notAfter time.Time) (certFile, keyFile string) {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(3), NotBefore: notBefore, NotAfter: notAfter}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	encodedKey, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	return writePEM(t, filepath.Join(folder, "cert.pem"), "CERTIFICATE", cert),
		writePEM(t, filepath.Join(folder, "key.pem"), "PRIVATE KEY", encodedKey)
}

func TestTokenOverPlaintextToThisMachine(t *testing.T) {
	server := startFakeServer(t)
	checkToken(t, server, newClient(t, server.address, userprofile.Config{Token: "secret"}))
	for _, target := range []string{"localhost", "LocalHost:50051", "[::1]:50051", "dns:///localhost:50051", "unix:/run/userprofile.sock"} {
		newClient(t, target, userprofile.Config{Token: "secret"})
	}
}

func TestTokenOverPlaintextToAnotherMachineIsRefused(t *testing.T) {
	for _, target := range []string{
		"192.0.2.1:50051",
		"[2001:db8::1]:50051",
		"users.example:50051",
		"localhost.example:50051",
		"127.0.0.1.example:50051",
		"unix.example:50051",
		"dns:///users.example:50051",
		"dns://192.0.2.1/localhost:50051",
		"passthrough:///192.0.2.1:50051",
	} {
		if client, err := userprofile.NewClient(target, userprofile.Config{Token: "secret"}); err == nil {
			client.Close()
			t.Errorf("the token would go to %s", target)
		}
	}
}

func TestTokenOverPlaintextToAnotherMachineIfAskedFor(t *testing.T) {
	server := startFakeServer(t)
	checkToken(t, server, newClient(t, "passthrough:///192.0.2.1:50051", userprofile.Config{
		Token:               "secret",
		AllowPlaintextToken: true,
		DialOptions:         []grpc.DialOption{dialInstead(server)},
	}))
}

// A hosts file or a search domain can make localhost any machine.
func TestTokenIsNotSentWhereLocalhostIsAnotherMachine(t *testing.T) {
	server := startFakeServer(t)
	checkNeverCalled(t, server, newClient(t, "localhost:50051", userprofile.Config{
		FailFast:    true,
		Token:       "secret",
		DialOptions: []grpc.DialOption{dialInstead(server)},
	}))
}

// dialInstead connects to the server, and says that it was another machine.
func dialInstead(server *fakeServer) grpc.DialOption {
	return grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", server.address)
		return remoteConn{conn}, err
	})
}

type remoteConn struct{ net.Conn }

func (remoteConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 50051}
}
