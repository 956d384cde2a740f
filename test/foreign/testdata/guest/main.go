// Command guest is a program of a test's that knows nothing of package cluster: it
// finds its sockets as systemd passes them, and does what it is asked to over HTTP.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// version tells one build of this program from another.
var version = "1"

var (
	die     = flag.Int("die", -1, "exit with this status at once")
	say     = flag.String("say", "", "tell the service manager this, and exit")
	ready   = flag.Bool("ready", false, "say READY=1")
	beat    = flag.Duration("beat", 0, "say WATCHDOG=1 so often, until /hang")
	deaf    = flag.Bool("deaf", false, "ignore SIGTERM")
	unaware = flag.Bool("unaware", false, "leave SIGTERM to the system")
)

// inherited are the descriptors above 2 that it had at first.
var inherited = descriptors()

func main() {
	flag.Parse()
	if *die >= 0 {
		fmt.Fprintln(os.Stderr, "these are my last words")
		os.Exit(*die)
	}
	if *say != "" {
		notify(*say)
		return
	}
	term := make(chan os.Signal, 10)
	if !*unaware {
		signal.Notify(term, syscall.SIGTERM)
	}
	orders()
	srv := &http.Server{}
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	var listeners []net.Listener
	for fd := 3; fd < 3+n; fd++ {
		if ln, err := net.FileListener(os.NewFile(uintptr(fd), "")); err == nil {
			listeners = append(listeners, ln)
			go srv.Serve(ln)
		}
	}
	if *ready {
		notify("READY=1\nSTATUS=serves")
	}
	if *beat > 0 {
		go beats()
	}
	for range term {
		fmt.Println("terminated", os.Getpid())
		if *deaf {
			continue
		}
		// What is on its way comes yet: a Shutdown at once would lose it.
		for _, ln := range listeners {
			ln.Close()
		}
		time.Sleep(300 * time.Millisecond)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		srv.Shutdown(ctx)
		return
	}
}

func orders() {
	answer := func(path string, fn func(r *http.Request) any) {
		http.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(fn(r)) })
	}
	answer("/pid", func(*http.Request) any { return os.Getpid() })
	answer("/version", func(*http.Request) any { return version })
	answer("/about", func(*http.Request) any {
		return map[string]any{"env": os.Environ(), "fds": inherited, "uid": os.Getuid(), "args": os.Args, "pgid": syscall.Getpgrp()}
	})
	answer("/notify", func(r *http.Request) any { notify(r.FormValue("text")); return "" })
	answer("/child", func(r *http.Request) any {
		// Its parent is here until it has said it.
		out, err := exec.Command("/proc/self/exe", "-say", r.FormValue("text")).CombinedOutput()
		return fmt.Sprint(string(out), err)
	})
	answer("/hang", func(*http.Request) any { close(hangs); return "" })
	answer("/exit", func(r *http.Request) any {
		status, _ := strconv.Atoi(r.FormValue("status"))
		os.Exit(status)
		return ""
	})
}

var hangs = make(chan bool)

func beats() {
	for {
		notify("WATCHDOG=1")
		select {
		case <-hangs:
			return
		case <-time.After(*beat):
		}
	}
}

// notify tells the service manager, and waits until that has read it.
func notify(text string) {
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: os.Getenv("NOTIFY_SOCKET"), Net: "unixgram"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(text)); err != nil {
		log.Fatal(err)
	}
	var barrier [2]int
	if err := syscall.Pipe2(barrier[:], syscall.O_CLOEXEC); err != nil {
		log.Fatal(err)
	}
	rc, err := c.SyscallConn()
	if err == nil {
		rc.Write(func(fd uintptr) bool { // WriteMsgUnix refuses a connected socket
			err = syscall.Sendmsg(int(fd), []byte("BARRIER=1"), syscall.UnixRights(barrier[1]), nil, 0)
			return err != syscall.EAGAIN
		})
	}
	if err != nil {
		log.Fatal(err)
	}
	syscall.Close(barrier[1])
	os.NewFile(uintptr(barrier[0]), "").Read(make([]byte, 1))
	syscall.Close(barrier[0])
}

// descriptors are those above 2, without that by which they are found.
func descriptors() (all []string) {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		to, _ := os.Readlink("/proc/self/fd/" + name)
		fd, _ := strconv.Atoi(name)
		flags, err := fcntl(fd, syscall.F_GETFL)
		if fd <= 2 || uintptr(fd) == dir.Fd() || err != nil || strings.HasPrefix(to, "anon_inode:") || strings.HasPrefix(to, "/sys/fs/cgroup/") { // of the runtime's own
			continue
		}
		all = append(all, fmt.Sprintf("%d nonblocking=%v", fd, flags&syscall.O_NONBLOCK != 0))
	}
	return all
}

func fcntl(fd, cmd int) (int, error) {
	n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), uintptr(cmd), 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
