package cluster

import (
	"encoding/json"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/go-cluster/cluster/internal/wire"
)

// Every spelling of an address that means the same socket has the same key, and
// survives the way over the wire.
func TestTargetSpellings(t *testing.T) {
	abs, err := filepath.Abs("s")
	require.NoError(t, err)
	tests := []struct {
		network, address string
		lc               ListenConfig
		key              string
	}{
		{"tcp", ":80", ListenConfig{}, "tcp :80"},
		{"tcp", "0.0.0.0:80", ListenConfig{}, "tcp :80"},
		{"tcp", "[::]:http", ListenConfig{}, "tcp :80"},
		{"tcp", ":80", ListenConfig{IPv6Only: true}, "tcp6 [::]:80"},
		{"tcp6", ":80", ListenConfig{}, "tcp6 [::]:80"},
		{"tcp4", ":80", ListenConfig{}, "tcp4 0.0.0.0:80"},
		{"tcp", "127.0.0.1:80", ListenConfig{}, "tcp4 127.0.0.1:80"},
		{"tcp", "[::ffff:127.0.0.1]:80", ListenConfig{}, "tcp4 127.0.0.1:80"},
		{"tcp", "[0:0::1]:080", ListenConfig{}, "tcp6 [::1]:80"},
		{"tcp", "[::1]:80", ListenConfig{IPv6Only: true}, "tcp6 [::1]:80"},
		{"tcp", ":0", ListenConfig{}, "tcp :0#0"},
		{"udp", ":53", ListenConfig{}, "udp :53"},
		{"udp6", "[::]:53", ListenConfig{}, "udp6 [::]:53"},
		{"udp4", "127.0.0.1:0", ListenConfig{}, "udp4 127.0.0.1:0#0"},
		{"unix", "s", ListenConfig{}, "unix " + abs},
		{"unix", abs + "/../s", ListenConfig{}, "unix " + abs},
		{"unix", "@name/../x", ListenConfig{}, "unix @name/../x"},
		{"unixgram", "@name", ListenConfig{}, "unixgram @name"},
	}
	for _, test := range tests {
		a, err := newTarget(test.network, test.address, test.lc)
		require.NoError(t, err, test)
		require.Equal(t, test.key, a.Key(), test)

		var w wire.Message
		require.NoError(t, json.Unmarshal(a.query().Line(), &w))
		b, err := queryTarget(&w)
		require.NoError(t, err, test)
		require.Equal(t, a, b, "as the master reads it")
	}
}

// The report that an address is open tells the real one.
func TestTargetListening(t *testing.T) {
	ip := func(s string) net.IP { return net.ParseIP(s) }
	for _, test := range []struct {
		network, address string
		real             net.Addr
		want             string
	}{
		{"tcp", ":0", &net.TCPAddr{IP: ip("::"), Port: 5}, "tcp [::]:5"},
		{"tcp4", ":0", &net.TCPAddr{IP: ip("0.0.0.0"), Port: 5}, "tcp 0.0.0.0:5"},
		{"tcp6", "[::1]:0", &net.TCPAddr{IP: ip("::1"), Port: 5}, "tcp [::1]:5"},
		{"udp", ":0", &net.UDPAddr{IP: ip("::"), Port: 5}, "udp [::]:5"},
		{"udp4", "127.0.0.1:0", &net.UDPAddr{IP: ip("127.0.0.1"), Port: 5}, "udp 127.0.0.1:5"},
		{"unix", "a/b", &net.UnixAddr{Name: "/x/a/b", Net: "unix"}, "unix a/b"},
		{"unixgram", "@n", &net.UnixAddr{Name: "@n", Net: "unixgram"}, "unixgram @n"},
	} {
		tgt, err := newTarget(test.network, test.address, ListenConfig{})
		require.NoError(t, err)
		var w wire.Message
		require.NoError(t, json.Unmarshal(tgt.listening(test.real).Line(), &w))
		addr, err := listeningAddr(&w)
		require.NoError(t, err)
		require.Equal(t, test.want, addr.Network()+" "+addr.String())
	}
}

// A node worker's queries are read as node means them.
func TestTargetOfNode(t *testing.T) {
	slashAbs, err := filepath.Abs("/abs/x.sock") // with a drive before it on Windows
	require.NoError(t, err)
	for _, test := range []struct {
		query   string
		key     string
		backlog int
	}{
		{`{"address":null,"port":8000,"addressType":4,"backlog":0}`, "tcp :8000", 0},
		{`{"address":"127.0.0.1","port":0,"addressType":4,"flags":0,"backlog":77,"index":2}`, "tcp4 127.0.0.1:0#2", 77},
		{`{"address":"127.0.0.1","port":81,"addressType":4,"backlog":false}`, "tcp4 127.0.0.1:81", 0},
		{`{"address":"::","port":81,"addressType":6,"flags":1}`, "tcp6 [::]:81", 0},
		{`{"address":"::","port":81,"addressType":6,"backlog":511}`, "tcp :81", 511},
		{`{"address":"/abs/x.sock","port":-1,"addressType":-1}`, "unix " + slashAbs, 0},
		{`{"address":"/cwd/\u0000abs-x","port":-1,"addressType":-1}`, "unix @abs-x", 0},
		{`{"address":"0.0.0.0","port":53,"addressType":"udp4","fd":-1,"flags":0}`, "udp4 0.0.0.0:53", 0},
		{`{"address":null,"port":null,"addressType":null,"fd":5}`, "tcp fd 5", 0},
		{`{"address":null,"port":80,"addressType":4,"backlog":1e300}`, "tcp :80", maxBacklog},
	} {
		var w wire.Message
		require.NoError(t, json.Unmarshal([]byte(test.query), &w))
		tgt, err := queryTarget(&w)
		require.NoError(t, err, test.query)
		require.Equal(t, test.key, tgt.Key())
		require.Equal(t, test.backlog, tgt.Backlog)
	}
	for _, bad := range []string{
		`{"port":70000,"addressType":4}`, `{"port":-1,"addressType":4}`, `{"port":1,"addressType":"sctp"}`,
		`{"port":1,"addressType":4,"address":"example.com"}`, `{"addressType":-1}`, `{"addressType":-1,"address":""}`,
		`{"port":1,"addressType":{}}`, `{"address":"127.0.0.1","port":1,"addressType":4,"flags":1}`,
	} {
		var w wire.Message
		require.NoError(t, json.Unmarshal([]byte(bad), &w))
		_, err := queryTarget(&w)
		require.Error(t, err, bad)
	}
}
