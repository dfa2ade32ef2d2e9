package userprofile

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// clockSkew allows for new certificates from a machine whose clock is ahead.
const clockSkew = 5 * time.Minute

// LoadTLS reads [Config.TLS] from PEM files. Without a caFile, the system's
// root certificates are trusted. certFile and keyFile are the client's
// certificate for mutual TLS; give both or neither.
//
// The error says why a file can't be used, for example because the certificate
// has expired. At least one of the authorities in caFile must be valid.
func LoadTLS(caFile, certFile, keyFile string) (*tls.Config, error) {
	config, err := TLSFiles{CA: caFile, Cert: certFile, Key: keyFile}.load()
	if err != nil {
		return nil, fmt.Errorf("userprofile: %w", err)
	}
	return config, nil
}

func (f TLSFiles) load() (*tls.Config, error) {
	config := &tls.Config{ServerName: f.ServerName}
	if f.CA != "" {
		roots, err := loadAuthorities(f.CA)
		if err != nil {
			return nil, fmt.Errorf("reading the CA: %w", err)
		}
		config.RootCAs = roots
	}
	if (f.Cert == "") != (f.Key == "") {
		return nil, errors.New("a client certificate needs both its certificate and its key")
	}
	if f.Cert != "" {
		pair, err := loadPair(f.Cert, f.Key)
		if err != nil {
			return nil, fmt.Errorf("reading the client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// loadAuthorities fails on a damaged certificate, which
// [x509.CertPool.AppendCertsFromPEM] would skip.
func loadAuthorities(file string) (*x509.CertPool, error) {
	blocks, err := readPEM(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	var certificates, roots int
	var usable bool
	var problem error
	for _, block := range blocks {
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificates++
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d is damaged: %w", file, certificates, err)
		}
		pool.AddCert(certificate)
		// One that has signed itself may be trusted as it is.
		if certificate.IsCA || bytes.Equal(certificate.RawIssuer, certificate.RawSubject) {
			roots++
			if problem = checkValidity(certificate); problem == nil {
				usable = true
			}
		}
	}
	switch {
	case certificates == 0:
		return nil, fmt.Errorf("%s holds a %s, not a certificate", file, strings.ToLower(blocks[0].Type))
	case roots == 0:
		return nil, fmt.Errorf("%s holds a certificate issued by an authority, not the authority's own", file)
	case !usable:
		return nil, fmt.Errorf("%s: %w", file, problem)
	}
	return pool, nil
}

func loadPair(certFile, keyFile string) (tls.Certificate, error) {
	if _, err := readPEM(certFile); err != nil {
		return tls.Certificate{}, err
	}
	keys, err := readPEM(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	for _, block := range keys {
		if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
			return tls.Certificate{}, fmt.Errorf("the key in %s is encrypted; decrypt it first", keyFile)
		}
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return pair, fmt.Errorf("%s and %s: %w", certFile, keyFile, err)
	}
	if err := checkValidity(pair.Leaf); err != nil {
		return pair, fmt.Errorf("%s: %w", certFile, err)
	}
	if !isForClients(pair.Leaf) {
		return pair, fmt.Errorf("%s: its extended key usage lacks clientAuth, so it isn't one for a client", certFile)
	}
	return pair, nil
}

// isForClients follows RFC 5280, 4.2.1.12. A server cuts off a client with
// another certificate, and only the server's log says why.
func isForClients(certificate *x509.Certificate) bool {
	usages := certificate.ExtKeyUsage
	return len(usages)+len(certificate.UnknownExtKeyUsage) == 0 ||
		slices.Contains(usages, x509.ExtKeyUsageClientAuth) || slices.Contains(usages, x509.ExtKeyUsageAny)
}

// readPEM returns at least one block.
func readPEM(file string) ([]*pem.Block, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(content)) == 0 {
		return nil, fmt.Errorf("%s is empty", file)
	}
	var blocks []*pem.Block
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		blocks = append(blocks, block)
	}
	// A block that can't be decoded would be passed over.
	if begun := bytes.Count(content, []byte("-----BEGIN ")); begun != len(blocks) {
		return nil, fmt.Errorf("%s is damaged: %d of its %d PEM blocks can't be read", file, begun-len(blocks), begun)
	}
	if len(blocks) == 0 {
		return nil, fmt.Errorf("%s isn't PEM", file)
	}
	return blocks, nil
}

func checkValidity(certificate *x509.Certificate) error {
	now := time.Now()
	if now.After(certificate.NotAfter) {
		return fmt.Errorf("the certificate expired at %s", certificate.NotAfter.Format(time.RFC3339))
	}
	if now.Add(clockSkew).Before(certificate.NotBefore) {
		return fmt.Errorf("the certificate isn't valid before %s", certificate.NotBefore.Format(time.RFC3339))
	}
	return nil
}
