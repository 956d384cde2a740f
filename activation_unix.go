//go:build unix

package cluster

import (
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/go-cluster/cluster/internal/handle"
)

// firstActivated is where a service manager's sockets begin: SD_LISTEN_FDS_START
// of sd_listen_fds(3).
const firstActivated = 3

// activated are the sockets that a service manager opened for this process. A
// worker that asks for the address of one gets it; each use is a dup, so that
// they outlive a Disconnect.
var activated activatedSockets

type activatedSockets struct {
	once sync.Once
	mu   sync.Mutex
	list []activatedSocket
}

type activatedSocket struct {
	fd     int
	packet bool
	sa     unix.Sockaddr
	used   bool
}

// load takes over the sockets, if they are meant for this process.
func (a *activatedSockets) load() {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(pid) {
		return
	}
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	for fd := firstActivated; fd < firstActivated+n; fd++ {
		unix.CloseOnExec(fd)
		typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		sa, nameErr := unix.Getsockname(fd)
		if err != nil || nameErr != nil {
			continue // not a socket: a fifo, or a file
		}
		// Workers share the open file description; a blocking one would hang
		// their Close and their deadlines.
		unix.SetNonblock(fd, true)
		a.list = append(a.list, activatedSocket{fd: fd, packet: typ == unix.SOCK_DGRAM, sa: sa})
	}
}

// find returns a new handle of the socket that t means.
func (a *activatedSockets) find(t target) (*handle.Handle, net.Addr) {
	a.once.Do(a.load)
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.list {
		s := &a.list[i]
		if t.fd >= 0 || s.packet != isPacket(t.network) || !t.means(s.sa) {
			continue
		}
		fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, nil
		}
		s.used = true
		return handle.New(fd), netAddr(s.sa, t.network)
	}
	return nil, nil
}

// means reports whether a socket bound to sa is what t asks for.
func (t *target) means(sa unix.Sockaddr) bool {
	if u, ok := sa.(*unix.SockaddrUnix); ok {
		return isUnix(t.network) && u.Name == t.address
	}
	if isUnix(t.network) {
		return false
	}
	var ip net.IP
	var port int
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		ip, port = net.IP(sa.Addr[:]), sa.Port
	case *unix.SockaddrInet6:
		ip, port = net.IP(sa.Addr[:]), sa.Port
	}
	host, _, _ := net.SplitHostPort(t.address)
	if port != t.port() || port == 0 {
		return false
	}
	if host == "" {
		return ip.IsUnspecified()
	}
	return ip.Equal(net.ParseIP(host))
}

// logUnusedSockets names the sockets that nobody has asked for: most likely the
// unit and the program disagree about an address.
func logUnusedSockets(log func() *slog.Logger) {
	activated.once.Do(activated.load)
	activated.mu.Lock()
	defer activated.mu.Unlock()
	for _, s := range activated.list {
		if !s.used {
			network := "tcp"
			if s.packet {
				network = "udp"
			}
			log().Warn("cluster: a socket of the service manager is not used", "fd", s.fd, "address", netAddr(s.sa, network))
		}
	}
}
