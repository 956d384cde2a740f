package process

import (
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

var procMemoryInfo = windows.NewLazySystemDLL("kernel32.dll").NewProc("K32GetProcessMemoryInfo")

// memoryCounters is PROCESS_MEMORY_COUNTERS.
type memoryCounters struct {
	size, faults  uint32
	peak, working uintptr
	_             [6]uintptr
}

// queryProcess calls fn with a handle of the process, if there is one to be had.
func queryProcess(pid int, fn func(h windows.Handle)) {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if err != nil {
		return
	}
	defer windows.CloseHandle(h)
	fn(h)
}

// Resident is the memory in bytes of a process: its working set.
func Resident(pid int) (n int64) {
	queryProcess(pid, func(h windows.Handle) {
		m := memoryCounters{}
		m.size = uint32(unsafe.Sizeof(m))
		if ok, _, _ := procMemoryInfo.Call(uintptr(h), uintptr(unsafe.Pointer(&m)), uintptr(m.size)); ok != 0 {
			n = int64(m.working)
		}
	})
	return n
}

// CPU is what a process has used in all.
func CPU(pid int) (d time.Duration) {
	queryProcess(pid, func(h windows.Handle) {
		var created, exited, kernel, user windows.Filetime
		if windows.GetProcessTimes(h, &created, &exited, &kernel, &user) == nil {
			d = duration(kernel) + duration(user)
		}
	})
	return d
}

// duration is a time that was counted in units of 100 ns.
func duration(f windows.Filetime) time.Duration {
	return time.Duration(int64(f.HighDateTime)<<32|int64(f.LowDateTime)) * 100
}
