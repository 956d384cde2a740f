package systemd

import (
	"strconv"
	"strings"
)

// Notice is one datagram of a program that tells how it is. What else sd_notify(3)
// knows is not looked at.
type Notice struct {
	Ready    bool
	Stopping bool
	Alive    bool   // the watchdog's
	MainPID  int    // 0: it does not say
	Status   string // "": it does not say
}

// ParseNotice reads a datagram: an assignment in each line.
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
