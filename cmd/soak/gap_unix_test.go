//go:build unix

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestGap(t *testing.T) {
	at := time.Unix(1000, 0)
	g := gap{last: at}
	look := func(after time.Duration, is bool) {
		at = at.Add(after)
		g.look(at, is)
	}
	for range 50 {
		look(lookTime, true)
	}
	require.Equal(t, 50*lookTime, g.longest)
	look(lookTime, false)
	for range 20 {
		look(lookTime, true)
	}
	require.Equal(t, 20*lookTime, g.lasts, "somebody led, or could not, between the two")
	require.Equal(t, 50*lookTime, g.longest)
	look(time.Minute, true)
	require.Equal(t, 22*lookTime, g.lasts, "the machine stood still")
	look(time.Minute, false)
	for range 200 {
		look(lookTime, true)
	}
	require.Equal(t, 200*lookTime, g.longest)
	require.Greater(t, g.longest, maxGap)
}

func TestPauses(t *testing.T) {
	p := pauses{all: make(map[int]int)}
	p.add(7, 1)
	p.add(7, 1)
	p.add(7, -1)
	require.True(t, p.has(7), "another event has stopped it")
	require.False(t, p.has(8))
	p.add(7, -1)
	require.False(t, p.has(7))
	require.Empty(t, p.all)
}

// lockedEnv names a file that the test binary is to lock, until its standard input ends.
const lockedEnv = "SOAK_TEST_LOCKED"

func TestMain(m *testing.M) {
	if path := os.Getenv(lockedEnv); path != "" {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		check(err)
		lockFile(f)
		fmt.Println("locked")
		os.Stdin.Read(make([]byte, 1))
		return
	}
	os.Exit(m.Run())
}

// A process has the lock until it is dead.
func TestLeaderFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), leaderFile)
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	require.False(t, isLocked(f))
	leader := exec.Command(os.Args[0])
	leader.Env = append(os.Environ(), lockedEnv+"="+path)
	_, err = leader.StdinPipe()
	require.NoError(t, err)
	out, err := leader.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, leader.Start())
	_, err = out.Read(make([]byte, 1))
	require.NoError(t, err)
	require.True(t, isLocked(f))
	require.NoError(t, leader.Process.Kill())
	leader.Wait()
	require.False(t, isLocked(f))
}
