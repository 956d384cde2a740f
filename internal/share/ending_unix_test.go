//go:build unix

package share

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// listening lets m listen on a unix socket at path, and returns the address's key.
func listening(t *testing.T, r *Registry, m *commandWorker, path string) string {
	q := resolved(t, "unix", path)
	w := q.message()
	require.NoError(t, r.Answer(m, reread(t, w), Terms{}))
	require.Contains(t, waitFor(t, m.answers, "answer"), `"errno":0`)
	waitFor(t, m.sockets, "socket").Release()
	return q.Key()
}

// An address ends, and its file is removed, when the last one that listens closes
// its listener by itself: not when it is on its way out, or dead.
func TestAddressEnds(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	for name, c := range map[string]struct {
		end   func(r *Registry, key string, first, last *commandWorker)
		stays bool
	}{
		"closed by both": {func(r *Registry, key string, first, last *commandWorker) {
			r.Close(first, key, true)
			require.FileExists(t, path)
			r.Close(last, key, true)
		}, false},
		"the other one is on its way out": {func(r *Registry, key string, first, last *commandWorker) {
			first.leaving = true
			r.Close(last, key, true)
		}, false},
		"the last one parts": {func(r *Registry, key string, first, last *commandWorker) {
			r.Close(first, key, true)
			r.Close(last, key, false)
		}, true},
		"the last one drains": {func(r *Registry, key string, first, last *commandWorker) {
			r.Close(first, key, true)
			last.leaving = true
			r.Close(last, key, true)
		}, true},
		"the last one dies": {func(r *Registry, key string, first, last *commandWorker) {
			r.Close(first, key, true)
			r.Forget(last)
		}, true},
		"closed by one that never had it": {func(r *Registry, key string, first, last *commandWorker) {
			r.Forget(first)
			r.Forget(last)
			r.Close(newCommandWorker(), key, true)
		}, true},
		"a reload, and nobody of its generation came": {func(r *Registry, key string, first, last *commandWorker) {
			r.Forget(first)
			last.leaving = true
			r.Outdate(0)
		}, false},
		"a reload, and one came and died": {func(r *Registry, key string, first, last *commandWorker) {
			heir := newCommandWorker()
			heir.generation = 1
			listening(t, r, heir, path)
			r.Forget(first)
			r.Forget(last)
			r.Forget(heir)
			r.Outdate(0)
		}, true},
		"a reload, and an old one still listens": {func(r *Registry, key string, first, last *commandWorker) {
			r.Forget(first)
			r.Outdate(0)
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTestRegistry(t)
			first, last := newCommandWorker(), newCommandWorker()
			key := listening(t, r, first, path)
			require.Equal(t, key, listening(t, r, last, path))
			c.end(r, key, first, last)
			if c.stays {
				require.FileExists(t, path)
				require.Len(t, r.Listening(), 1)
				return
			}
			require.NoFileExists(t, path)
			require.Empty(t, r.Listening())
			listening(t, r, newCommandWorker(), path) // it may come back
		})
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// What the master listens on itself counts until its Close.
func TestHeldAddressEnds(t *testing.T) {
	r := newTestRegistry(t)
	ln, err := r.HoldListener(t.Context(), resolved(t, "tcp", "127.0.0.1:0"))
	require.NoError(t, err)
	r.Outdate(0)
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	c.Close()
	require.NoError(t, ln.Close())
	require.NoError(t, ln.Close())
	_, err = net.Dial("tcp", ln.Addr().String())
	require.Error(t, err)
	require.Empty(t, r.Listening())
}
