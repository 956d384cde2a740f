package process

import (
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

type writes []string

func (w *writes) Write(p []byte) (int, error) {
	*w = append(*w, string(p))
	return len(p), nil
}

// TestCopyLines: each Write is of whole lines, however they come, and nothing is
// lost; a line that is too long is cut, and marked.
func TestCopyLines(t *testing.T) {
	long := strings.Repeat("y", longestLine)
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", ""},
		{"short", "a\nb\n\n", "a\nb\n\n"},
		{"no newline at the end", "a\nb", "a\nb\n"},
		{"longer than the buffer", strings.Repeat("x", 9000) + "\nb\n", strings.Repeat("x", 9000) + "\nb\n"},
		{"longest", long[1:] + "\nb\n", long[1:] + "\nb\n"},
		{"too long", long + "z\nb\n", long + cutMark + "z\nb\n"},
		{"many", strings.Repeat(strings.Repeat("x", 2999)+"\n", 100), strings.Repeat(strings.Repeat("x", 2999)+"\n", 100)},
	} {
		t.Run(c.name, func(t *testing.T) {
			var whole, bytewise writes
			_, err := copyLines(&whole, strings.NewReader(c.text), nil)
			require.NoError(t, err)
			_, err = copyLines(&bytewise, iotest.OneByteReader(strings.NewReader(c.text)), nil)
			require.NoError(t, err)
			for _, got := range []writes{whole, bytewise} {
				require.Equal(t, c.want, strings.Join(got, ""))
				for _, w := range got {
					require.True(t, strings.HasSuffix(w, "\n"), "a whole line")
					require.LessOrEqual(t, len(w), longestLine+len(cutMark))
				}
			}
		})
	}
}
