package process

import (
	"bytes"
	"fmt"
	"os"
)

// Traced reports whether a debugger, or another tracer, is attached to a process
// (proc_pid_status(5), TracerPid).
func Traced(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	_, rest, found := bytes.Cut(status, []byte("\nTracerPid:\t"))
	return found && !bytes.HasPrefix(rest, []byte("0\n"))
}
