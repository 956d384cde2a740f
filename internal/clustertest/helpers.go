package clustertest

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// CopyBinary puts a copy of the test binary at path.
func CopyBinary(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	WriteProgram(t, path, b)
}

// FailingWriter is a writer that fails.
type FailingWriter struct{}

func (FailingWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// WriteProgram writes a file that can be executed. While the file is open for writing it keeps
// other goroutines from forking: a child would have the file open until its own exec, and
// until then nobody could execute it.
func WriteProgram(t *testing.T, path string, b []byte) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	require.NoError(t, os.WriteFile(path, b, 0o755))
}

// Long reports whether the tests that take minutes are to be run in full.
func Long() bool { return os.Getenv("CLUSTER_LONG") == "1" }

// Get fetches url on a connection of its own.
func Get(url string) (string, error) {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: Patience}
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s: %s", resp.Status, b)
	}
	return string(b), err
}

// Must ends a test program with an error.
func Must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "FATAL", err)
		os.Exit(1)
	}
}

// Dialable returns the address by which a test reaches a listener of this machine.
func Dialable(addr net.Addr) string {
	_, port, _ := net.SplitHostPort(addr.String())
	return "127.0.0.1:" + port
}

// FreePort returns a port on which nothing listens, at any address. Until the end of the test
// nobody else gets it, nor the nine ports behind it. The system does not give it for port 0,
// since it is below those that systems give. Other callers of FreePort, in whatever process,
// do not get it either: a caller listens on the port that is 6000 above it, as a lock.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 20000 + 10*rand.IntN(600)
		lock, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port+6000))
		if err != nil {
			continue
		}
		ln, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err != nil {
			lock.Close()
			continue
		}
		t.Cleanup(func() { lock.Close() })
		ln.Close()
		AwaitUnused(t, "127.0.0.1:"+strconv.Itoa(port))
		return port
	}
	t.Fatal("no port is free")
	return 0
}

// AwaitUnused waits until nobody listens on an address that this process has closed. A process
// that was just forked has a duplicate until it executes its program.
func AwaitUnused(t testing.TB, address string) {
	t.Helper()
	Eventually(t, func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err != nil
	}, "a port that nobody listens on")
}

// TempDir returns a directory that is removed at the end of the test. It is for Wine, which
// cannot remove a directory in the way in which t.TempDir does.
func TempDir(t testing.TB) string {
	dir, err := os.MkdirTemp("", "cluster")
	require.NoError(t, err)
	t.Cleanup(func() {
		filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
			if err == nil && !info.IsDir() {
				os.Remove(path)
			}
			return nil
		})
		os.Remove(dir)
	})
	return dir
}

// Atoi returns the number in s, or 0.
func Atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// root is the directory of this module. Main finds it, since tests start in the directory of
// their package and may change it.
var root string

// Path returns the path of a file of this module.
func Path(elem ...string) string { return filepath.Join(append([]string{root}, elem...)...) }

func findRoot() {
	dir, err := os.Getwd()
	Must(err)
	for root = dir; ; root = filepath.Dir(root) {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			return
		}
		if root == filepath.Dir(root) {
			Must(errors.New("no go.mod above " + dir))
		}
	}
}
