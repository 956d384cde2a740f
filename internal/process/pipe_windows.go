package process

import (
	"crypto/rand"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// outputBuffer is how much output a process can write before it waits for its
// reader.
const outputBuffer = 64 << 10

// outputPipe is the pipe of a process's output. Reading it keeps no thread in
// the kernel, as an anonymous pipe's does; the end that is written to is an
// ordinary one, for any program. Another process cannot come between: the name is
// random, there is one instance, and its only client is here. It is not that of a
// channel, which a worker knows by its name.
func outputPipe() (r, w *os.File, err error) {
	name, err := windows.UTF16PtrFromString(`\\.\pipe\cluster-output-` + fmt.Sprint(os.Getpid()) + "-" + rand.Text())
	if err != nil {
		return nil, nil, err
	}
	server, err := windows.CreateNamedPipe(name,
		windows.PIPE_ACCESS_INBOUND|windows.FILE_FLAG_OVERLAPPED|windows.FILE_FLAG_FIRST_PIPE_INSTANCE,
		windows.PIPE_TYPE_BYTE|windows.PIPE_REJECT_REMOTE_CLIENTS, 1, outputBuffer, outputBuffer, 0, nil)
	if err != nil {
		return nil, nil, os.NewSyscallError("CreateNamedPipe", err)
	}
	inherit := &windows.SecurityAttributes{InheritHandle: 1}
	inherit.Length = uint32(unsafe.Sizeof(*inherit))
	client, err := windows.CreateFile(name, windows.GENERIC_WRITE, 0, inherit, windows.OPEN_EXISTING, 0, 0)
	if err != nil {
		windows.CloseHandle(server)
		return nil, nil, os.NewSyscallError("CreateFile", err)
	}
	return os.NewFile(uintptr(server), "cluster-output"), os.NewFile(uintptr(client), "cluster-output"), nil
}
