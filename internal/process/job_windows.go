package process

import (
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/windows"
)

// job is what all processes of a Launcher are in, and what they start. The system
// ends it when the last handle of it is closed, whichever way its holders ended:
// nothing survives a master that was killed. What a worker starts to outlive the
// cluster needs CREATE_BREAKAWAY_FROM_JOB.
type job struct {
	once sync.Once
	h    windows.Handle // open as long as this process lives
	err  error
}

// get makes the job when it is first needed.
func (j *job) get() (windows.Handle, error) {
	j.once.Do(func() { j.h, j.err = newJob() })
	return j.h, j.err
}

func newJob() (windows.Handle, error) {
	h, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return 0, os.NewSyscallError("CreateJobObject", err)
	}
	var info windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION
	info.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | windows.JOB_OBJECT_LIMIT_BREAKAWAY_OK
	if _, err := windows.SetInformationJobObject(h, windows.JobObjectExtendedLimitInformation, uintptr(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info))); err != nil {
		windows.CloseHandle(h)
		return 0, os.NewSyscallError("SetInformationJobObject", err)
	}
	return h, nil
}

// enter puts a process into the job.
func (j *job) enter(proc *os.Process) error {
	job, err := j.get()
	if err != nil {
		return err
	}
	handleErr := proc.WithHandle(func(h uintptr) { err = windows.AssignProcessToJobObject(job, windows.Handle(h)) })
	if handleErr != nil {
		return handleErr
	}
	return os.NewSyscallError("AssignProcessToJobObject", err)
}

// lend gives the process a handle of the job, which it knows nothing of and which
// its end closes: until then the job does not end.
func (j *job) lend(proc *os.Process) {
	job, err := j.get()
	if err != nil {
		return
	}
	proc.WithHandle(func(h uintptr) {
		var theirs windows.Handle
		windows.DuplicateHandle(windows.CurrentProcess(), job, windows.Handle(h), &theirs, windows.SYNCHRONIZE, false, 0)
	})
}
