package channel

import (
	"crypto/rand"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
)

// pipePrefix begins the names of this package's pipes. A worker knows its
// channel by it.
const pipePrefix = "go-cluster-"

// pipeBuffer is how many bytes a pipe takes, each way, before a write waits for
// its reader.
const pipeBuffer = 64 << 10

// newPipe makes a named pipe and opens its client end, to be inherited. Another
// process cannot come between: the name is random, there is one instance, and
// its only client is here. Anonymous pipes would not do: they are one way only,
// and a read of one keeps a thread.
func newPipe() (server, client windows.Handle, err error) {
	name, err := windows.UTF16PtrFromString(`\\.\pipe\` + pipePrefix + strconv.Itoa(os.Getpid()) + "-" + rand.Text())
	if err != nil {
		return 0, 0, err
	}
	server, err = windows.CreateNamedPipe(name,
		windows.PIPE_ACCESS_DUPLEX|windows.FILE_FLAG_OVERLAPPED|windows.FILE_FLAG_FIRST_PIPE_INSTANCE,
		windows.PIPE_TYPE_BYTE|windows.PIPE_REJECT_REMOTE_CLIENTS, 1, pipeBuffer, pipeBuffer, 0, nil)
	if err != nil {
		return 0, 0, os.NewSyscallError("CreateNamedPipe", err)
	}
	inherit := &windows.SecurityAttributes{InheritHandle: 1}
	inherit.Length = uint32(unsafe.Sizeof(*inherit))
	client, err = windows.CreateFile(name, windows.GENERIC_READ|windows.GENERIC_WRITE, 0, inherit, windows.OPEN_EXISTING, windows.FILE_FLAG_OVERLAPPED, 0)
	if err != nil {
		windows.CloseHandle(server)
		return 0, 0, os.NewSyscallError("CreateFile", err)
	}
	return server, client, nil
}

// isOurPipe reports whether h is the client end of a pipe of this package.
func isOurPipe(h windows.Handle) bool {
	if typ, err := windows.GetFileType(h); err != nil || typ != windows.FILE_TYPE_PIPE {
		return false
	}
	var flags uint32
	if windows.GetNamedPipeInfo(h, &flags, nil, nil, nil) != nil || flags&windows.PIPE_SERVER_END != 0 {
		return false
	}
	var name struct {
		length uint32
		text   [windows.MAX_PATH]uint16
	}
	if err := windows.GetFileInformationByHandleEx(h, windows.FileNameInfo, (*byte)(unsafe.Pointer(&name)), uint32(unsafe.Sizeof(name))); err != nil {
		return false
	}
	text := windows.UTF16ToString(name.text[:min(int(name.length/2), len(name.text))])
	return strings.HasPrefix(strings.TrimPrefix(text, `\`), pipePrefix)
}

// procPeekNamedPipe is what golang.org/x/sys does not wrap.
var procPeekNamedPipe = windows.NewLazySystemDLL("kernel32.dll").NewProc("PeekNamedPipe")

// peekPipe returns how many bytes wait to be read.
func peekPipe(h windows.Handle) (n int, err error) {
	var avail uint32
	ok, _, errno := procPeekNamedPipe.Call(uintptr(h), 0, 0, 0, uintptr(unsafe.Pointer(&avail)), 0)
	if ok == 0 {
		return 0, errno
	}
	return int(avail), nil
}

// The states of a pipe, and the question for it.
const (
	filePipeLocalInformation = 24
	filePipeConnectedState   = 3
)

// pipeClosed reports whether the other end is closed, even if something that it
// wrote has not been read.
func pipeClosed(h windows.Handle) bool {
	var info struct {
		_     [8]uint32
		state uint32
		_     uint32
	}
	var iosb windows.IO_STATUS_BLOCK
	err := windows.NtQueryInformationFile(h, &iosb, (*byte)(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)), filePipeLocalInformation)
	return err != nil || info.state != filePipeConnectedState
}
