package cluster

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-cluster/cluster/internal/channel"
	"github.com/go-cluster/cluster/internal/handle"
	"github.com/go-cluster/cluster/internal/link"
	"github.com/go-cluster/cluster/internal/roomtest"
	"github.com/go-cluster/cluster/internal/supervise"
	"github.com/go-cluster/cluster/internal/wire"
)

// internalSeeds are one message of each kind, and some that are not quite.
var internalSeeds = []string{
	`{"cmd":"NODE_CLUSTER","act":"online","seq":0,"go":{"version":1}}`,
	`{"cmd":"NODE_CLUSTER","act":"online","seq":0}`,
	`{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":"127.0.0.1","port":0,"addressType":4,"flags":0,"backlog":77,"seq":1}`,
	`{"cmd":"NODE_CLUSTER","act":"queryServer","address":null,"port":8000,"addressType":4,"backlog":false,"seq":1}`,
	`{"cmd":"NODE_CLUSTER","act":"queryServer","address":"::","port":0,"addressType":6,"flags":1,"seq":1}`,
	`{"cmd":"NODE_CLUSTER","act":"queryServer","address":"/a/\u0000b","port":-1,"addressType":-1,"readableAll":true,"writableAll":true,"seq":1}`,
	`{"cmd":"NODE_CLUSTER","act":"queryServer","address":null,"port":null,"addressType":null,"fd":0}`,
	`{"cmd":"NODE_CLUSTER","act":"queryServer","address":"0.0.0.0","port":0,"addressType":"udp4","fd":-1,"flags":4}`,
	`{"cmd":"NODE_CLUSTER","act":"queryServer","address":"fe80::1%eth0","port":1,"addressType":"udp6","go":{"named":"x","backlog":9,"mode":511,"scheduling":2,"mptcp":true}}`,
	`{"cmd":"NODE_CLUSTER","act":"queryServer","address":"@x","port":-1,"addressType":"unixgram"}`,
	`{"cmd":"NODE_CLUSTER","act":"listening","index":0,"data":null,"address":"127.0.0.1","port":36217,"addressType":4,"seq":2}`,
	`{"cmd":"NODE_CLUSTER","act":"listening","address":"/x","port":-1,"addressType":-1,"go":{"named":"x"}}`,
	`{"cmd":"NODE_CLUSTER","act":"close","key":"tcp4 127.0.0.1:0#0","seq":4}`,
	`{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":5}`,
	`{"cmd":"NODE_CLUSTER","act":"disconnect","seq":2,"go":{"timeout":1}}`,
	`{"cmd":"NODE_CLUSTER","ack":5,"seq":2}`,
	`{"cmd":"NODE_CLUSTER","ack":1,"errno":-98,"key":"k","data":null,"sockname":{"address":"127.0.0.1","family":"IPv4","port":36217}}`,
	`{"cmd":"NODE_CLUSTER","ack":1,"accepted":true,"seq":3}`,
	`{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","act":"newconn","key":"k","seq":1}}`,
	`{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","errno":0,"key":"k","ack":1,"data":null,"seq":0}}`,
	`{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"hello":1},"key":"6::::0"}`,
	`{"cmd":"NODE_HANDLE","msg":{"cmd":"NODE_HANDLE","msg":null}}`,
	`{"cmd":"NODE_HANDLE_ACK"}`, `{"cmd":"NODE_HANDLE_NACK"}`,
	`{"cmd":"NODE_GO_CLUSTER","act":"handle","msg":{"hello":1}}`, `{"cmd":"NODE_GO_CLUSTER","act":"handle"}`,
	`{"cmd":"NODE_GO_CLUSTER","act":"handle","msg":{"cmd":"NODE_HANDLE","msg":1},"socket":"8"}`,
	`{"cmd":"NODE_GO_CLUSTER","act":"ready"}`, `{"cmd":"NODE_GO_CLUSTER","act":"draining"}`,
	`{"cmd":"NODE_GO_CLUSTER","act":"ask","n":3}`, `{"cmd":"NODE_GO_CLUSTER","act":"received","n":3}`,
	`{"cmd":"NODE_GO_CLUSTER","act":"request","id":1,"msg":{"cmd":"x"}}`, `{"cmd":"NODE_GO_CLUSTER","act":"request"}`,
	`{"cmd":"NODE_GO_CLUSTER","act":"reply","id":1,"msg":1}`, `{"cmd":"NODE_GO_CLUSTER","act":"reply","id":1,"error":"x"}`,
	`{"cmd":"NODE_GO_CLUSTER","act":"pong","msg":{}}`, `{"cmd":"NODE_GO_CLUSTER","act":"ping"}`, `{"cmd":"NODE_GO_CLUSTER","act":"full"}`,
	`{"cmd":"NODE_SOCKET_NOTIFY_CLOSE","key":"k"}`, `{"cmd":"NODE_SOCKET_GET_COUNT","key":"k"}`,
	`{"cmd":"NODE_CLUSTER","act":{},"seq":"x"}`, "garbage", "", `"message"`, `{"a":1}`,
}

func addSeeds(f *testing.F) {
	for _, s := range internalSeeds {
		f.Add([]byte(s+"\n"), uint8(strings.Count(s, "NODE_HANDLE\"")+strings.Count(s, `"handle"`)), uint16(len(s)))
		f.Add([]byte(s+"\r\n"+s+"\n"), uint8(3), uint16(len(s)/2))
	}
	f.Add([]byte(strings.Join(internalSeeds, "\n")+"\n"), uint8(5), uint16(1000))
}

// fuzzPeer sends stream to p, in two writes. The second one comes with descriptors. It reads
// everything and answers nothing, and returns when all that came is delivered.
func fuzzPeer(t *testing.T, p *Process, peer roomtest.Peer, stream []byte, fds uint8, cut uint16) {
	p.link.Start(0)
	defer peer.Close()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		drainFar(peer)
	}()
	at := min(int(cut), len(stream))
	peer.Write(stream[:at])
	if rest := stream[at:]; len(rest) > 0 {
		writeFar(peer, rest, fds)
	}
	endFar(peer)
	roomtest.Await(t, p.link.Done(), "end of the link")
	roomtest.Await(t, drained, "end of the peer")
	p.events.idle(nil)
}

// owing gives the peer something to answer: a question, a receipt, a request
// and a handle. Each is told of its end.
func owing(t *testing.T, l *link.Link) (told *sync.WaitGroup) {
	told = new(sync.WaitGroup)
	told.Add(4)
	answered := func(_ *wire.Message, h *handle.Handle) { h.Release(); told.Done() }
	l.Ask(&wire.Message{Act: wire.ActQuery}, answered)
	l.Send("asked", func(error) { told.Done() })
	go func() {
		defer told.Done()
		l.Request(t.Context(), 1, nil)
	}()
	l.AskHandle(wire.TypeNative, &wire.Message{Act: wire.ActNewConn, Key: "k"}, anyHandle(t), answered)
	return told
}

// FuzzMaster feeds the master whatever a worker may write.
func FuzzMaster(f *testing.F) {
	addSeeds(f)
	refuse := errors.New("no address is opened in a fuzz test")
	o, err := Options{AllowListen: func(*Process, string, string) error { return refuse }, MaxMessage: 100 << 10,
		ShutdownTimeout: time.Hour}.resolve()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, stream []byte, fds uint8, cut uint16) {
		ours, theirs, err := channel.Pair()
		require.NoError(t, err)
		m := newCluster().master
		p := newProcess(m.cluster, 1, -1)
		p.connected.Store(true)
		gen := &generation{opts: o}
		gen.askLibuv.Do(func() {}) // the program is none that could be asked
		p.child = &child{m: m, p: p, opts: o, gen: gen, exited: make(chan struct{})}
		p.owner = p.child
		p.link = link.New(ours, (*inbox)(p), &fromWorker{m: m, p: p}, link.PeerUnknown, link.Options{Name: linkName(1), MaxMessage: o.MaxMessage, MaxQueue: o.MaxQueue})
		p.OnError(func(*Process, error) {})
		told := owing(t, p.link)
		m.supervisor = supervise.New(fuzzHost{host{m}, p}, os.Kill, 0)
		_, err = m.forkOne(nil)
		require.NoError(t, err)
		fuzzPeer(t, p, roomtest.OpenPeer(t, theirs), stream, fds, cut)
		told.Wait()
		m.call(func() { m.supervisor.Exited(time.Now(), p.id, supervise.Exit{}) })
		for p.child.queries.Load() > 0 {
			time.Sleep(time.Millisecond)
		}
		require.Empty(t, m.registry.Listening())
	})
}

// fuzzHost is a master whose only worker is no process.
type fuzzHost struct {
	host
	p *Process
}

func (h fuzzHost) Open(number int, _ bool) {
	go h.post(func() { h.supervisor.Opened(time.Now(), number, h.p.child.opts.supervision(), nil) })
}

func (h fuzzHost) Release(int) {}

func (h fuzzHost) Start(supervise.Order) {
	h.workers[h.p.id] = h.p
	go h.post(func() { h.supervisor.Started(time.Now(), h.p.id, 1<<28, time.Now()) })
}

func (h fuzzHost) Signal(int, os.Signal) error { return nil }

func (h fuzzHost) Tell(e supervise.Event) {
	if _, forked := e.(supervise.Forked); !forked {
		h.host.Tell(e)
	}
}

// FuzzWorker feeds a worker whatever a master may write.
func FuzzWorker(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, stream []byte, fds uint8, cut uint16) {
		if strings.Contains(string(stream), "stderr") || strings.Contains(string(stream), `\u`) {
			return // which would be this process's own
		}
		ours, theirs, err := channel.Pair()
		require.NoError(t, err)
		p := newProcess(newCluster(), 1, 0)
		in := testInside(p, announcement{Version: wire.ProtocolVersion, ShutdownTimeout: time.Hour})
		p.inside, p.owner = in, in
		p.connected.Store(true)
		p.link = link.New(ours, (*inbox)(p), &fromMaster{in: in}, link.PeerGo, link.Options{Name: linkName(1), MaxMessage: 100 << 10, MaxQueue: defaultMaxQueue})
		p.OnError(func(*Process, error) {})
		told := owing(t, p.link)
		fuzzPeer(t, p, roomtest.OpenPeer(t, theirs), stream, fds, cut)
		told.Wait()
	})
}

// FuzzAnnouncement: whatever stands in the variable, a worker that finds
// rubbish takes its master for node.
func FuzzAnnouncement(f *testing.F) {
	f.Add(`{"version":1,"slot":3,"manualReady":true,"shutdownTimeout":30000000000,"maxMessage":16777216,"maxQueue":67108864}`)
	f.Add(`{"version":1}`)
	f.Add(`{"version":-1,"maxMessage":-5,"maxQueue":-5,"shutdownTimeout":-5}`)
	f.Add(`rubbish`)
	f.Fuzz(func(t *testing.T, env string) {
		a := readAnnouncement(env)
		require.Positive(t, a.MaxMessage)
		require.Positive(t, a.MaxQueue)
		require.Positive(t, a.ShutdownTimeout)
		require.GreaterOrEqual(t, a.Slot, -1)
	})
}
