package handles_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// parcel is a message that goes with a handle, and says what to do with that.
type parcel struct {
	Cmd  string `json:"cmd"`
	Text string `json:"text,omitempty"`
}

// outcome is what a taker says about it.
type outcome struct {
	Cmd                       string   `json:"cmd"`
	Text                      string   `json:"text"`
	Has                       []bool   `json:"has"`
	Errors                    []string `json:"errors"`
	Closed, Unsupported, More bool
}

// taker is a worker that takes what comes with messages, and says what came of it.
var taker = clustertest.Program("taker", func() {
	taken := &takings{}
	cluster.OnMessage(taken.message)
	cluster.Respond("send", sendBack)
	<-cluster.Context().Done()
	select {}
})

type takings struct{ kept []io.Closer }

func (k *takings) message(w *cluster.Process, m cluster.Message) {
	var p parcel
	clustertest.Must(m.Decode(&p))
	out := outcome{Cmd: "outcome", Text: p.Text, Has: []bool{m.HasHandle()}}
	if err := takes[p.Cmd](k, m, p, &out); err != nil {
		out.Errors = append(out.Errors, err.Error())
		out.Unsupported = errors.Is(err, errors.ErrUnsupported)
	}
	out.Has = append(out.Has, m.HasHandle())
	clustertest.Must(w.Send(out))
}

// takes are the ways to take a handle.
var takes = map[string]func(k *takings, m cluster.Message, p parcel, out *outcome) error{
	"conn": func(_ *takings, m cluster.Message, p parcel, _ *outcome) error {
		c, err := m.Conn()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			fmt.Fprintf(c, "worker %d %s\n", cluster.Worker.ID(), p.Text)
			io.Copy(c, c)
		}()
		return nil
	},
	"listener": func(k *takings, m cluster.Message, _ parcel, out *outcome) error {
		ln, err := m.Listener()
		if err != nil {
			return err
		}
		out.Text = ln.Addr().String()
		k.kept = append(k.kept, ln)
		go clustertest.AnswerConns(ln)
		return nil
	},
	"packet": func(k *takings, m cluster.Message, _ parcel, out *outcome) error {
		c, err := m.PacketConn()
		if err != nil {
			return err
		}
		out.Text = c.LocalAddr().String()
		k.kept = append(k.kept, c)
		go func() {
			buf := make([]byte, 1500)
			for {
				n, from, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				c.WriteTo(fmt.Appendf(nil, "worker %d %s", cluster.Worker.ID(), buf[:n]), from)
			}
		}()
		return nil
	},
	"file": func(_ *takings, m cluster.Message, _ parcel, out *outcome) error {
		f, err := m.File()
		if err != nil {
			return err
		}
		defer f.Close()
		b, err := io.ReadAll(f)
		out.Text = string(b)
		return err
	},
	"leave": func(k *takings, _ cluster.Message, _ parcel, _ *outcome) error { return nil },
	// A connection: taken as all that it is not, and then twice.
	"wrong": func(_ *takings, m cluster.Message, _ parcel, out *outcome) error {
		_, errs := m.Listener()
		out.Errors = append(out.Errors, errs.Error())
		_, errs = m.PacketConn()
		out.Errors = append(out.Errors, errs.Error())
		_, errs = m.File()
		out.Errors = append(out.Errors, errs.Error())
		out.Has = append(out.Has, m.HasHandle())
		c, err := m.Conn()
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = m.Conn()
		return err
	},
	"plain": func(_ *takings, m cluster.Message, _ parcel, out *outcome) error {
		_, err := m.Conn()
		return err
	},
	// A connection that is taken by another goroutine when all callbacks are over.
	"late": func(_ *takings, m cluster.Message, _ parcel, _ *outcome) error {
		go func() {
			for m.HasHandle() {
				time.Sleep(time.Millisecond)
			}
			_, err := m.Conn()
			clustertest.Must(cluster.Worker.Send(outcome{Cmd: "outcome", Text: "late", Errors: []string{err.Error()}, Closed: errors.Is(err, net.ErrClosed)}))
		}()
		return nil
	},
	"exit":   func(*takings, cluster.Message, parcel, *outcome) error { os.Exit(0); return nil },
	"panics": func(*takings, cluster.Message, parcel, *outcome) error { panic("in a callback") },
	"blocks": func(*takings, cluster.Message, parcel, *outcome) error { select {} },
}

// sending is what a taker is to send to the master: a connection to the address, or a
// listener there.
type sending struct {
	Cmd     string `json:"cmd"`
	Text    string
	Address string
}

// sendBack sends it.
func sendBack(w *cluster.Process, s sending) (bool, error) {
	if s.Text == "conn" {
		c, err := net.Dial("tcp", s.Address)
		if err != nil {
			return false, err
		}
		defer c.Close()
		return true, w.SendHandle(parcel{Text: s.Text}, c)
	}
	how, what, _ := strings.Cut(s.Text, ", ")
	lc := cluster.ListenConfig{Exclusive: how == "listener", Scheduling: schedulings[how]}
	if what == "packets" {
		c, err := lc.ListenPacket(context.Background(), "udp", s.Address)
		if err != nil {
			return false, err
		}
		defer c.Close()
		return true, w.SendHandle(parcel{Text: s.Text}, c)
	}
	ln, err := lc.Listen(context.Background(), "tcp", s.Address)
	if err != nil {
		return false, err
	}
	defer ln.Close()
	if what == "accepted" {
		if err := acceptOne(ln); err != nil {
			return false, err
		}
	}
	return true, w.SendHandle(parcel{Text: s.Text}, ln)
}

// schedulings are those of the listeners that a taker sends, by the first word of the text.
var schedulings = map[string]cluster.Scheduling{
	"robin": cluster.RoundRobin, "least": cluster.LeastConnections,
	"sharded": cluster.Sharded, "by client": cluster.ByClient,
}

// acceptOne connects to ln and accepts a connection.
func acceptOne(ln net.Listener) error {
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		return err
	}
	defer client.Close()
	c, err := ln.Accept()
	if err != nil {
		return err
	}
	return c.Close()
}

// takers makes the test process a master of n takers, and returns what they say.
func takers(t *testing.T, n int, o cluster.Options) (all []*cluster.Process, outcomes <-chan outcome) {
	t.Helper()
	clustertest.WithMaster(t, taker, o)
	c := make(chan outcome, 10000)
	t.Cleanup(cluster.Handle("outcome", func(_ *cluster.Process, o outcome) { c <- o }))
	for range n {
		all = append(all, clustertest.Fork(t))
	}
	return all, c
}

// addressOf is one to listen on.
func addressOf(t *testing.T, network string) string {
	if network == "unix" {
		return filepath.Join(clustertest.TempDir(t), "s")
	}
	return "127.0.0.1:0"
}

// pair is both ends of a connection.
func pair(t *testing.T, network string) (server, client net.Conn) {
	t.Helper()
	ln, err := net.Listen(network, addressOf(t, network))
	require.NoError(t, err)
	defer ln.Close()
	client, err = net.Dial(network, ln.Addr().String())
	require.NoError(t, err)
	server, err = ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { client.Close(); server.Close() })
	client.SetDeadline(time.Now().Add(clustertest.Patience))
	return server, client
}

// requireEnd checks that nobody has the other end of c any more.
func requireEnd(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(clustertest.Patience))
	_, err := io.Copy(io.Discard, c)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
}
