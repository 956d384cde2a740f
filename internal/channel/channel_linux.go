package channel

import "golang.org/x/sys/unix"

const sendFlags = unix.MSG_NOSIGNAL | unix.MSG_DONTWAIT

// fionread asks for the bytes that wait to be read.
const fionread = unix.TIOCINQ

func socketpair() ([2]int, error) {
	return unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
}

// recvmsgCloexec receives with close-on-exec set on every descriptor from the
// start, so that a fork at this very moment inherits none.
func recvmsgCloexec(fd int, p, oob []byte) (n, oobn int, fds []int, err error) {
	n, oobn, _, _, err = unix.Recvmsg(fd, p, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return 0, 0, nil, err
	}
	return n, oobn, ParseRights(oob[:oobn]), nil
}
