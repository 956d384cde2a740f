package cluster

import (
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/windows"
)

// workersJob returns the job that all workers are in, and what they start. The
// system ends it when the last handle of it is closed, whichever way its holders
// ended: nothing survives a master that was killed. What a worker starts to
// outlive the cluster needs CREATE_BREAKAWAY_FROM_JOB.
var workersJob = sync.OnceValues(func() (windows.Handle, error) {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return 0, os.NewSyscallError("CreateJobObject", err)
	}
	var info windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION
	info.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | windows.JOB_OBJECT_LIMIT_BREAKAWAY_OK
	if _, err := windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation, uintptr(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info))); err != nil {
		windows.CloseHandle(job)
		return 0, os.NewSyscallError("SetInformationJobObject", err)
	}
	return job, nil
})

// enterJob puts a process into the job.
func enterJob(proc *os.Process) error {
	job, err := workersJob()
	if err != nil {
		return err
	}
	handleErr := proc.WithHandle(func(h uintptr) { err = windows.AssignProcessToJobObject(job, windows.Handle(h)) })
	if handleErr != nil {
		return handleErr
	}
	return os.NewSyscallError("AssignProcessToJobObject", err)
}

// letDrain lets a worker that is online outlive a master that is killed: it sees
// the end of its channel, drains, and has a clock of its own for that. For so
// long the job must not end, so the worker gets a handle of it, which it knows
// nothing of, and which is closed by its end. One that never came online, or
// hangs before, has none and ends with the master.
func letDrain(p *Process) {
	job, err := workersJob()
	if err != nil || p.child.proc == nil { // none in tests of the state alone
		return
	}
	p.child.proc.WithHandle(func(h uintptr) {
		var theirs windows.Handle
		windows.DuplicateHandle(windows.CurrentProcess(), job, windows.Handle(h), &theirs, windows.SYNCHRONIZE, false, 0)
	})
}
