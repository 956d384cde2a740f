package fleet

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// plain reports whether a byte stands for itself in a token of a subject, and in a
// key and a name of a bucket.
func plain(b byte) bool {
	return b == '-' || b == '_' || '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
}

// token makes one token of a subject of any text: what is not plain is "=" and two
// hexadecimal digits, the empty text is "=".
func token(text string) string {
	if text == "" {
		return "="
	}
	if !slices.ContainsFunc([]byte(text), func(c byte) bool { return !plain(c) }) {
		return text // as names mostly are
	}
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; plain(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	return b.String()
}

// untoken is the text that a token was made of; ok is false if it was made of none.
func untoken(t string) (text string, ok bool) {
	if t == "=" {
		return "", true
	}
	var b strings.Builder
	for i := 0; i < len(t); i++ {
		switch {
		case plain(t[i]):
			b.WriteByte(t[i])
		case t[i] == '=' && i+2 < len(t):
			high, low := strings.IndexByte(digits, t[i+1]), strings.IndexByte(digits, t[i+2])
			if high < 0 || low < 0 {
				return "", false
			}
			b.WriteByte(byte(high<<4 | low))
			i += 2
		default:
			return "", false
		}
	}
	return b.String(), t != ""
}

const digits = "0123456789ABCDEF"

// maxName is how long the name of a fleet, a member, a topic, a key may be.
const maxName = 1024

// Subjects of a fleet. docs/fleet.md has them, for who gives permissions.

func (s *self) subject(rest string) string       { return "cluster." + s.fleet + "." + rest }
func (s *self) whoSubject() string               { return s.subject("who") }
func (s *self) memberSubject(node string) string { return s.subject("member." + node) }
func (s *self) nameSubject(node string) string   { return s.subject("name." + token(node)) }
func (s *self) orderSubject(node string) string  { return s.subject("order." + token(node)) }
func (s *self) topicSubject(topic string) string { return s.subject("topic." + topic) }

// requestSubject is where requests go: to one process of that node, or of any.
func (s *self) requestSubject(node, cmd string) string {
	if node == "" {
		return s.subject("request." + token(cmd))
	}
	return s.subject("request." + token(cmd) + "." + token(node))
}

// local is a name of package coord: leases are between members, and one process of
// each stands for it.
func (s *self) local(name string) string { return "\x00fleet " + s.fleet + " " + s.node + " " + name }

// Topics of package coord by which workers learn the embedded server's address.
func (s *self) whereTopic() string   { return "\x00fleet where " + s.fleet }
func (s *self) addressTopic() string { return "\x00fleet address " + s.fleet }

// checkFleetName says what is wrong with the name of a fleet, which is part of
// subjects and of the name of a bucket as it is.
func checkFleetName(name string) error {
	if name == "" || len(name) > 64 {
		return fmt.Errorf("Options.Name is %.80q: it must have 1 to 64 characters", name)
	}
	for i := range len(name) {
		if !plain(name[i]) {
			return fmt.Errorf("Options.Name is %q: it may have letters, digits, - and _", name)
		}
	}
	return nil
}

// programName is the name of this program as that of a fleet.
func programName() string {
	name := strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe")
	b := []byte(name[:min(len(name), 64)])
	for i, c := range b {
		if !plain(c) {
			b[i] = '-'
		}
	}
	return string(b)
}

// checkTopic says what is wrong with a topic: it is the rest of a subject. Wildcards
// are for who subscribes.
func checkTopic(topic string, wildcards bool) error {
	if topic == "" || len(topic) > maxName {
		return fmt.Errorf("the topic %.80q: it must have 1 to %d bytes", topic, maxName)
	}
	parts := strings.Split(topic, ".")
	for i, part := range parts {
		switch {
		case part == "":
			return fmt.Errorf("the topic %.80q: nothing stands between two dots, or at an end", topic)
		case strings.ContainsFunc(part, func(r rune) bool { return r <= ' ' || r == 0x7f }):
			return fmt.Errorf("the topic %.80q: it has a space", topic)
		case part == "*" || part == ">":
			if !wildcards {
				return fmt.Errorf("the topic %.80q: * and > are for who subscribes", topic)
			}
			if part == ">" && i < len(parts)-1 {
				return fmt.Errorf("the topic %.80q: > stands at the end", topic)
			}
		}
	}
	return nil
}

// oneLine is a text as a header can have it.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text)
}
