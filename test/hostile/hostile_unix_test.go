//go:build unix

package hostile_test

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/go-cluster/cluster/internal/clustertest"
	"golang.org/x/sys/unix"
)

// rawChannel is the descriptor.
const rawChannel = 3

func init() {
	for name, a := range map[string]attack{
		"descriptors":           {run: func() { rawFloodWith("1\n", 253) }, report: "closed"},
		"descriptors of a half": {run: func() { rawFloodWith("1", 253) }, report: "closed"},
		"descriptors to keep": {run: func() { rawFloodWith(`{"cmd":"NODE_HANDLE","msg":{"cmd":"NODE_CLUSTER","act":"x"}}`+"\n", 1) },
			report: "does not read", killed: true},
		"handles nobody takes": {run: func() { rawFloodWith(`{"cmd":"NODE_GO_CLUSTER","act":"handle","msg":{"cmd":"nobody"}}`+"\n", 1) },
			report: "wait for a handler"},
		"nested handles": {run: func() {
			rawFloodWith(strings.Repeat(`{"cmd":"NODE_HANDLE","msg":`, 60)+`"`+strings.Repeat("x", hostileMessage-3000)+`"`+strings.Repeat("}", 60)+"\n", 60)
		}, report: "came with"},

		"stops reading":            {run: func() { unix.Shutdown(rawChannel, unix.SHUT_RD); rawFlood(`{"cmd":"nobody"}` + "\n") }, ends: true},
		"stops writing":            {run: func() { unix.Shutdown(rawChannel, unix.SHUT_WR) }, ends: true},
		"stops both":               {run: func() { unix.Shutdown(rawChannel, unix.SHUT_RDWR) }, ends: true},
		"closes":                   {run: func() { unix.Close(rawChannel) }},
		"stops":                    {run: func() { syscall.Kill(os.Getpid(), syscall.SIGSTOP) }},
		"dies, half with a handle": {run: func() { rawSayWith(`{"cmd":"NODE_HANDLE"`, 3); os.Exit(0) }, ends: true},
		"becomes another": {run: func() {
			path, _ := exec.LookPath("sleep")
			syscall.Exec(path, []string{"sleep", "1000"}, os.Environ())
		}},
		"leaves a child that floods": {run: func() {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), attackEnv+"=child")
			cmd.ExtraFiles = []*os.File{os.NewFile(rawChannel, "channel")}
			clustertest.Must(cmd.Start())
			os.Exit(0)
		}, ends: true},
	} {
		attacks[name] = a
	}
}

func rawSay(s string) error {
	for p := []byte(s); len(p) > 0; {
		n, err := syscall.Write(rawChannel, p)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func rawReadAndFlood(s string) {
	go io.Copy(io.Discard, os.NewFile(rawChannel, "channel"))
	rawFlood(s)
}

// rawSayWith says s with n descriptors.
func rawSayWith(s string, n int) error {
	null, err := os.Open(os.DevNull)
	clustertest.Must(err)
	defer null.Close()
	fds := make([]int, n)
	for i := range fds {
		fds[i] = int(null.Fd())
	}
	sent, err := unix.SendmsgN(rawChannel, []byte(s), unix.UnixRights(fds...), nil, 0)
	if err == nil {
		err = rawSay(s[sent:])
	}
	return err
}

func rawFloodWith(s string, n int) {
	for rawSayWith(s, n) == nil {
	}
}

// rawEnd waits until the master closes the channel or is gone.
func rawEnd() {
	for {
		p := []unix.PollFd{{Fd: rawChannel}}
		if _, err := unix.Poll(p, 1000); err == nil && p[0].Revents&unix.POLLHUP != 0 {
			os.Exit(0)
		}
		if os.Getppid() == 1 {
			os.Exit(0)
		}
	}
}
