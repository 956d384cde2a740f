package main

import (
	"bufio"
	"os"
	"strings"
)

// listens is the flag of a socket that listens, __SO_ACCEPTCON, as /proc/net/unix has it.
const listens = "00010000"

// bound are the paths of unix sockets that listen, as they were bound: also those of
// units that have a directory of their own.
func bound() (paths []string) {
	f, err := os.Open("/proc/net/unix")
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// Num RefCount Protocol Flags Type St Inode Path
		head, path, ok := strings.Cut(lines.Text(), " /")
		fields := strings.Fields(head)
		if ok && len(fields) == 7 && fields[3] == listens {
			paths = append(paths, "/"+path)
		}
	}
	return paths
}
