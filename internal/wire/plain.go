package wire

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxText bounds the text of a peer in one error, in bytes.
const MaxText = 4 << 10

// Plain returns the text of a peer as it may stand in an error or in a log. What is not
// printable (newlines, escape codes, bytes that are not UTF-8) is written as in a Go string,
// and a text longer than MaxText is cut.
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
		c := s[i : i+n]
		if strings.IndexFunc(c, unprintable) >= 0 {
			quoted := strconv.Quote(c)
			c = quoted[1 : len(quoted)-1]
		}
		b.WriteString(c)
		i += n
	}
	return b.String()
}

// PlainError returns err with the text that Plain makes of its own.
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
