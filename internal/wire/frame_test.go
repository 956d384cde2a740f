package wire

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// frames feeds stream to a framer in pieces of the given sizes, the last one
// repeated, and returns its lines; "!" stands for one that was too long.
func frames(limit int, stream string, sizes ...int) (lines []string, f *Framer) {
	f = &Framer{Max: limit}
	for i := 0; len(stream) > 0; i++ {
		n := min(max(1, sizes[min(i, len(sizes)-1)]), len(stream))
		f.Feed([]byte(stream[:n]),
			func(l []byte, _ bool) { lines = append(lines, string(l)) },
			func() { lines = append(lines, "!") })
		stream = stream[n:]
	}
	return lines, f
}

// referenceFrames says in the simplest way what frames should return, but for
// the moment at which a line that never ends is found too long.
func referenceFrames(limit int, stream string) (lines []string) {
	whole := strings.Split(stream, "\n")
	for i, l := range whole {
		last := i == len(whole)-1
		if !last {
			l = strings.TrimSuffix(l, "\r")
		}
		switch {
		case last && len(l) <= limit+1: // half a line is none
		case len(l) > limit:
			lines = append(lines, "!")
		default:
			lines = append(lines, l)
		}
	}
	return lines
}

// TestFramerSplitsAnywhere: however the stream is cut into reads, the lines are
// the same: CRLF, empty lines, lines at the bound and beyond it.
func TestFramerSplitsAnywhere(t *testing.T) {
	for _, stream := range []string{
		"", "\n", "\r\n", "\n\n\r\n\n", "a\nb\n", "a\r\nb\r\n", "\r\r\n", "a\rb\n", "half",
		"12345678\n", "12345678\r\n", "123456789\n", "123456789\r\n", "12345678\r\r\n",
		"12345678\r", "12345678\rx\nok\n", "1234567890123456789\nok\n", "ok\n123456789012345", "123456789",
		"a\n1234567890\n\nb\n12345678901234567890\nc\n",
	} {
		want := referenceFrames(8, stream)
		for size := 1; size <= len(stream)+1; size++ {
			got, _ := frames(8, stream, size)
			require.Equal(t, want, got, "%q in pieces of %d", stream, size)
		}
		for first := 1; first < len(stream); first++ {
			got, _ := frames(8, stream, first, len(stream))
			require.Equal(t, want, got, "%q cut at %d", stream, first)
		}
	}
}

// TestFramerHoldsNoMoreThanTheBound: a line without end is dropped as soon as
// it passes the bound, reported once, and what comes after it is read.
func TestFramerHoldsNoMoreThanTheBound(t *testing.T) {
	const limit = 1 << 20
	f := &Framer{Max: limit}
	tooLong, lines := 0, 0
	piece := bytes.Repeat([]byte("x"), 64<<10)
	for range 40 {
		f.Feed(piece, func([]byte, bool) { lines++ }, func() { tooLong++ })
		held := 0
		for _, p := range f.parts {
			held += cap(p)
		}
		require.LessOrEqual(t, held, 2*limit+firstPart)
	}
	require.Equal(t, 1, tooLong)
	require.Empty(t, f.parts)
	f.Feed([]byte("rest\n42\n"), func(l []byte, _ bool) {
		lines++
		require.Equal(t, "42", string(l))
	}, func() { tooLong++ })
	require.Equal(t, 1, lines)
	require.Equal(t, 1, tooLong)
}

// TestFramerCostIsLinear: a line of 10 MiB in pieces of one byte copies each
// byte a bounded number of times. A framer that scanned or copied its buffer
// for each piece would move terabytes.
func TestFramerCostIsLinear(t *testing.T) {
	const size = 2 << 20 // quadratic it would be minutes
	line := append(bytes.Repeat([]byte("x"), size), '\n')
	for _, piece := range []int{1, 100} {
		f := &Framer{Max: 16 << 20}
		got := 0
		begun := time.Now()
		allocated := testing.AllocsPerRun(1, func() {
			for p := line; len(p) > 0; {
				n := min(piece, len(p))
				f.Feed(p[:n], func(l []byte, owned bool) {
					require.True(t, owned)
					got = len(l)
				}, func() { t.Error("too long") })
				p = p[n:]
			}
		})
		require.Equal(t, size, got)
		require.Less(t, allocated, 200.0, "allocations for pieces of %d", piece)
		require.Less(t, time.Since(begun), 30*time.Second, "pieces of %d", piece)
	}
}

// FuzzFramer compares the framer with its reference for any stream, cut anywhere.
func FuzzFramer(f *testing.F) {
	f.Add([]byte("a\r\n12345678\r\n123456789\n\n{}\n"), uint64(1), 8)
	f.Add([]byte("no end"), uint64(2), 3)
	f.Add([]byte("\r\n\r\r\n\n"), uint64(3), 1)
	f.Add(bytes.Repeat([]byte("0123456789abcdef"), 700), uint64(4), 9000)
	f.Add(append(bytes.Repeat([]byte("0123456789abcdef"), 700), '\n'), uint64(5), 11200)
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64, limit int) {
		if limit < 1 || limit > 1<<20 {
			return
		}
		want := referenceFrames(limit, string(stream))
		r := rand.New(rand.NewPCG(seed, 0))
		var sizes []int
		for range 64 {
			sizes = append(sizes, 1+r.IntN(1+r.IntN(1+len(stream))))
		}
		got, framer := frames(limit, string(stream), sizes...)
		require.Equal(t, want, got)
		require.LessOrEqual(t, framer.size, limit+1)
	})
}
