package fleet

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// TestPermissionsInDocs: with the permissions of docs/fleet.md a master, a worker and an
// operator can do what is theirs, and a worker cannot order.
func TestPermissionsInDocs(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile(filepath.Join("..", "docs", "fleet.md"))
	require.NoError(t, err)
	_, block, ok := strings.Cut(string(doc), "```conf\n")
	require.True(t, ok)
	block, _, _ = strings.Cut(block, "```")
	name := fleetName(t)
	block = strings.ReplaceAll(strings.ReplaceAll(block, "cluster.shop.", "cluster."+name+"."), "cluster-shop", "cluster-"+name)
	file := filepath.Join(clustertest.TempDir(t), "nats.conf")
	require.NoError(t, os.WriteFile(file, []byte(block), 0o600))
	conf, err := server.ProcessConfigFile(file)
	require.NoError(t, err)
	s := startServer(t, func(o *server.Options) { o.Users = conf.Users })
	as := func(user string) *Fleet {
		return member(t, quickly, Options{URL: s.URL, Node: user, Orders: user == "master", Observer: user == "operator", NATS: []nats.Option{nats.UserInfo(user, "secret")}})
	}
	errs := errorsOf(t)
	ctx := long(t)
	master := as("master")
	for _, f := range []*Fleet{master, as("worker")} {
		heard := collect[int](t, f, "x.>")
		require.NoError(t, f.Publish("x.y", 1))
		require.Equal(t, 1, clustertest.Await(t, heard, "a message"))
		Respond(f, f.Node(), func(n int) (int, error) { return n, nil })
		require.NoError(t, f.Request(ctx, "", f.Node(), 1, nil))
		require.NoError(t, f.Request(ctx, f.Node(), f.Node(), 1, nil))
		_, unlock, err := f.Lock(ctx, "x")
		require.NoError(t, err)
		unlock()
		require.NoError(t, f.KV("x").Set(ctx, "k", nil, 0))
		keys, err := f.KV("x").Keys(ctx, "")
		require.NoError(t, err)
		require.Equal(t, []string{"k"}, keys)
		require.NoError(t, f.KV("x").Delete(ctx, "k"))
		if f != master {
			awaitNodes(t, f, "master", "worker")
			err = f.conn.request(ctx, f.me.orderSubject("master"), order{}, nil)
			require.ErrorIs(t, err, nats.ErrPermissionViolation)
		}
	}
	operator := as("operator")
	clustertest.Eventually(t, func() bool { return strings.Contains(strings.Join(nodes(operator), " "), "master") }, "the master")
	_, err = operator.Scale(ctx, -1, Roll{Nodes: []string{"master"}})
	require.ErrorContains(t, err, "negative")
	for len(errs) > 0 {
		if err := <-errs; strings.Contains(err.Error(), "cluster."+name+".") {
			require.Contains(t, err.Error(), ".order.")
		}
	}
}

// TestPermissionsInDeploy: the permissions of deploy/ are those of docs/fleet.md, and the manifest
// uses what the values give.
func TestPermissionsInDeploy(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "docs", "fleet.md"))
	require.NoError(t, err)
	_, block, _ := strings.Cut(string(doc), "```conf\n")
	block, _, _ = strings.Cut(block, "```")
	values, err := os.ReadFile(filepath.Join("..", "deploy", "nats-values.yaml"))
	require.NoError(t, err)
	subject := regexp.MustCompile(`"[^"]+"`)
	want := subject.FindAllString(strings.ReplaceAll(block, "shop", "chat"), -1)
	require.NotEmpty(t, want)
	require.Equal(t, want, subject.FindAllString(string(values), -1))
	manifest, err := os.ReadFile(filepath.Join("..", "deploy", "fleet.yaml"))
	require.NoError(t, err)
	for _, key := range regexp.MustCompile(`secretKeyRef: [^}]+}`).FindAllString(string(manifest), -1) {
		require.Contains(t, string(values), key)
	}
}
