package wire

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// TestPlain: what is printable stays as it is, and the rest shows and does nothing.
func TestPlain(t *testing.T) {
	for given, want := range map[string]string{
		"":                          "",
		`no luck: "<today>" \ é 世界`: `no luck: "<today>" \ é 世界`,
		"a\nb\x1b[31m\tc":           `a\nb\x1b[31m\tc`,
		"\xff é\u2028":              `\xff é\u2028`,
	} {
		require.Equal(t, want, Plain(given))
	}
}

// TestPlainIsBounded, and cuts no letter in two.
func TestPlainIsBounded(t *testing.T) {
	for shift := range utf8.UTFMax {
		long := strings.Repeat("x", shift) + strings.Repeat("世", MaxText)
		got := Plain(long)
		require.LessOrEqual(t, len(got), MaxText+30)
		require.Contains(t, got, fmt.Sprintf("世… (%d bytes)", len(long)))
	}
	require.LessOrEqual(t, len(Plain(strings.Repeat("\xff", 2*MaxText))), 4*MaxText+30)
}

// TestPlainError is still the error that it was.
func TestPlainError(t *testing.T) {
	known := errors.New("known")
	require.Equal(t, known, PlainError(known))
	err := PlainError(fmt.Errorf("a\n: %w", known))
	require.EqualError(t, err, `a\n: known`)
	require.ErrorIs(t, err, known)
}
