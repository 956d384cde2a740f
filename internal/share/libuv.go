package share

import (
	"fmt"
	"strings"
)

// abstractLength is how many bytes the system has for the path of a unix socket.
const abstractLength = 108

// libuvName is the abstract name that a version of libuv makes of one: node's clients
// look for it there. Before 1.46 (node 18) a name ends at its first NUL byte, so that
// nothing is left of it, and before 1.48 (node 20) it is filled up with NUL bytes to
// the length of the field, of which the kernel takes account.
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
