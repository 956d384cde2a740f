package drain

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// interruptThreads sends a signal to each thread of this process: which of them waits in
// the kernel, nobody knows.
func interruptThreads(sig unix.Signal) {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		unix.Kill(os.Getpid(), sig) // one of them
	}
	for _, task := range tasks {
		if tid, err := strconv.Atoi(task.Name()); err == nil {
			unix.Tgkill(os.Getpid(), tid, sig)
		}
	}
}
