package systemd

import (
	"strconv"
	"strings"
)

// Notice is one datagram in which a program says how it is. The other variables of
// sd_notify(3) are ignored.
type Notice struct {
	Ready    bool
	Stopping bool
	Alive    bool   // WATCHDOG=1
	MainPID  int    // 0 if the datagram has none
	Status   string // "" if the datagram has none
}

// InboxState is an Inbox as data. FD is -1 if it is closed.
type InboxState struct {
	FD      int
	Address string
}

// ParseNotice reads a datagram, which has one assignment in each line.
func ParseNotice(text string) (n Notice) {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		switch name {
		case "READY":
			n.Ready = n.Ready || value == "1"
		case "STOPPING":
			n.Stopping = n.Stopping || value == "1"
		case "WATCHDOG":
			n.Alive = n.Alive || value == "1"
		case "MAINPID":
			if pid, err := strconv.ParseInt(value, 10, 32); err == nil && pid > 1 {
				n.MainPID = int(pid)
			}
		case "STATUS":
			n.Status = value
		}
	}
	return n
}
