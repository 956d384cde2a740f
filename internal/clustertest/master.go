package clustertest

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/stretchr/testify/require"
)

// WithMaster makes the test process a master whose workers run the program. At
// the end of the test the cluster is stopped and nothing of it may be left.
func WithMaster(t testing.TB, programName string, o cluster.Options) {
	t.Helper()
	CheckLeaks(t)
	o.Env = append([]string{ProgramEnv + "=" + programName}, o.Env...)
	require.NoError(t, cluster.SetupMaster(o))
	var forks, deaths atomic.Int32
	stopFork := cluster.OnFork(func(*cluster.Process) { forks.Add(1) })
	stopDeath := cluster.OnDeath(func(*cluster.Process, cluster.Exit) { deaths.Add(1) })
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		defer cancel()
		if err := cluster.Disconnect(ctx); err != nil && !t.Failed() {
			t.Logf("cleanup: %v", err)
		}
		// Disconnect does not wait for callbacks, and the next test must not hear of this
		// test's workers.
		for end := time.Now().Add(Patience); deaths.Load() != forks.Load() && !t.Failed() && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		stopFork()
		stopDeath()
		require.NoError(t, cluster.SetupMaster(cluster.Options{}))
	})
}

const apartEnv = "CLUSTER_TEST_APART"

// Apart runs the test in a process of its own, beside other tests, and then returns true. In
// that process it returns false, and the test goes on. Tests of one process must run one after
// another, since a process is one master at a time. So a test that takes long calls Apart
// first.
func Apart(t *testing.T) (done bool) {
	t.Helper()
	if os.Getenv(apartEnv) != "" {
		return false
	}
	t.Parallel()
	given := func(name string) string { return flag.Lookup("test." + name).Value.String() }
	_, subtests, _ := strings.Cut(given("run"), "/")
	subtests, _, _ = strings.Cut(subtests, "|") // from there on another test
	c := exec.Command(os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$/"+subtests, "-test.timeout="+given("timeout"))
	c.Env = append(os.Environ(), apartEnv+"=1")
	c.WaitDelay = Patience // for what it might leave behind
	out, err := c.CombinedOutput()
	switch end := fmt.Sprintf(": %s (", t.Name()); {
	case err == nil && strings.Contains(string(out), "--- SKIP"+end):
		t.Skipf("%s", out)
	case err != nil || !strings.Contains(string(out), "--- PASS"+end):
		t.Fatalf("%v\n%s", err, out)
	case testing.Verbose():
		t.Logf("%s", out)
	}
	return true
}
