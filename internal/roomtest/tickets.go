package roomtest

import (
	"crypto/tls"
	"net"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// Resumes reports whether a server with the config b resumes a session of a server with the
// config a. Both get the same certificate.
func Resumes(t testing.TB, a, b *tls.Config) (resumed bool) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	client := &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1), MaxVersion: tls.VersionTLS12}
	for _, server := range []*tls.Config{a, b} {
		server.Certificates = s.TLS.Certificates
		near, far := net.Pipe()
		done := Pending(func() error { return tls.Server(far, server).Handshake() })
		c := tls.Client(near, client)
		require.NoError(t, c.Handshake())
		require.NoError(t, Result(t, done))
		resumed = c.ConnectionState().DidResume
		near.Close()
	}
	return resumed
}
