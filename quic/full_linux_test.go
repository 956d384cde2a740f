package quic_test

import (
	"context"
	"net"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	quicgo "github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"
)

// TestMaxConnections: a worker that has as many connections as it may takes no further one;
// others do, and if none can, the client waits until somebody has room. What is there goes on.
func TestMaxConnections(t *testing.T) {
	addr, config, _ := beginWith(t, echo, cluster.Options{Workers: 2, MaxConnections: 1})
	counted := func() (all [2]int64) {
		for _, w := range cluster.Stats().Workers {
			all[w.Slot] = w.Active
		}
		return all
	}
	first := dial(t, addr, config)
	at, _ := first.ask(t)
	for range 3 {
		second := dial(t, addr, config)
		pid, _ := second.ask(t)
		require.NotEqual(t, at, pid, "that worker is full")
		clustertest.Eventually(t, func() bool { return counted() == [2]int64{1, 1} }, "both are full")
		third := make(chan peer, 1)
		go func() { third <- dial(t, addr, config) }()
		for range 3 {
			got, _ := first.ask(t)
			require.Equal(t, at, got)
		}
		require.Empty(t, third, "nobody has room")
		first.CloseWithError(0, "")
		p := clustertest.Await(t, third, "connection")
		got, _ := p.ask(t)
		require.Equal(t, at, got)
		first = p
		second.CloseWithError(0, "")
		clustertest.Eventually(t, func() bool { all := counted(); return all[0]+all[1] == 1 }, "a place is free")
	}
	accepted := int64(0)
	for _, w := range cluster.Stats().Workers {
		accepted += w.Accepted
	}
	require.EqualValues(t, 7, accepted)
}

// deaf is the socket of a client that hears nothing, as one that forges its address.
type deaf struct{ net.PacketConn }

func (d deaf) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		if _, _, err := d.PacketConn.ReadFrom(b); err != nil {
			return 0, nil, err
		}
	}
}

// TestForgedAddresses: clients that do not prove where they are get a quarter of the free
// places at most, and the others are served, by a token of any worker.
func TestForgedAddresses(t *testing.T) {
	const most = 8
	addr, config, _ := beginWith(t, echo, cluster.Options{Workers: 2, MaxConnections: most})
	active := func() (n int64) {
		for _, w := range cluster.Stats().Workers {
			n += w.Active
		}
		return n
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 10 * most {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		require.NoError(t, err)
		tr := &quicgo.Transport{Conn: deaf{c}}
		t.Cleanup(func() {
			tr.Close()
			c.Close()
		})
		go tr.Dial(ctx, addr, config, patient)
	}
	clustertest.Eventually(t, func() bool { return active() == 2*most/4 }, "they have what they may have")
	for range most {
		dial(t, addr, config).ask(t)
	}
	require.EqualValues(t, 2*most/4+most, active())
}
