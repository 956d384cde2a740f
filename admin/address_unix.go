//go:build unix

package admin

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// inheritedAddress is had, the socket of Options.Address of the program before an upgrade,
// if it is that of the address; else nil. Who has connected to it meanwhile waits in its
// queue. One of another address is ended, or the new address might be found in use by it.
func inheritedAddress(address string, had *os.File) net.Listener {
	if had == nil {
		return nil
	}
	ln, err := net.FileListener(had)
	if err != nil {
		return nil
	}
	tcp, ok := ln.(*net.TCPListener)
	if ok && listening(tcp) && leadsTo(address, tcp.Addr().(*net.TCPAddr)) {
		return tcp
	}
	if ok {
		// had stays open, since a rollback counts on the descriptor. It listens no more.
		if raw, err := tcp.SyscallConn(); err == nil {
			raw.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_RDWR) })
		}
	}
	ln.Close()
	return nil
}

// listening reports whether it is a socket that has not been ended.
func listening(ln *net.TCPListener) (yes bool) {
	raw, err := ln.SyscallConn()
	if err != nil {
		return false
	}
	raw.Control(func(fd uintptr) {
		n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		yes = err == nil && n != 0
	})
	return yes
}

// leadsTo reports whether net.Listen of the address would be at bound. Of a port 0 any is
// right, and each way to write the wildcard is the same one.
func leadsTo(address string, bound *net.TCPAddr) bool {
	if address == "" {
		return false
	}
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil || a.Port != 0 && a.Port != bound.Port {
		return false
	}
	if a.IP == nil || a.IP.IsUnspecified() {
		return bound.IP.IsUnspecified()
	}
	return a.IP.Equal(bound.IP) && a.Zone == bound.Zone
}
