package wire

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxText bounds, in bytes, what a peer can say in one error.
const MaxText = 4 << 10

// Plain is a text of a peer's as it may stand in an error or in a log: what is not
// printable (newlines, escape codes, what is no UTF-8) is written as in a Go string,
// and what is longer than MaxText is cut.
func Plain(s string) string {
	whole := len(s)
	if whole > MaxText {
		s = s[:MaxText]
		for n := 1; n < utf8.UTFMax && !utf8.ValidString(s[len(s)-n:]); n++ {
			if utf8.RuneStart(s[len(s)-n]) {
				s = s[:len(s)-n]
				break
			}
		}
	}
	if i := strings.IndexFunc(s, unprintable); i >= 0 {
		s = s[:i] + escaped(s[i:])
	}
	if whole > MaxText {
		s += fmt.Sprintf("… (%d bytes)", whole)
	}
	return s
}

func unprintable(r rune) bool { return r == utf8.RuneError || !strconv.IsPrint(r) }

func escaped(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		_, n := utf8.DecodeRuneInString(s[i:])
		if c := s[i : i+n]; strings.IndexFunc(c, unprintable) >= 0 {
			quoted := strconv.Quote(c)
			c = quoted[1 : len(quoted)-1]
			b.WriteString(c)
		} else {
			b.WriteString(c)
		}
		i += n
	}
	return b.String()
}

// PlainError is err with its text as Plain makes it.
func PlainError(err error) error {
	text := err.Error()
	if plain := Plain(text); plain != text {
		return &plainError{plain, err}
	}
	return err
}

type plainError struct {
	text string
	err  error
}

func (e *plainError) Error() string { return e.text }
func (e *plainError) Unwrap() error { return e.err }
