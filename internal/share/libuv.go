package share

import (
	"fmt"
	"strings"
)

// abstractLength is how many bytes the system has for the path of a unix socket.
const abstractLength = 108

// libuvName returns the abstract name that a version of libuv makes of name. Node's clients
// connect to that one. Before libuv 1.46 (node 18) a name ends at its first NUL byte, so nothing
// is left of it. Before 1.48 (node 20) a name is filled up with NUL bytes to the length of the
// field, and for the kernel they are a part of it.
func libuvName(name, version string) string {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil || major != 1 || len(name) > abstractLength {
		return name
	}
	switch {
	case minor < 46:
		name = "@"
	case minor >= 48:
		return name
	}
	return name + strings.Repeat("\x00", abstractLength-len(name))
}
