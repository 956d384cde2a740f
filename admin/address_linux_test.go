package admin

import (
	"net"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestInheritedAddress: the socket of the program before goes on if the new one asks for the same
// address, and else is not in the way of another on its port, nor used later.
func TestInheritedAddress(t *testing.T) {
	before, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	had, err := before.(*net.TCPListener).File()
	require.NoError(t, err)
	defer had.Close()
	before.Close()
	address := before.Addr().String()
	port := strconv.Itoa(before.Addr().(*net.TCPAddr).Port)
	client, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer client.Close()

	ln := inheritedAddress(address, had)
	require.NotNil(t, ln)
	c, err := ln.Accept()
	require.NoError(t, err, "who has connected meanwhile")
	c.Close()
	ln.Close()

	require.Nil(t, inheritedAddress(":"+port, had))
	ln, err = net.Listen("tcp", ":"+port)
	require.NoError(t, err)
	ln.Close()
	require.Nil(t, inheritedAddress(address, had), "it has been ended")
	require.Nil(t, inheritedAddress(address, nil))
}

func TestLeadsTo(t *testing.T) {
	local := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9090}
	wild := &net.TCPAddr{IP: net.IPv6unspecified, Port: 9090}
	for _, c := range []struct {
		address string
		bound   *net.TCPAddr
		want    bool
	}{
		{"127.0.0.1:9090", local, true},
		{"127.0.0.1:0", local, true},
		{":9090", wild, true},
		{"0.0.0.0:9090", wild, true},
		{"[::]:9090", wild, true},
		{"127.0.0.1:9091", local, false},
		{"127.0.0.2:9090", local, false},
		{"[::1]:9090", local, false},
		{":9090", local, false},
		{"127.0.0.1:9090", wild, false},
		{"", local, false},
		{"nonsense", local, false},
	} {
		require.Equal(t, c.want, leadsTo(c.address, c.bound), "%q at %v", c.address, c.bound)
	}
}
