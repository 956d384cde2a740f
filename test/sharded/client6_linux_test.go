package sharded_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"golang.org/x/sys/unix"
)

// TestByClientIPv6: at an address of both families clients of IPv6 are at home by their
// whole address, and those of IPv4 where they are at an address of IPv4. It has a network of
// its own, since a machine has only one client address of IPv6.
func TestByClientIPv6(t *testing.T) {
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		t.Skip("no IPv6")
	}
	id := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	attr := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET, UidMappings: id}
	try := exec.Command("/proc/self/exe", "-test.run=^$")
	try.SysProcAttr = attr
	if err := try.Run(); err != nil {
		t.Skip("no network of its own: ", err)
	}
	c := exec.Command(os.Args[0])
	c.SysProcAttr = attr
	p := clustertest.StartCmd(t, c, families)
	p.Expect("all are at home")
	p.Terminate()
}

// families is a master with workers at an address of both families, and clients of it.
var families = clustertest.Program("families", func() {
	if cluster.IsWorker() {
		ln, err := cluster.Listen("tcp", "[::]:0")
		clustertest.Must(err)
		answerAll(ln)
	}
	for client := range familyClients {
		clustertest.Must(addLocal(client6(client)))
	}
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 4, Scheduling: cluster.ByClient, Watchdog: cluster.Watchdog{Interval: 100 * time.Millisecond}}))
	var ready atomic.Int32
	var addr atomic.Value
	cluster.OnListening(func(_ *cluster.Process, a net.Addr) { addr.Store(a) })
	cluster.OnReady(func(*cluster.Process) {
		if ready.Add(1) == 4 {
			go familiesAtHome(addr.Load().(*net.TCPAddr).Port)
		}
	})
	clustertest.Must(cluster.Run(context.Background()))
})

const familyClients = 20

func client6(client int) net.IP {
	ip := net.ParseIP("fd00::")
	ip[3], ip[7], ip[11], ip[15] = byte(3*client), byte(5*client), byte(7*client), byte(1+client)
	return ip
}

// familiesAtHome waits until each client is served at home. A worker that gets no turn of
// the machine for a while has its clients served by others.
func familiesAtHome(port int) {
	for begun := time.Now(); ; {
		away := error(nil)
		for client := range familyClients {
			for _, ip := range []net.IP{client6(client), net.IPv4(127, 0, 1, byte(client))} {
				if slot, err := askFrom(ip, port); err != nil || slot != homeOf(ip) {
					away = errors.Join(away, fmt.Errorf("%v at %d and not at %d: %v", ip, slot, homeOf(ip), err))
				}
			}
		}
		if away == nil {
			fmt.Println("all are at home")
			return
		}
		if time.Since(begun) > clustertest.Patience {
			clustertest.Must(away)
		}
	}
}

// homeOf is the slot, of four, that the program of an address gives a client, of 64 sockets.
func homeOf(ip net.IP) int {
	hash := uint32(0)
	if four := ip.To4(); four != nil {
		ip = four
	}
	for ; len(ip) > 0; ip = ip[4:] {
		hash ^= binary.BigEndian.Uint32(ip)
	}
	return int(hash*0x9e3779b1>>16) % 64 % 4
}

func askFrom(ip net.IP, port int) (slot int, err error) {
	to := net.JoinHostPort("::1", fmt.Sprint(port))
	if ip.To4() != nil {
		to = net.JoinHostPort("127.0.0.1", fmt.Sprint(port))
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: ip}, Timeout: clustertest.Patience}
	c, err := d.Dial("tcp", to)
	if err != nil {
		return -1, err
	}
	return readSlot(c)
}

// addLocal gives the loopback interface an address of IPv6, and sets it up.
func addLocal(ip net.IP) error {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	up, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	up.SetUint16(unix.IFF_UP | unix.IFF_LOOPBACK | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, up); err != nil {
		return os.NewSyscallError("SIOCSIFFLAGS", err)
	}
	request := struct { // struct in6_ifreq
		addr   [16]byte
		prefix uint32
		index  int32
	}{[16]byte(ip.To16()), 128, int32(lo.Index)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFADDR, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return os.NewSyscallError("SIOCSIFADDR", errno)
	}
	return nil
}
