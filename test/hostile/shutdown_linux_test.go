package hostile_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// shutsDown has two workers that serve on the unix socket SOCKET. The one that is asked for
// /shutdown shuts that down.
var shutsDown = clustertest.Program("shuts-down", func() {
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 2}))
	cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) { fmt.Println("death", w.ID(), e.Voluntary) })
	clustertest.Must(cluster.AutoFork())
	if cluster.IsMaster() {
		clustertest.Must(cluster.Run(context.Background()))
		return
	}
	ln, err := cluster.Listen("unix", os.Getenv("SOCKET"))
	clustertest.Must(err)
	fmt.Println("listens")
	clustertest.Must(cluster.Serve(ln, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/shutdown" {
			rc, err := ln.(syscall.Conn).SyscallConn()
			clustertest.Must(err)
			clustertest.Must(rc.Control(func(fd uintptr) { clustertest.Must(syscall.Shutdown(int(fd), syscall.SHUT_RD)) }))
		}
		fmt.Fprintln(w, "answered")
	})}))
})

// TestShutDownUnixSocket: workers go on with another socket at the same path, or of the same
// abstract name, when one of them has shut down the one that they shared. None dies of it.
func TestShutDownUnixSocket(t *testing.T) {
	t.Parallel()
	for name, path := range map[string]string{
		"a path":        filepath.Join(t.TempDir(), "s"),
		"abstract name": fmt.Sprintf("@cluster-shuts-down-%d", os.Getpid()),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := &http.Client{Timeout: clustertest.Patience / 20, Transport: &http.Transport{DisableKeepAlives: true,
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, "unix", path)
				}}}
			get := func(path string) error {
				resp, err := client.Get("http://unix" + path)
				if err == nil {
					resp.Body.Close()
				}
				return err
			}
			p := clustertest.Start(t, shutsDown, "SOCKET="+path)
			p.All("listens", "listens")
			for range 2 { // also what took the place of the first
				clustertest.Eventually(t, func() bool { return get("/shutdown") == nil }, "an answer")
				clustertest.Eventually(t, func() bool {
					for range 4 {
						if get("/") != nil {
							return false
						}
					}
					return true
				}, "answers again")
			}
			require.NotContains(t, p.Output(), "death")
			p.Terminate()
		})
	}
}
