//go:build unix

package main

import (
	"bufio"
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// makeCertificate makes the certificate of the hellos that do TLS.
func makeCertificate(t *testing.T) {
	cert, key := clustertest.Certificate(t)
	for name, content := range map[string][]byte{"CERT": cert, "KEY": key} {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(path, content, 0o600))
		t.Setenv(name, path)
	}
}

// dialTLS is dial, of a session of HTTP, with TLS.
func dialTLS(dial func(addr string) (session, error)) func(addr string) (session, error) {
	return func(addr string) (session, error) {
		s, err := dial(addr)
		if err != nil {
			return nil, err
		}
		h := s.(*httpSession)
		c := tls.Client(h.Conn, &tls.Config{InsecureSkipVerify: true})
		h.stream = &stream{c, bufio.NewReader(c)}
		return h, nil
	}
}
