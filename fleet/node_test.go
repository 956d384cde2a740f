//go:build unix

package fleet

import (
	"os/exec"
	"strconv"
	"testing"

	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

// TestAnyLanguageTakesPart: a program in another language hears and publishes topics, answers
// and asks, by the subjects that docs/fleet.md has and JSON.
func TestAnyLanguageTakesPart(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	f := member(t, quick, Options{URL: s.URL, Node: "a"})
	Respond(f, "sum", func(all []int) (sum int, err error) {
		for _, n := range all {
			sum += n
		}
		return sum, nil
	})
	sums := collect[int](t, f, "sum")
	heard := collect[map[string]map[string]string](t, f, "from-node")
	clustertest.StartCmd(t, exec.Command(clustertest.NodeBinary(t), "testdata/client.js", strconv.Itoa(s.o.Port), f.Name()), "")
	require.Equal(t, 6, clustertest.Await(t, sums, "what Go has answered to node")) // it subscribed before it asked
	require.NoError(t, f.Publish("from-go", map[string]string{"text": "größer\r\n"}))
	require.Equal(t, map[string]map[string]string{"heard": {"text": "größer\r\n"}}, clustertest.Await(t, heard, "what node has heard"))
	var n int
	require.NoError(t, f.Request(long(t), "", "double", 21, &n))
	require.Equal(t, 42, n)
}
