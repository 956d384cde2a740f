package process

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// This file is about programs that are node: the ports of their inspectors, of which node
// gives each of its workers one, and the version of their libuv.

// libuvTimeout bounds the run of a program that is asked for its version.
const libuvTimeout = 10 * time.Second

// NodeLibuv runs a program that is node, as user, to ask for its version of libuv. It
// returns "" if the program is not node, or does not answer.
func NodeLibuv(program string, user *User) string {
	if !nodeProgram.MatchString(filepath.Base(program)) {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), libuvTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "-p", "process.versions.uv")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")} // and no NODE_OPTIONS
	cmd.WaitDelay = time.Second
	as(cmd, user)
	out, _ := cmd.Output() // the error is not looked at, since a reaper may have taken the status
	return strings.TrimSpace(string(out))
}

// firstInspectPort is node's default.
const firstInspectPort = 9229

// Ports of inspectors begin again at the lowest that needs no privilege.
const lowestPort, highestPort = 1024, 65535

var (
	nodeProgram = regexp.MustCompile(`^node(js)?[-.\d]*$`)
	// inspectOption is an option of node's about its inspector.
	inspectOption = regexp.MustCompile(`^--(inspect(-brk|-brk-node|-wait|-port)?|debug-port)$`)
)

// valueOptions are the options of node that take the next argument as their value.
var valueOptions = []string{
	"-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions", "--env-file", "--env-file-if-exists",
	"--inspect-port", "--debug-port", "--title", "--input-type", "--disable-warning", "--max-http-header-size", "--icu-data-dir",
	"--unhandled-rejections", "--dns-result-order", "--openssl-config", "--diagnostic-dir", "--redirect-warnings",
}

// InspectorArgs returns the arguments of the n-th process of a program. If the program is
// node and its options, or those of NODE_OPTIONS in env, are about the inspector, they get
// an option for its port: the port that they name, or node's default, plus n. Otherwise the
// arguments are returned as they are.
func InspectorArgs(program string, args, env []string, n int) []string {
	if !nodeProgram.MatchString(filepath.Base(program)) {
		return args
	}
	port, end := firstInspectPort, -1
	for _, o := range nodeOptions(strings.Fields(lastOf("NODE_OPTIONS", env))) {
		port, end = portOf(o, port, end, 0)
	}
	for _, o := range nodeOptions(args) {
		port, end = portOf(o, port, end, o.end)
	}
	if end < 0 || port == 0 { // with 0 each finds one itself
		return args
	}
	port = lowestPort + (port-lowestPort+n)%(highestPort-lowestPort+1)
	// After the option that names the port, so that this one counts. The host stays.
	return slices.Insert(slices.Clone(args), end, "--inspect-port="+strconv.Itoa(port))
}

// nodeOption is an option, and where it ends among the arguments.
type nodeOption struct {
	name, value string
	end         int
}

// nodeOptions are those of node's arguments, which are before the script.
func nodeOptions(args []string) (all []nodeOption) {
	for i := 0; i < len(args); i++ {
		o := nodeOption{}
		o.name, o.value, _ = strings.Cut(args[i], "=")
		switch {
		case !strings.HasPrefix(o.name, "-") || o.name == "-" || o.name == "--":
			return all
		case slices.Contains(valueOptions, args[i]) && i+1 < len(args):
			i++
			o.value = args[i]
		}
		o.end = i + 1
		all = append(all, o)
	}
	return all
}

// portOf is the port that o says, and where it ends: those given if it says none.
func portOf(o nodeOption, port, end, itsEnd int) (int, int) {
	if !inspectOption.MatchString(o.name) {
		return port, end
	}
	value := o.value // a port, a host, or both
	if _, p, err := net.SplitHostPort(value); err == nil {
		value = p
	}
	if n, err := strconv.Atoi(value); err == nil && (n == 0 || n >= lowestPort && n <= highestPort) {
		port = n
	}
	return port, itsEnd
}

// lastOf is the value of a variable in an environment.
func lastOf(name string, env []string) (value string) {
	for _, kv := range env {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			value = v
		}
	}
	return value
}
