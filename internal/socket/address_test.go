package socket

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every spelling of an address that means the same socket has the same key.
func TestSpellings(t *testing.T) {
	abs, err := filepath.Abs("s")
	require.NoError(t, err)
	for _, test := range []struct {
		network, address string
		v6only           bool
		key              string
	}{
		{"tcp", ":80", false, "tcp :80"},
		{"tcp", "0.0.0.0:80", false, "tcp :80"},
		{"tcp", "[::]:http", false, "tcp :80"},
		{"tcp", ":80", true, "tcp6 [::]:80"},
		{"tcp6", ":80", false, "tcp6 [::]:80"},
		{"tcp4", ":80", false, "tcp4 0.0.0.0:80"},
		{"tcp", "127.0.0.1:80", false, "tcp4 127.0.0.1:80"},
		{"tcp", "[::ffff:127.0.0.1]:80", false, "tcp4 127.0.0.1:80"},
		{"tcp", "[0:0::1]:080", false, "tcp6 [::1]:80"},
		{"tcp", "[::1]:80", true, "tcp6 [::1]:80"},
		{"tcp", ":0", false, "tcp :0#0"},
		{"udp", ":53", false, "udp :53"},
		{"udp6", "[::]:53", false, "udp6 [::]:53"},
		{"udp4", "127.0.0.1:0", false, "udp4 127.0.0.1:0#0"},
		{"udp", "239.1.2.3:53", false, "udp4 0.0.0.0:53"},
		{"udp", "[ff02::1%7777]:53", false, "udp6 [::]:53"},
		{"tcp", "[fe80::1%7777]:80", false, "tcp6 [fe80::1%7777]:80"},
		{"tcp", "[::1%7777]:80", false, "tcp6 [::1]:80"},
		{"unix", "s", false, "unix " + abs},
		{"unix", abs + "/../s", false, "unix " + abs},
		{"unix", "@name/../x", false, "unix @name/../x"},
		{"unixgram", "@name", false, "unixgram @name"},
	} {
		a, err := Resolve(test.network, test.address, test.v6only, Options{})
		require.NoError(t, err, test)
		require.Equal(t, test.key, a.Key(), test)
		require.Equal(t, test.address, a.Named)
	}
}

// What names no socket is an error, which still tells what was asked for.
func TestBadAddresses(t *testing.T) {
	for _, test := range []struct {
		network, address string
		v6only           bool
	}{
		{"tcp", "127.0.0.1:80", true}, {"tcp4", ":80", true}, {"tcp", "80", false}, {"udp", "[::1", false},
		{"unix", "", false}, {"unix", "@", false}, {"unix", "a\x00b", false}, {"ip", "127.0.0.1", false}, {"", ":80", false},
	} {
		a, err := Resolve(test.network, test.address, test.v6only, Options{})
		require.Error(t, err, test)
		require.Equal(t, test.network, a.Network)
		require.Equal(t, test.address, a.Named)
	}
}

// A socket that is bound already is the one that is asked for if network, host and port agree.
// An address without a port or a path means no socket.
func TestMeans(t *testing.T) {
	tcp := func(ip string, port int) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: port} }
	for _, test := range []struct {
		network, address string
		real             net.Addr
		want             bool
	}{
		{"tcp", ":80", tcp("::", 80), true},
		{"tcp", ":80", tcp("0.0.0.0", 80), true},
		{"tcp", ":80", tcp("127.0.0.1", 80), false},
		{"tcp", "127.0.0.1:80", tcp("127.0.0.1", 80), true},
		{"tcp", "127.0.0.1:80", tcp("127.0.0.1", 81), false},
		{"tcp", "127.0.0.1:0", tcp("127.0.0.1", 0), false},
		{"tcp", "[fe80::1%7777]:80", &net.TCPAddr{IP: net.ParseIP("fe80::1"), Port: 80, Zone: "7777"}, true},
		{"tcp", "[fe80::1%7777]:80", &net.TCPAddr{IP: net.ParseIP("fe80::1"), Port: 80, Zone: "7778"}, false},
		{"tcp", "[fe80::1%7777]:80", tcp("fe80::1", 80), false},
		{"tcp", "[::1%7777]:80", tcp("::1", 80), true},
		{"udp", ":53", &net.UDPAddr{IP: net.ParseIP("::"), Port: 53}, true},
		{"unix", "@a", &net.UnixAddr{Name: "@a", Net: "unix"}, true},
		{"unix", "@a", &net.UnixAddr{Name: "@b", Net: "unix"}, false},
		{"unix", "@a", tcp("127.0.0.1", 80), false},
		{"tcp", ":80", &net.UnixAddr{Name: "@a", Net: "unix"}, false},
	} {
		a, err := Resolve(test.network, test.address, false, Options{})
		require.NoError(t, err)
		require.Equal(t, test.want, a.Means(test.real), test)
	}
}
