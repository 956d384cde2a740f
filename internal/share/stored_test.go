package share

import (
	"strings"
	"testing"

	"github.com/go-cluster/cluster/internal/socket"
	"github.com/stretchr/testify/require"
)

// TestStoreName: as systemd wants it, and another one for each address.
func TestStoreName(t *testing.T) {
	long := "/" + strings.Repeat("x", 250)
	seen := make(map[string]bool)
	for _, c := range []struct {
		network, literal string
		index            int
		want             string
	}{
		{"tcp4", "127.0.0.1:80", 0, "cluster-tcp4-127.0.0.1%3A80"},
		{"tcp6", "[fe80::1%eth0]:80", 0, "cluster-tcp6-[fe80%3A%3A1%25eth0]%3A80"},
		{"tcp", ":0", 0, "cluster-tcp-%3A0#0"},
		{"tcp", ":0", 1, "cluster-tcp-%3A0#1"},
		{"unix", "/a:b c", 0, "cluster-unix-/a%3Ab%20c"},
		{"unix", "/a%3Ab c", 0, "cluster-unix-/a%253Ab%20c"},
		{"unix", "/ä\n", 0, "cluster-unix-/%C3%A4%0A"},
		{"unix", "@abstract", 0, "cluster-unix-@abstract"},
		{"unix", long + "1", 0, ""},
		{"unix", long + "2", 0, ""},
	} {
		name := storeName(socket.Address{Network: c.network, Literal: c.literal, Index: c.index})
		if c.want != "" {
			require.Equal(t, c.want, name)
		}
		require.LessOrEqual(t, len(name), 255)
		require.False(t, seen[name], name)
		seen[name] = true
	}
}
