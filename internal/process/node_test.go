package process

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestInspectorArgs: a node process that is inspected gets a port of its own, as
// node gives it; nothing else of its arguments changes, and nobody else's.
func TestInspectorArgs(t *testing.T) {
	for _, c := range []struct{ program, args, options, want string }{
		{"/usr/bin/node", "worker.js", "", "worker.js"},
		{"/usr/bin/node", "", "", ""},
		{"/usr/bin/node", "--inspect worker.js", "", "--inspect --inspect-port=9231 worker.js"},
		{"node", "--inspect-brk worker.js", "", "--inspect-brk --inspect-port=9231 worker.js"},
		{"/x/node22", "--inspect-wait=9300 -- worker.js", "", "--inspect-wait=9300 --inspect-port=9302 -- worker.js"},
		{"nodejs", "--inspect=127.0.0.1:9300 a b", "", "--inspect=127.0.0.1:9300 --inspect-port=9302 a b"},
		{"node", "--inspect=[::1]:9300 a b", "", "--inspect=[::1]:9300 --inspect-port=9302 a b"},
		{"node", "--inspect=0.0.0.0 a", "", "--inspect=0.0.0.0 --inspect-port=9231 a"},
		{"node", "--inspect --inspect-port 9300 a", "", "--inspect --inspect-port 9300 --inspect-port=9302 a"},
		{"node", "--inspect-port=9300 --inspect a", "", "--inspect-port=9300 --inspect --inspect-port=9302 a"},
		{"node", "--debug-port=9300 a", "", "--debug-port=9300 --inspect-port=9302 a"},
		{"node", "-r mod --inspect a", "", "-r mod --inspect --inspect-port=9231 a"},
		{"node", "--inspect=65535 a", "", "--inspect=65535 --inspect-port=1025 a"},
		{"node", "--inspect=0 a", "", "--inspect=0 a"},
		{"node", "--inspect=80 a", "", "--inspect=80 --inspect-port=9231 a"},
		{"node", "a --inspect", "", "a --inspect"},
		{"node", "- --inspect", "", "- --inspect"},
		{"node", "--title --inspect a", "", "--title --inspect a"},
		{"node", "--inspection a", "", "--inspection a"},
		{"node", "a", "--no-warnings --inspect=9300", "--inspect-port=9302 a"},
		{"node", "--inspect=9400 a", "--inspect=9300", "--inspect=9400 --inspect-port=9402 a"},
		{"server", "--inspect", "", "--inspect"},
		{"nodemon", "--inspect a", "", "--inspect a"},
	} {
		args := strings.Fields(c.args)
		got := InspectorArgs(c.program, args, []string{"NODE_OPTIONS=--inspect=1", "A=B", "NODE_OPTIONS=" + c.options}, 2)
		require.Equal(t, c.want, strings.Join(got, " "), "%s %s", c.program, c.args)
		require.Equal(t, c.args, strings.Join(args, " "), "what was given stays as it is")
	}
}
