package systemd

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestParseNotice: assignments, each in a line of its own; what is not known, or makes
// no sense, is nothing.
func TestParseNotice(t *testing.T) {
	for text, want := range map[string]Notice{
		"":                           {},
		"READY=1":                    {Ready: true},
		"READY=1\n":                  {Ready: true},
		"READY=0\nSTOPPING=1\nFOO=1": {Stopping: true},
		"WATCHDOG=1\nWATCHDOG=x":     {Alive: true},
		"MAINPID=1\nSTATUS=":         {},
		"MAINPID=-5\nSTATUS":         {},
		"MAINPID=99999999999999":     {},
		"MAINPID=77\nSTATUS=a b\r":   {MainPID: 77, Status: "a b\r"},
		"\n\n=\nREADY =1\n READY=1":  {},
	} {
		require.Equal(t, want, ParseNotice(text), "%q", text)
	}
}

// FuzzNotice: whatever a program says, it is read.
func FuzzNotice(f *testing.F) {
	f.Add("READY=1\nSTATUS=up\nMAINPID=2\nWATCHDOG=1\nSTOPPING=1")
	f.Fuzz(func(t *testing.T, text string) {
		n := ParseNotice(text)
		require.True(t, n.MainPID == 0 || n.MainPID > 1)
		require.NotContains(t, n.Status, "\n")
		require.True(t, strings.Contains(text, n.Status))
	})
}
