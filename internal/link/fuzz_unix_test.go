//go:build unix

package link

import (
	"net"
	"testing"

	"github.com/go-cluster/cluster/internal/roomtest"
	"golang.org/x/sys/unix"
)

// FuzzDescriptors: whatever lines come with descriptors, cut wherever, each of these
// is delivered with a message or closed.
func FuzzDescriptors(f *testing.F) {
	for _, line := range []string{
		`{"cmd":"NODE_GO_CLUSTER","act":"handle","msg":{"n":1}}`,
		`{"cmd":"NODE_GO_CLUSTER","act":"handle","msg":{"cmd":"NODE_CLUSTER"}}`,
		`{"cmd":"NODE_GO_CLUSTER","act":"handle"}`,
		`{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"n":1}}`,
		`{"cmd":"NODE_HANDLE","type":"net.Socket"}`,
		`{"cmd":"NODE_HANDLE","msg":{"cmd":"NODE_CLUSTER","act":"newconn"}}`,
		`"plain"`, `}`, ``,
	} {
		f.Add([]byte(line+"\n"), uint8(255))
		f.Add([]byte(line+"\n\"plain\"\n"+line+"\n"), uint8(len(line)))
		f.Add([]byte(line+"\n"+line+"\n"+line), uint8(20))
	}
	f.Fuzz(func(t *testing.T, stream []byte, size uint8) {
		stream = stream[:min(len(stream), 4000)]
		l := newTestLink(t, PeerGo, Options{MaxMessage: 1000}).take().start()
		k := newToken(t)
		rights := unix.UnixRights(int(k.file.Fd()))
		for pieces := 0; len(stream) > 0 && pieces < 200; pieces++ {
			n := min(len(stream), int(size)+1)
			if _, _, err := l.peer.(*net.UnixConn).WriteMsgUnix(stream[:n], rights, nil); err != nil {
				t.Fatal(err)
			}
			stream = stream[n:]
		}
		l.peer.Close()
		roomtest.Await(t, l.ended, "end of the link")
		for len(l.parcels) > 0 {
			(<-l.parcels).h.Release()
		}
		for len(l.internals) > 0 {
			(<-l.internals).h.Release()
		}
		k.sent().requireClosed()
	})
}
