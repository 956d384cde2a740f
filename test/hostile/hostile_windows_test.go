package hostile_test

import (
	"io"
	"os"
	"strconv"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"golang.org/x/sys/windows"
)

func init() {
	// A socket that nobody has sent: it could be any handle of the master's.
	attacks["sends a socket"] = attack{run: func() {
		rawFlood(`{"cmd":"NODE_HANDLE","socket":"AAAA","msg":{"cmd":"NODE_CLUSTER","act":"x"}}` + "\n")
	}, report: "does not read", killed: true}
	attacks["closes"] = attack{run: func() { windows.CloseHandle(rawChannel()) }}
}

// rawChannel is the handle, which is on no completion port.
func rawChannel() windows.Handle {
	h, err := strconv.ParseUint(os.Getenv("CLUSTER_TEST_CHANNEL"), 10, 64)
	clustertest.Must(err)
	return windows.Handle(h)
}

func rawSay(s string) error {
	h := rawChannel()
	event, err := windows.CreateEvent(nil, 1, 0, nil)
	if err != nil {
		return err
	}
	defer windows.CloseHandle(event)
	o := &windows.Overlapped{HEvent: event}
	if err := windows.WriteFile(h, []byte(s), nil, o); err != nil && err != windows.ERROR_IO_PENDING {
		return err
	}
	var n uint32
	return windows.GetOverlappedResult(h, o, &n, true)
}

func rawReadAndFlood(s string) {
	go io.Copy(io.Discard, rawReader{})
	rawFlood(s)
}

// rawReader reads the channel.
type rawReader struct{}

func (rawReader) Read(p []byte) (int, error) {
	event, err := windows.CreateEvent(nil, 1, 0, nil)
	if err != nil {
		return 0, err
	}
	defer windows.CloseHandle(event)
	o := &windows.Overlapped{HEvent: event}
	if err := windows.ReadFile(rawChannel(), p, nil, o); err != nil && err != windows.ERROR_IO_PENDING {
		return 0, err
	}
	var n uint32
	err = windows.GetOverlappedResult(rawChannel(), o, &n, true)
	return int(n), err
}

// rawEnd waits: the master's job ends this process with it.
func rawEnd() {
	for cluster.IsMaster() {
		time.Sleep(time.Hour)
	}
}
