package admin

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLeftLines: of many long lines the youngest go over, in bounds, also to a program that
// keeps fewer; and the numbers go on.
func TestLeftLines(t *testing.T) {
	old := newLogBook(100_000)
	line := bytes.Repeat([]byte("x"), 1000)
	for range 40_000 {
		old.add(1, 0, "stdout", append(line, '\n'))
	}
	var s leftState
	texts := old.leave(&s)
	require.Len(t, texts, len(s.Lines))
	require.InDelta(t, leftLines, len(texts)*(lineCost+len(line)), lineCost+1000)
	require.EqualValues(t, 40_000, s.LastLine)
	require.EqualValues(t, 40_000, s.Lines[len(texts)-1].N)

	var lines []LogLine
	for i, l := range s.Lines {
		l.Text = texts[i]
		lines = append(lines, l.LogLine)
	}
	for _, max := range []int{10, 100_000} {
		b := newLogBook(max)
		b.restore(lines, s.LastLine)
		for range 25 {
			b.add(2, 1, "stderr", []byte("new\n"))
		}
		all, last, _ := b.after(0)
		require.EqualValues(t, 40_025, last)
		require.Len(t, all, min(max, len(lines)+25))
		for i, l := range all {
			require.Equal(t, last-int64(len(all)-1-i), l.N)
			require.Equal(t, l.N > 40_000, l.Text == "new", strings.TrimRight(l.Text, "x"))
		}
		few, _, _ := b.after(last - 3)
		require.Len(t, few, 3)
	}
	(*logBook)(nil).restore(lines, 1)
	require.Empty(t, (*logBook)(nil).leave(&s))
}
