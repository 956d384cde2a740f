package cluster

import (
	"fmt"
	"os"
	"syscall"
)

const sigKill = syscall.SIGKILL

var stopSignals = []os.Signal{os.Interrupt, syscall.SIGTERM}

var groupSignals = []os.Signal{os.Interrupt}

const termSignal = syscall.SIGTERM

func isProbe(os.Signal) bool { return false }

// startProcess: workers on Windows are not built yet.
func startProcess(*Process, []string) error {
	return fmt.Errorf("workers on Windows: %w", ErrNotSupported)
}

func waitExit(proc *os.Process) (*os.ProcessState, error) { return proc.Wait() }

func validateCredential(c *Credential) error {
	if c != nil {
		return fmt.Errorf("cluster: Options.Credential: %w", ErrNotSupported)
	}
	return nil
}

func exitOf(state *os.ProcessState) Exit {
	if state == nil {
		return Exit{Code: -1}
	}
	return Exit{Code: state.ExitCode(), State: state}
}

type outputPipes struct{}

func (o *outputPipes) drain() {}

func uidText(int) string { return "the master opens it" }

func surviveSIGPIPE() {}

func errnoOf(n int) error {
	if n < 0 {
		n = -n
	}
	return syscall.Errno(n)
}

func readNow(uintptr, []byte) (int, error) { return 0, ErrNotSupported }
