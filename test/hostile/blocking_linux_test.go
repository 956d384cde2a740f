package hostile_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"golang.org/x/sys/unix"
)

// makesBlocking has workers that make the socket blocking for all who share it. Each then
// waits in accept(2).
var makesBlocking = clustertest.Program("makes-blocking", func() {
	clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 2, ShutdownTimeout: time.Hour, ReadyFor: -1}))
	cluster.OnDeath(func(*cluster.Process, cluster.Exit) { fmt.Println("dead") })
	clustertest.Must(cluster.AutoFork())
	if cluster.IsMaster() {
		clustertest.Must(cluster.Run(context.Background()))
		return
	}
	ln, err := cluster.Listen("tcp", "127.0.0.1:0")
	clustertest.Must(err)
	rc, err := ln.(syscall.Conn).SyscallConn()
	clustertest.Must(err)
	clustertest.Must(rc.Control(func(fd uintptr) { clustertest.Must(unix.SetNonblock(int(fd), false)) }))
	fmt.Println("worker")
	clustertest.AnswerConns(ln)
})

// TestBlockingSocket: no reload and no stop waits for a worker that waits in accept(2),
// since somebody has made the socket blocking.
func TestBlockingSocket(t *testing.T) {
	t.Parallel()
	manager := clustertest.NewManager(t)
	p := clustertest.Start(t, makesBlocking, manager.Env)
	p.All("worker", "worker")
	manager.InRun()
	p.Signal(syscall.SIGHUP)
	p.All("worker", "worker", "dead", "dead")
	p.Terminate()
}
