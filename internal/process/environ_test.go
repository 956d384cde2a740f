package process

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMemoryLimit: as the runtime reads it (runtime/debug, SetMemoryLimit).
func TestMemoryLimit(t *testing.T) {
	for text, want := range map[string]int64{
		"1": 1, "1000B": 1000, "2KiB": 2 << 10, "3MiB": 3 << 20, "4GiB": 4 << 30, "5TiB": 5 << 40,
		"off": 0, "": 0, "0": 0, "-1": 0, "x": 0, "1KB": 0, "9223372036854775807": 0, "8388608TiB": 0,
	} {
		require.Equal(t, want, MemoryLimit([]string{"GOMEMLIMIT=1", "GOMEMLIMIT=" + text, "A=b"}), text)
	}
	require.Zero(t, MemoryLimit(nil))
}

// TestUserEnv of a user that the system does not know.
func TestUserEnv(t *testing.T) {
	require.Equal(t, []string{"HOME=/"}, UserEnv(&User{UID: 1<<31 + 7}))
}
