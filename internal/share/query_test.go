package share

import (
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-cluster/cluster/internal/socket"
	"github.com/go-cluster/cluster/internal/wire"
	"github.com/stretchr/testify/require"
)

// resolved is a query for the address with nothing special about it.
func resolved(t testing.TB, network, address string) Query {
	t.Helper()
	a, err := socket.Resolve(network, address, false, socket.Options{})
	require.NoError(t, err)
	return Query{Address: a}
}

// reread is w as it arrives at the other side.
func reread(t testing.TB, w *wire.Message) *wire.Message {
	t.Helper()
	var again wire.Message
	require.NoError(t, json.Unmarshal(w.Line(), &again))
	return &again
}

// An address survives the way over the wire, with all its options.
func TestQuery(t *testing.T) {
	for _, test := range []struct {
		network, address string
		v6only           bool
	}{
		{"tcp", ":80", false}, {"tcp", ":80", true}, {"tcp4", ":80", false}, {"tcp6", ":80", false},
		{"tcp", "127.0.0.1:80", false}, {"tcp", "[::ffff:127.0.0.1]:80", false}, {"tcp", "[::1]:80", true}, {"tcp", ":0", false},
		{"udp", ":53", false}, {"udp6", "[::]:53", false}, {"udp4", "127.0.0.1:0", false}, {"udp", "239.1.2.3:9", false}, {"udp", "[ff02::1]:9", false}, {"tcp", "[fe80::1%x]:80", false},
		{"unix", "s", false}, {"unix", "@name/../x", false}, {"unixgram", "@name", false},
	} {
		for _, o := range []socket.Options{{}, {Backlog: 7, Multipath: true, Mode: 0o640, Owner: &socket.Owner{UID: 3, GID: -1}}} {
			a, err := socket.Resolve(test.network, test.address, test.v6only, o)
			require.NoError(t, err)
			a.Index = 3
			asked := Query{Address: a, Policy: ByClient, Shards: 9}
			heard, err := readQuery(reread(t, asked.message()))
			require.NoError(t, err, test)
			require.Equal(t, asked, heard)
		}
	}
}

// The report that an address is open tells the real one.
func TestReport(t *testing.T) {
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
		addr, err := Reported(reread(t, Report(resolved(t, test.network, test.address).Address, test.real)))
		require.NoError(t, err)
		require.Equal(t, test.want, addr.Network()+" "+addr.String())
	}
}

// A node worker's questions are read as node means them.
func TestQueryOfNode(t *testing.T) {
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
		q, err := readQuery(&w)
		require.NoError(t, err, test.query)
		require.Equal(t, test.key, q.Key())
		require.Equal(t, test.backlog, q.Backlog)
	}
	for _, bad := range []string{
		`{"port":70000,"addressType":4}`, `{"port":-1,"addressType":4}`, `{"port":1,"addressType":"sctp"}`,
		`{"port":1,"addressType":4,"address":"example.com"}`, `{"addressType":-1}`, `{"addressType":-1,"address":""}`,
		`{"port":1,"addressType":{}}`, `{"address":"127.0.0.1","port":1,"addressType":4,"flags":1}`,
		`{"port":1,"addressType":4,"go":{"scheduling":9}}`,
	} {
		var w wire.Message
		require.NoError(t, json.Unmarshal([]byte(bad), &w))
		_, err := readQuery(&w)
		require.Error(t, err, bad)
	}
}

// TestLibuvName: each version has its own way with an abstract name.
func TestLibuvName(t *testing.T) {
	padded := "@abs" + strings.Repeat("\x00", 104)
	for version, want := range map[string]string{
		"1.44.2": "@" + strings.Repeat("\x00", 107), "1.46.0": padded, "1.47.0": padded, "1.48.0": "@abs", "1.51.1-dev": "@abs", "2.0": "@abs", "": "@abs", "x": "@abs",
	} {
		require.Equal(t, want, libuvName("@abs", version), version)
	}
	long := "@" + strings.Repeat("x", 200)
	require.Equal(t, long, libuvName(long, "1.46.0"))
}
