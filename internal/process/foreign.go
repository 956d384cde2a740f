package process

import "github.com/go-cluster/cluster/internal/handle"

// Foreign is what a process gets in place of a channel: sockets, as a service manager
// passes them (sd_listen_fds(3)). With LISTEN_FDS and WATCHDOG_USEC goes the process's own
// number (LISTEN_PID, WATCHDOG_PID), which is not known before the process exists.
//
// So this very program is executed first, sets them, and becomes the other program in
// [Become]. On Linux the process is sent SIGTERM when this one ends, since it has no
// channel by whose end it could notice that.
type Foreign struct {
	Self    *Program         // this program
	Sockets []*handle.Handle // the process has them from descriptor 3 on; they stay the caller's
}

// becomeEnv makes this program become another one. It is removed before that.
const becomeEnv = "GO_CLUSTER_BECOME"

// become is the value of becomeEnv.
type become struct {
	Path    string `json:"path"`              // of the program
	Held    int    `json:"held,omitempty"`    // the open program, if that can be executed; else 0
	Status  int    `json:"status"`            // where it is told that the program cannot be executed
	Sockets int    `json:"sockets,omitempty"` // how many there are
}

// firstSocket is the descriptor of the first socket: SD_LISTEN_FDS_START.
const firstSocket = 3
