//go:build unix

package cluster

import (
	"encoding/json"
	"net"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/socket"
)

// writeFar writes p, with n descriptors beside it.
func writeFar(peer roomtest.Peer, p []byte, n uint8) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return
	}
	defer null.Close()
	rights := make([]int, n)
	for i := range rights {
		rights[i] = int(null.Fd())
	}
	sent, _, _ := peer.(*net.UnixConn).WriteMsgUnix(p, unix.UnixRights(rights...), nil)
	peer.Write(p[sent:])
}

// drainFar reads to the end.
func drainFar(peer roomtest.Peer) {
	p, oob := make([]byte, 4096), make([]byte, 4096)
	for {
		_, oobn, _, _, err := peer.(*net.UnixConn).ReadMsgUnix(p, oob)
		for _, fd := range channel.ParseRights(oob[:oobn]) {
			unix.Close(fd)
		}
		if err != nil {
			return
		}
	}
}

// endFar says that nothing more is written.
func endFar(peer roomtest.Peer) { peer.(*net.UnixConn).CloseWrite() }

// anyHandle is one that can be passed on.
func anyHandle(t testing.TB) *handle.Handle {
	f, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer f.Close()
	h, err := socket.Duplicate(f)
	require.NoError(t, err)
	return h
}

// TestStopBehindControlSignals: a SIGTERM is taken, however many signals of the
// other kind wait.
func TestStopBehindControlSignals(t *testing.T) {
	stops, controls, end := newCluster().master.takeSignals(new(running))
	defer end()
	deadline := time.Now().Add(30 * time.Second)
	for len(controls) < cap(controls) {
		require.True(t, time.Now().Before(deadline), "%d signals have come", len(controls))
		before := len(controls)
		require.NoError(t, unix.Kill(os.Getpid(), syscall.SIGHUP))
		for len(controls) == before && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond) // two at once are one
		}
	}
	require.NoError(t, unix.Kill(os.Getpid(), syscall.SIGTERM))
	require.Equal(t, syscall.SIGTERM, roomtest.Await(t, stops, "the stop"))
}

// members adds the members of a type, as they are written in JSON.
func members(t reflect.Type, at string, all map[string]bool) {
	_, writes := reflect.PointerTo(t).MethodByName("MarshalJSON")
	switch {
	case writes: // as it likes
	case t.Kind() == reflect.Pointer:
		members(t.Elem(), at, all)
		return
	case t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8:
		members(t.Elem(), at+"[]", all)
		return
	case t.Kind() == reflect.Map:
		members(t.Elem(), at+"{}", all)
		return
	case t.Kind() == reflect.Struct:
		for _, f := range reflect.VisibleFields(t) {
			if f.IsExported() && !f.Anonymous {
				members(f.Type, at+"."+f.Name, all)
			}
		}
		return
	}
	all[at+" "+t.Kind().String()] = true
}

// TestStateMembers: what one version writes into the state of an upgrade, the next one
// reads. So a member that is in testdata/state.txt keeps its name and its kind until
// upgrade.Version was raised twice. What is new is to be written there.
func TestStateMembers(t *testing.T) {
	all := make(map[string]bool)
	members(reflect.TypeFor[masterState](), "", all)
	b, err := os.ReadFile("testdata/state.txt")
	require.NoError(t, err)
	for member := range strings.Lines(string(b)) {
		require.Contains(t, all, strings.TrimSuffix(member, "\n"))
	}

	// What a later version adds is ignored, and what an earlier one did not write is empty.
	var s masterState
	require.NoError(t, json.Unmarshal([]byte(`{"Path":"/p","New":{"X":1},"Processes":[{"ID":7,"New":true}],"Registry":{"Entries":[{"Nth":3,"New":[]}]}}`), &s))
	require.Equal(t, "/p", s.Path)
	require.Equal(t, 7, s.Processes[0].ID)
	require.Equal(t, 3, s.Registry.Entries[0].Nth)
	require.Nil(t, s.Processes[0].Link)
}
