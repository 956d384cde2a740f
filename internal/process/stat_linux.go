package process

import (
	"bytes"
	"fmt"
	"os"
)

// The fields of /proc/PID/stat after the second, counted from zero (proc(5)).
const (
	statState  = 0
	statParent = 1
	statUser   = 11
	statSystem = 12
	statFields = 13 // at least so many
)

// readStat returns the fields of /proc/PID/stat after the second, or nil. The
// second is a name in parentheses, which may contain anything.
func readStat(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return parseStat(b)
}

func parseStat(b []byte) []string {
	var fields []string
	for _, f := range bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) {
		fields = append(fields, string(f))
	}
	if len(fields) < statFields {
		return nil
	}
	return fields
}
