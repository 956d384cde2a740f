//go:build unix && !linux

package admin

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// peer is who connected to the socket.
type peer struct {
	uid int
	err error // why that is not known
}

func peerOf(c *net.UnixConn) *peer {
	raw, err := c.SyscallConn()
	if err != nil {
		return &peer{err: err}
	}
	p := new(peer)
	ctl := raw.Control(func(fd uintptr) {
		var cred *unix.Xucred
		if cred, err = unix.GetsockoptXucred(int(fd), 0, unix.LOCAL_PEERCRED); err == nil {
			p.uid = int(cred.Uid)
		}
	})
	p.err = errors.Join(ctl, err)
	return p
}

// descends is not known here: who connected has no number.
func (p *peer) descends(map[int]bool) bool { return p.err != nil }
