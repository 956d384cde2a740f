//go:build unix

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/go-cluster/cluster/internal/handle"
)

const (
	errnoAgain = int(unix.EAGAIN)
	// maxUnixPath is what sun_path holds less its NUL, on the systems with the
	// least room.
	maxUnixPath = 103
)

func uid() int { return os.Getuid() }

// supported reports that every network can be listened on, and shared.
func supported(target, bool) error { return nil }

// ---- opening

// openShared opens t for the registry. What it returns is the bare descriptor:
// closing the net.Listener that made it loses no connection, and leaves the
// runtime's poller without a reason to wake the master for each.
func openShared(ctx context.Context, t target) (*handle.Handle, net.Addr, func(), error) {
	if t.fd >= 0 {
		return openDescriptor(t)
	}
	var sock syscall.Conn
	var addr net.Addr
	if isPacket(t.network) {
		c, err := openPacket(ctx, t)
		if err != nil {
			return nil, nil, nil, err
		}
		defer c.Close()
		sock, addr = c.(syscall.Conn), c.LocalAddr()
	} else {
		ln, err := openListener(ctx, t, net.KeepAliveConfig{})
		if err != nil {
			return nil, nil, nil, err
		}
		if u, ok := ln.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
		defer ln.Close()
		sock, addr = ln.(syscall.Conn), ln.Addr()
	}
	fd, err := dupDescriptor(sock)
	if err != nil {
		return nil, nil, nil, err
	}
	return handle.New(fd), addr, unlinker(t), nil
}

// openListener is net.ListenConfig.Listen with this package's defaults.
func openListener(ctx context.Context, t target, keepAlive net.KeepAliveConfig) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive, Control: t.control}
	lc.SetMultipathTCP(t.multipath)
	ln, err := listenReplacing(t, func(address string) (net.Listener, error) {
		return lc.Listen(ctx, t.network, address)
	})
	if err != nil {
		return nil, err
	}
	if t.backlog > 0 {
		err = relisten(ln.(syscall.Conn), t.backlog)
	}
	if err == nil {
		err = t.chmod()
	}
	if err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

func openPacket(ctx context.Context, t target) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: t.control}
	c, err := listenReplacing(t, func(address string) (net.PacketConn, error) {
		return lc.ListenPacket(ctx, t.network, address)
	})
	if err != nil {
		return nil, err
	}
	if err := t.chmod(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// control sets what must be set before bind(2).
func (t *target) control(network, address string, c syscall.RawConn) error {
	var err error
	ctlErr := c.Control(func(fd uintptr) {
		if t.reuse {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}
		if t.mode != 0 && isUnix(t.network) {
			// On Linux the file gets the socket's mode: it is never open wider
			// than asked for. Other systems refuse, and have the chmod below.
			unix.Fchmod(int(fd), uint32(t.mode))
		}
	})
	return errors.Join(ctlErr, err)
}

// chmod gives a unix socket's file its mode in spite of the umask.
func (t *target) chmod() error {
	if t.mode == 0 || !isUnix(t.network) || t.address[0] == '@' {
		return nil
	}
	return os.Chmod(t.address, t.mode)
}

// relisten changes the backlog of a socket that listens.
func relisten(c syscall.Conn, backlog int) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	ctlErr := rc.Control(func(fd uintptr) { err = unix.Listen(int(fd), backlog) })
	if err != nil {
		return os.NewSyscallError("listen", err)
	}
	return ctlErr
}

// listenReplacing calls open with t's address, and once more if what was in the
// way is the file of a unix socket that nobody serves any more.
func listenReplacing[T any](t target, open func(address string) (T, error)) (T, error) {
	if !isUnix(t.network) || t.address[0] == '@' {
		return open(t.address)
	}
	path := shortPath(t.address)
	s, err := open(path)
	if !errors.Is(err, unix.EADDRINUSE) {
		return s, err
	}
	// Of two masters that start at once, the second must not take the socket
	// that the first has just made for the stale one.
	defer lockDir(filepath.Dir(path))()
	if !stale(t.network, path) {
		return s, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	return open(path)
}

// lockDir keeps other processes that use this package from replacing sockets in
// dir. Without the right to, there is no lock.
func lockDir(dir string) (unlock func()) {
	f, err := os.Open(dir)
	if err != nil {
		return func() {}
	}
	unix.Flock(int(f.Fd()), unix.LOCK_EX)
	return func() { f.Close() }
}

// shortPath makes a path that is too long for sun_path relative, as node does.
func shortPath(path string) string {
	if len(path) <= maxUnixPath {
		return path
	}
	dir, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(dir, path); err == nil && len(rel) < len(path) {
		return rel
	}
	return path
}

// stale reports whether path is a socket that refuses connections: its server
// is gone.
func stale(network, path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return false
	}
	c, err := net.Dial(network, path)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, unix.ECONNREFUSED)
}

// unlinker returns what removes t's file, if it is still the one just made.
func unlinker(t target) func() {
	if !isUnix(t.network) || t.address[0] == '@' {
		return func() {}
	}
	made, err := os.Lstat(t.address)
	if err != nil {
		return func() {}
	}
	return func() {
		if now, err := os.Lstat(t.address); err == nil && os.SameFile(made, now) {
			os.Remove(t.address)
		}
	}
}

// openDescriptor shares a socket that the master has at a number (node's
// listen({fd})). Only one that listens, or a bound UDP socket, may be had so:
// not a connection, nor another worker's channel.
func openDescriptor(t target) (*handle.Handle, net.Addr, func(), error) {
	typ, err := unix.GetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, nil, nil, err
	}
	listening, _ := unix.GetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	sa, err := unix.Getsockname(t.fd)
	if err != nil {
		return nil, nil, nil, err
	}
	_, local := sa.(*unix.SockaddrUnix)
	if packet := typ == unix.SOCK_DGRAM && !local; packet != isPacket(t.network) || !packet && listening == 0 {
		return nil, nil, nil, fmt.Errorf("descriptor %d of the master is no listening socket: %w", t.fd, unix.EINVAL)
	}
	fd, err := unix.FcntlInt(uintptr(t.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, nil, nil, err
	}
	unix.SetNonblock(fd, true)
	return handle.New(fd), netAddr(sa, t.network), func() {}, nil
}

// netAddr is sa as package net has it.
func netAddr(sa unix.Sockaddr, network string) net.Addr {
	var ip net.IP
	port := 0
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		ip, port = net.IP(sa.Addr[:]), sa.Port
	case *unix.SockaddrInet6:
		ip, port = net.IP(sa.Addr[:]), sa.Port
	case *unix.SockaddrUnix:
		return &net.UnixAddr{Name: sa.Name, Net: network}
	}
	if isPacket(network) {
		return &net.UDPAddr{IP: ip, Port: port}
	}
	return &net.TCPAddr{IP: ip, Port: port}
}

// dupDescriptor duplicates c's descriptor without touching the flags that all
// its holders share: File and its Fd would make the socket blocking for all.
func dupDescriptor(c syscall.Conn) (fd int, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	ctlErr := rc.Control(func(s uintptr) { fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) })
	if ctlErr != nil {
		return -1, ctlErr
	}
	return fd, os.NewSyscallError("fcntl", err)
}

// ---- in the worker

// listenerOf makes a listener of a shared socket. os.NewFile of a descriptor
// that is non-blocking already leaves it so, also in Fd, which FileListener
// calls.
func listenerOf(h *handle.Handle) (net.Listener, error) {
	f, err := fileOf(h)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileListener(f)
}

func packetConnOf(h *handle.Handle) (net.PacketConn, error) {
	f, err := fileOf(h)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FilePacketConn(f)
}

// connOf makes a connection of h, which nobody else holds, and takes it over. It
// need not be non-blocking: FileConn makes it so.
func connOf(h *handle.Handle) (net.Conn, error) {
	f := os.NewFile(uintptr(h.FD()), "cluster-socket")
	defer f.Close()
	return net.FileConn(f)
}

// fileOf dups h's descriptor, non-blocking.
func fileOf(h *handle.Handle) (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(h.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), "cluster-socket"), nil
}

// listenBound lets a socket listen that a node primary has only bound. With the
// address in use node sends one that is not even that, and listen(2) would take
// a random port: the address is compared with what was asked for.
func listenBound(h *handle.Handle, t target) error {
	sa, err := unix.Getsockname(h.FD())
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	if t.fd < 0 && !isUnix(t.network) {
		var port int
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			port = sa.Port
		case *unix.SockaddrInet6:
			port = sa.Port
		}
		if port == 0 || t.port() != 0 && port != t.port() {
			return unix.EADDRINUSE
		}
	}
	backlog := t.backlog
	if backlog == 0 {
		backlog = maxListenBacklog()
	}
	return os.NewSyscallError("listen", unix.Listen(h.FD(), backlog))
}

// maxListenBacklog is the system's limit.
func maxListenBacklog() int {
	if b, err := os.ReadFile("/proc/sys/net/core/somaxconn"); err == nil {
		if n, err := strconv.Atoi(string(b[:max(0, len(b)-1)])); err == nil && n > 0 {
			return n
		}
	}
	return unix.SOMAXCONN
}

// holdPacket is ListenPacket in a master that has forked.
func holdPacket(t target, e *entry) (net.PacketConn, error) {
	c, err := packetConnOf(e.h)
	if err != nil {
		return nil, listenError(t, err, "")
	}
	return &heldPacketConn{c, heldListener{addr: t.addr(e.addr), closed: make(chan struct{})}}, nil
}
