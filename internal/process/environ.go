package process

import (
	"math"
	"os/user"
	"strconv"
	"strings"
)

// Lookup returns the value that a process with this environment finds for the
// variable. Of several it is the last one.
func Lookup(env []string, name string) (value string, ok bool) {
	for _, kv := range env {
		if k, v, _ := strings.Cut(kv, "="); EnvName(k) == name {
			value, ok = v, true
		}
	}
	return value, ok
}

// MemoryLimit is the GOMEMLIMIT of an environment in bytes, or 0 if that sets
// none: it is not there, or off.
func MemoryLimit(env []string) int64 {
	text, _ := Lookup(env, "GOMEMLIMIT")
	text = strings.TrimSuffix(text, "B")
	shift := 0
	for i, unit := range []string{"Ki", "Mi", "Gi", "Ti"} {
		if digits, ok := strings.CutSuffix(text, unit); ok {
			text, shift = digits, 10*(i+1)
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64>>shift {
		return 0
	}
	if n <<= shift; n == math.MaxInt64 {
		return 0 // as good as none
	}
	return n
}

// UserEnv returns the variables that say who a process's user is. For a user that the
// system does not know that is HOME=/ only.
func UserEnv(u *User) []string {
	known, err := user.LookupId(strconv.FormatUint(uint64(u.UID), 10))
	if err != nil {
		return []string{"HOME=/"}
	}
	home := known.HomeDir
	if home == "" {
		home = "/"
	}
	return []string{"HOME=" + home, "USER=" + known.Username, "LOGNAME=" + known.Username}
}
