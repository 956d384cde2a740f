//go:build unix

package cluster_test

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// SIGTERM to one worker lets it finish and exit with 0, though nobody asked the
// master; another takes its place.
func TestServeSigtermToWorker(t *testing.T) {
	t.Parallel()
	for _, mode := range webModes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			p, addr := startWeb(t, mode)
			slow := fetch(1, "http://"+addr+"/slow")
			pid := atoi(p.expect("begun"))
			require.NoError(t, syscall.Kill(pid, syscall.SIGTERM))
			f := await(t, slow, "answer")
			require.NoError(t, f.err)
			require.Len(t, f.body, fullBody)
			require.Equal(t, itoa(pid)+" 0 <nil> false", p.expect("death"))
			require.Equal(t, addr, p.expect("listening"))
			_, err := get("http://" + addr)
			require.NoError(t, err)
			p.signal(syscall.SIGTERM)
			require.Equal(t, 0, p.exit())
		})
	}
}
