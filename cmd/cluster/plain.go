package main

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// odd reports whether a terminal may do something else with the character than show
// it: control characters, those that change the direction of text, what is no UTF-8.
// Joiners are part of how some languages and emoji are written.
func odd(r rune) bool {
	const zeroWidthNonJoiner, zeroWidthJoiner = 0x200c, 0x200d
	return r == utf8.RuneError || !unicode.IsGraphic(r) && r != zeroWidthNonJoiner && r != zeroWidthJoiner
}

// plain is a text of somebody else's as it may reach a terminal or a log: one line, in
// which what is odd is escaped.
func plain(s string) string { return escape(s, "") }

// plainLine is plain for a line of output, whose tabs stay.
func plainLine(s string) string { return escape(s, "\t") }

// plainText is plain for what has several lines, and tabs.
func plainText(s string) string { return escape(s, "\t\n") }

// escape writes what is odd and not kept as in a JSON string where that has an escape
// for it, so that a line of JSON stays one: the control characters that Go and JSON
// write in another way cannot be in it.
func escape(s, kept string) string {
	if strings.IndexFunc(s, odd) < 0 {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case !odd(r) || strings.ContainsRune(kept, r) || r == utf8.RuneError && n > 1:
			b.WriteString(s[:n])
		case r == utf8.RuneError:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < ' ':
			fmt.Fprintf(&b, `\x%02x`, r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		s = s[n:]
	}
	return b.String()
}
