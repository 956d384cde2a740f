//go:build unix

package share

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/wire"
)

// TestNamedIsNotBelieved: how a worker says that an address was written counts only
// if it can be that address, and the text of an address is printable.
func TestNamedIsNotBelieved(t *testing.T) {
	bad := "harmless\n1970/01/01 00:00:00 FORGED \x1b[31m"
	for _, test := range []struct{ path, named, want string }{
		{"/tmp/x", "/tmp/x", "/tmp/x"},
		{"/tmp/x", "/tmp/../tmp//x", "/tmp/../tmp//x"},
		{"/tmp/x", "x", "x"},
		{"/tmp/x", "./x", "./x"},
		{"/tmp/x", "../tmp/x", "../tmp/x"},
		{"/tmp/x", "y", "/tmp/x"},
		{"/tmp/x", "mp/x", "/tmp/x"},
		{"/tmp/x", "/y", "/tmp/x"},
		{"/tmp/x", "@x", "/tmp/x"},
		{"/tmp/x", bad, "/tmp/x"},
		{"/tmp/x", "", "/tmp/x"},
		{"/" + bad, bad, "/harmless\\n1970/01/01 00:00:00 FORGED \\x1b[31m"},
	} {
		w := &wire.Message{Address: &test.path, AddressType: []byte("-1"), Go: &wire.Extension{Named: test.named}}
		addr, err := Reported(w)
		require.NoError(t, err)
		require.Equal(t, test.want, addr.String(), "%+v", test)
		q, err := readQuery(w)
		require.NoError(t, err)
		if test.path == "/tmp/x" {
			require.Equal(t, test.want, q.Named, "%+v", test)
		}
	}
}

// TestListeningIsPrintable: a worker chooses the path that Stats and what shows it print.
func TestListeningIsPrintable(t *testing.T) {
	r := newTestRegistry(t)
	m := newCommandWorker()
	w := resolved(t, "unix", filepath.Join(t.TempDir(), "a\n\x1b[31m")).message()
	require.NoError(t, r.Answer(m, reread(t, w), Terms{}))
	roomtest.Await(t, m.sockets, "socket").Release()
	r.host.Turn(func() {
		all := r.Listening()
		require.Len(t, all, 1)
		require.True(t, strings.HasSuffix(all[0].Address, `/a\n\x1b[31m`), all[0].Address)
	})
}
