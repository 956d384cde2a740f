//go:build unix

package serve_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestRecipesRun: the code of docs/recipes.md does what the text around it says.
func TestRecipesRun(t *testing.T) {
	t.Parallel()
	const (
		forks  = `if err := cluster.AutoFork(); err != nil { log.Fatal(err) };`
		serves = `; if err := cluster.ListenAndServe(os.Getenv("ADDRESS"), nil); err != nil { log.Fatal(err) }`
	)
	b := clustertest.BuildBlocks(t, "docs/recipes.md",
		clustertest.Frame{In: "load()", Before: `load := func() error { if os.Getenv("BROKEN") != "" { return errors.New("cannot load") }; return nil };` + forks},
		clustertest.Frame{In: "db.Close()", After: serves, Before: forks + `
			db, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil { log.Fatal(err) }
			cluster.OnShutdown(func(context.Context) error { log.Print(db.Close()); return nil }) // the last one
			`},
		clustertest.Frame{In: `"pgx"`, Before: `
			type pgx struct{ driver.Driver }
			sql.Register("pgx", pgx{})
			const dsn, connections = "", 100
			`, After: `; if db != nil { log.Print(db.Stats().MaxOpenConnections, " connections") }` + serves},
		clustertest.Frame{In: "cluster.Stats()", Before: forks, After: `; if cluster.IsWorker() { select {} }; if err := cluster.Run(context.Background()); err != nil { log.Fatal(err) }`},
		clustertest.Frame{In: "expvar", Before: forks, After: serves},
		clustertest.Frame{In: `"/readyz", func`, Before: `cluster.SetupMaster(cluster.Options{Workers: 2, ShutdownDelay: time.Hour});` + forks, After: serves},
		clustertest.Frame{In: "TestMain", Test: true},
	)
	run := func(in string, use func(t *testing.T, p *clustertest.Proc, url string), env ...string) {
		t.Run(in, func(t *testing.T) {
			t.Parallel()
			address := "127.0.0.1:" + strconv.Itoa(clustertest.FreePort(t))
			p := b.Start(t, in, address, env...)
			use(t, p, "http://"+address)
			p.GroupEmpty()
		})
	}
	serving := func(t *testing.T, p *clustertest.Proc, url string) {
		status(t, url, http.StatusNotFound)
		p.Terminate()
	}
	run("load()", serving)
	run("load()", func(t *testing.T, p *clustertest.Proc, _ string) {
		p.Expect("cannot load")
		p.Signal(syscall.SIGTERM)
		p.Exit()
	}, "BROKEN=1")
	run("db.Close()", func(t *testing.T, p *clustertest.Proc, url string) {
		status(t, url, http.StatusNotFound)
		p.Terminate()
		require.Contains(t, p.Output(), "use of closed network connection")
	})
	run(`"pgx"`, func(t *testing.T, p *clustertest.Proc, url string) {
		for range 4 {
			p.Expect("25 connections")
		}
		serving(t, p, url)
	})
	run("cluster.Stats()", func(t *testing.T, p *clustertest.Proc, url string) {
		var s cluster.Snapshot
		require.NoError(t, json.Unmarshal(status(t, url, http.StatusOK), &s))
		require.Len(t, s.Workers, 2)
		p.Terminate()
	})
	run("expvar", serving)
	run(`"/readyz", func`, func(t *testing.T, p *clustertest.Proc, url string) {
		status(t, url+"/readyz", http.StatusOK)
		p.Signal(syscall.SIGTERM)
		status(t, url+"/readyz", http.StatusServiceUnavailable)
		p.Signal(syscall.SIGTERM) // the delay ends
		p.Exit()
	})
	t.Run("TestMain", func(t *testing.T) {
		t.Parallel()
		b.Test(t, `"/readyz", func`, "127.0.0.1:0")
	})
}

// status asks until the answer has that status, and returns it.
func status(t *testing.T, url string, want int) (body []byte) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: clustertest.Patience}
	clustertest.Eventually(t, func() bool {
		resp, err := c.Get(url)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return false // not there yet
		}
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err = io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode == want
	}, "status "+strconv.Itoa(want)+" of "+url)
	return body
}
