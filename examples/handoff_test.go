//go:build unix

package examples

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestHandoff: a user's connections all reach one worker, which counts them, with
// what was sent before the worker had them; not all users have the same one.
func TestHandoff(t *testing.T) {
	e := start(t, "handoff", "-addr", "127.0.0.1:0")
	addr := e.expect(`listening on (\S+)$`)[1]
	owners := make(map[string]string)
	seen := make(map[string]bool)
	for visit := 1; visit <= 3; visit++ {
		for i := range 20 {
			user := fmt.Sprint("user", i)
			c, err := net.Dial("tcp", addr)
			require.NoError(t, err)
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			_, err = fmt.Fprintf(c, "%s\nearly\nha", user)
			require.NoError(t, err)
			r := bufio.NewReader(c)
			line := func() string {
				t.Helper()
				text, err := r.ReadString('\n')
				require.NoError(t, err)
				return strings.TrimSpace(text)
			}
			m := regexp.MustCompile(`^(worker \d): welcome (\S+), visit (\d+)$`).FindStringSubmatch(line())
			require.Equal(t, []string{user, fmt.Sprint(visit)}, m[2:])
			if owners[user] == "" {
				owners[user] = m[1]
			}
			require.Equal(t, owners[user], m[1])
			seen[m[1]] = true
			require.Equal(t, m[1]+": "+user+" says early", line())
			_, err = io.WriteString(c, "lf\n")
			require.NoError(t, err)
			require.Equal(t, m[1]+": "+user+" says half", line())
		}
	}
	require.Len(t, seen, 2)
	e.ctrlC()
}

// stickyClients are clients of socket.io: each asks who answers, many times, by polls
// or by what it chooses.
const stickyClients = `
const { io } = require('socket.io-client');
const client = (options) => new Promise((resolve, reject) => {
  const socket = io(process.argv[2], { reconnection: false, forceNew: true, timeout: 60000, ...options });
  socket.on('connect_error', reject);
  socket.on('disconnect', reject);
  socket.on('connect', async () => {
    const ids = [];
    for (let i = 0; i < 10; i++) ids.push(await socket.timeout(60000).emitWithAck('who'));
    socket.off('disconnect').on('disconnect', () => resolve(ids));
    socket.close();
  });
});
const all = [];
for (let i = 0; i < 20; i++) all.push(client({ transports: ['polling'] }), client({}));
Promise.all(all).then((answers) => {
  console.log(JSON.stringify(answers.map((ids) => [...new Set(ids)].join('+')).sort()));
  process.exit(0);
}, (e) => { console.log('failed', e); process.exit(1); });
`

// TestSticky: the module of socket.io works with the Go master. Every client reaches
// the worker that has its session, and the clients are spread.
func TestSticky(t *testing.T) {
	node := nodeBinary(t)
	dir := t.TempDir()
	for _, name := range []string{"package.json", "worker.js"} {
		b, err := os.ReadFile(filepath.Join("sticky", name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "clients.js"), []byte(stickyClients), 0o600))
	install := exec.Command("npm", "install", "--silent", "--no-fund", "--no-audit")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("npm install: %v\n%s", err, out)
		}
		t.Skipf("npm cannot install socket.io: %v\n%s", err, out)
	}
	e := start(t, "sticky", "-addr", "127.0.0.1:0", "-node", node, "-script", filepath.Join(dir, "worker.js"))
	addr := e.expect(`listening on (\S+)$`)[1]
	e.expect(`worker \d online`)
	e.expect(`worker \d online`)
	clients := exec.Command(node, "clients.js", "http://"+addr)
	clients.Dir = dir
	out, err := clients.CombinedOutput()
	text := string(out)
	require.NoError(t, err, text)
	require.Regexp(t, `^\["[12]"(,"[12]")*\]\n$`, text)
	require.Equal(t, 40, strings.Count(text, `"1"`)+strings.Count(text, `"2"`))
	require.Contains(t, text, `"1"`)
	require.Contains(t, text, `"2"`)
	e.inRun()
	require.NoError(t, syscall.Kill(e.cmd.Process.Pid, syscall.SIGINT))
	e.end()
}
