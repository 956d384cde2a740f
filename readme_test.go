//go:build unix

package cluster_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

func readme(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("README.md")
	require.NoError(t, err)
	return string(b)
}

// What stands around the README's fragments when they run.
const (
	// frameForks is before what runs in workers, or in both.
	frameForks = `if err := cluster.AutoFork(); err != nil { log.Fatal(err) }`
	// frameStops is before what may be stopped before it is in Run, and frameRuns behind it.
	frameStops = `stop, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM);` + frameForks
	frameRuns  = `if cluster.IsMaster() { if err := cluster.Run(stop); err != nil { log.Fatal(err) }; return }; select {}`
	// frameEnds is behind what has done all when it is over.
	frameEnds = `if cluster.IsMaster() { log.Print("reloaded"); if err := cluster.Disconnect(context.Background()); err != nil { log.Fatal(err) }; return };`
	// frameServes is behind what does not fork or serve itself.
	frameServes = frameForks + `; if err := cluster.ListenAndServe(os.Getenv("ADDRESS"), nil); err != nil { log.Fatal(err) }`
	// frameDies is a worker that exits with 3.
	frameDies = `
		if cluster.IsWorker() { os.Exit(3) }
		dead := make(chan bool)
		cluster.OnDeath(func(*cluster.Process, cluster.Exit) { close(dead) })
		if _, err := cluster.Fork(); err != nil { log.Fatal(err) }
		<-dead`
	frameListens = `cluster.OnMessage(func(w *cluster.Process, m cluster.Message) { log.Print(m) })`
)

// block is a program that is made of a block of the README.
type block struct {
	*clustertest.Proc
	*clustertest.Manager
	address string
}

// TestReadmeRuns: every Go block of the README does what the text around it says. A
// program runs as it stands, any other as a part of one.
func TestReadmeRuns(t *testing.T) {
	t.Parallel()
	b := clustertest.BuildBlocks(t, "README.md",
		clustertest.Frame{In: "package main"},
		clustertest.Frame{In: "MODE=production"},
		clustertest.Frame{In: "cluster.Recycle", After: frameEnds + frameServes},
		clustertest.Frame{In: "time.AfterFunc", After: frameDies},
		clustertest.Frame{In: "type progress", Before: frameStops, After: frameRuns},
		clustertest.Frame{In: "cluster.Respond", Before: frameStops, After: frameRuns},
		clustertest.Frame{In: "cluster.RoundRobin", Before: frameForks},
		clustertest.Frame{In: "ListenAndServeTLS", Before: `os.Chdir(os.Getenv("CERTIFICATE"));` + frameForks},
		clustertest.Frame{In: "my last words", Before: frameListens, After: frameServes},
	)
	run := func(in string, use func(t *testing.T, p *block)) {
		t.Run(in, func(t *testing.T) {
			t.Parallel()
			address, manager := clustertest.UnusedAddress(t, "tcp", ""), clustertest.NewManager(t)
			p := &block{b.Start(t, in, address, manager.Env), manager, address}
			use(t, p)
			p.GroupEmpty()
		})
	}
	serving := func(t *testing.T, p *block) {
		require.Regexp(t, `^(hello from worker \d\n)?$`, answer(t, nil, "http://"+p.address))
		p.InRun()
		p.Terminate()
		require.Empty(t, p.Output())
	}
	run("package main", serving)
	run("MODE=production", serving)
	run("cluster.RoundRobin", serving)
	run("cluster.Recycle", func(t *testing.T, p *block) {
		require.Zero(t, p.Exit())
		require.Equal(t, "reloaded\n", p.Output())
	})
	run("time.AfterFunc", func(t *testing.T, p *block) {
		require.Regexp(t, `^exit status 3 after \S+, voluntary false$`, p.Expect("worker 1: "))
		require.Zero(t, p.Exit())
	})
	run("type progress", func(t *testing.T, p *block) {
		p.All("worker 1 has done 3", "worker 2 has done 3")
		p.Terminate()
	})
	run("cluster.Respond", func(t *testing.T, p *block) {
		p.Expect("5 <nil>")
		p.Expect("5 <nil>")
		p.Terminate()
	})
	run("my last words", func(t *testing.T, p *block) {
		answer(t, nil, "http://"+p.address)
		p.InRun()
		p.Signal(syscall.SIGTERM)
		p.Expect(`"my last words"`)
		require.Zero(t, p.Exit())
	})
	t.Run("ListenAndServeTLS", func(t *testing.T) {
		t.Parallel()
		cert, key := clustertest.Certificate(t)
		dir, pool := t.TempDir(), x509.NewCertPool()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "cert.pem"), cert, 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "key.pem"), key, 0o600))
		require.True(t, pool.AppendCertsFromPEM(cert))
		address, manager := clustertest.UnusedAddress(t, "tcp", ""), clustertest.NewManager(t)
		p := b.Start(t, "ListenAndServeTLS", address, "CERTIFICATE="+dir, manager.Env)
		require.Empty(t, answer(t, &tls.Config{RootCAs: pool}, "https://"+address))
		manager.InRun()
		p.Terminate()
	})
}

// answer asks until the server is there.
func answer(t *testing.T, config *tls.Config, url string) (body string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}, Timeout: clustertest.Patience}
	defer c.CloseIdleConnections()
	clustertest.Eventually(t, func() bool {
		resp, err := c.Get(url)
		if err != nil {
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
			return false
		}
		defer resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			b, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			body = string(b)
		}
		return true
	}, "an answer of "+url)
	return body
}

// TestReadmeNamesItsProofs: the README lists all guarantees, and each names
// tests that exist.
func TestReadmeNamesItsProofs(t *testing.T) {
	_, text, ok := strings.Cut(readme(t), "\n## Guarantees\n")
	require.True(t, ok)
	text, _, _ = strings.Cut(text, "\n## ")
	items := regexp.MustCompile(`(?m)^\d+\. `).Split(text, -1)[1:]
	require.Len(t, items, 10)
	tests := clustertest.TestNames(t)
	for i, item := range items {
		names := regexp.MustCompile("`((?:Test|Fuzz|Example)\\w*)`").FindAllStringSubmatch(item, -1)
		require.NotEmpty(t, names, "guarantee %d names no test", i+1)
		for _, n := range names {
			require.Contains(t, tests, n[1], "guarantee %d", i+1)
		}
	}
}
