//go:build unix

package gauge

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// newPair is both sides of a page. The descriptor is closed, as it is in a worker.
func newPair(t *testing.T) (*Page, Writer) {
	t.Helper()
	p, fd, err := New()
	require.NoError(t, err)
	t.Cleanup(p.Close)
	w, err := Map(fd)
	require.NoError(t, err)
	require.NoError(t, unix.Close(fd))
	return p, w
}

// What the worker writes the master reads at once, and nothing before.
func TestWhatIsWrittenIsRead(t *testing.T) {
	p, w := newPair(t)
	_, ok := p.Read()
	require.False(t, ok, "nobody has written")
	for _, c := range []Counts{{}, {1, 1, 0}, {1 << 40, 3, 0}} {
		w.Set(c)
		got, ok := p.Read()
		require.True(t, ok)
		require.Equal(t, c, got)
	}
	w.Receive()
	w.Receive()
	got, ok := p.Read()
	require.True(t, ok)
	require.Equal(t, Counts{1 << 40, 3, 2}, got)
	p.Close()
	p.Close()
	_, ok = p.Read()
	require.False(t, ok, "closed")
	w.Set(Counts{2, 2, 0}) // the worker outlives the page
	var none *Page
	none.Close()
	_, ok = none.Read()
	require.False(t, ok)
}

// Numbers that no worker can have are cut.
func TestLiesAreBounded(t *testing.T) {
	p, w := newPair(t)
	w.Set(Counts{-1, 1<<63 - 1, 0})
	got, ok := p.Read()
	require.True(t, ok)
	require.Equal(t, Counts{0, most, 0}, got)
}

// Whatever a worker does to what it was sent, the master reads on.
func TestAWorkerCannotTakeThePageAway(t *testing.T) {
	p, fd, err := New()
	require.NoError(t, err)
	defer p.Close()
	defer unix.Close(fd)
	w, err := Map(fd)
	require.NoError(t, err)
	w.Set(Counts{7, 3, 0})
	for _, n := range []int64{0, 1, 1 << 20} {
		unix.Ftruncate(fd, n)
		p.Read() // no SIGBUS
	}
}

// What is no page is refused: to write to it would be the end of the worker, or a file's.
func TestOnlyAPageIsMapped(t *testing.T) {
	dir := t.TempDir()
	short, err := os.Create(dir + "/short")
	require.NoError(t, err)
	defer short.Close()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	for _, f := range []*os.File{short, r} {
		_, err := Map(int(f.Fd()))
		require.ErrorContains(t, err, "no page")
	}
	_, err = Map(-1)
	require.Error(t, err)
}
