//go:build unix

package node_test

// TLS for the tests with node.

import (
	"crypto/tls"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// newTLSClient returns a client that keeps its session. It connects and returns
// what the server says.
func newTLSClient(t testing.TB, address string) (connect func() string) {
	// In TLS 1.2 the ticket is part of the handshake, and does not come later.
	config := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	return func() string {
		t.Helper()
		c, err := tls.Dial("tcp", address, config)
		require.NoError(t, err)
		defer c.Close()
		b, err := io.ReadAll(c)
		require.NoError(t, err)
		return string(b)
	}
}
