package wire

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// Line is a line that is valid JSON, and the texts of those of its members
// that the protocol looks at. As in JavaScript the last of several members of a
// name counts, and "CMD" is not "cmd", which encoding/json would take as well.
type Line struct {
	Raw                             []byte
	cmd, act, n, id, msg, err, code []byte // nil for what is not there
}

// Read checks raw and finds the members in one walk. ok says that raw is
// valid JSON.
//
// The walk is by hand because every message pays for it. BenchmarkRead measures it
// against encoding/json of Go 1.27: two thirds of the time of json.Valid for a
// message of an application, a fifth for a request, which json.Valid only checks.
func Read(raw []byte) (l Line, ok bool) {
	s := scanner{b: raw}
	l.Raw = raw
	if s.next() == '{' {
		ok = s.object(&l)
	} else {
		ok = s.value()
	}
	if !ok || s.next() != 0 || s.pos != len(raw) {
		return Line{}, false
	}
	return l, true
}

// note keeps a member's value if it is one of those. name is with its quotes.
func (l *Line) note(name, value []byte) {
	if bytes.IndexByte(name, '\\') >= 0 {
		name = []byte(`"` + Text(name).String() + `"`)
	}
	switch string(name) {
	case `"cmd"`:
		l.cmd = value
	case `"act"`:
		l.act = value
	case `"n"`:
		l.n = value
	case `"id"`:
		l.id = value
	case `"msg"`:
		l.msg = value
	case `"error"`:
		l.err = value
	case `"code"`:
		l.code = value
	}
}

// Text is a JSON string as it stands in a valid text, with its quotes; nil for
// none.
type Text []byte

// textOf returns value if it is a string.
func textOf(value []byte) Text {
	if len(value) == 0 || value[0] != '"' {
		return nil
	}
	return value
}

// Is reports whether the string says s; none says "". It allocates only where
// something is escaped.
func (t Text) Is(s string) bool {
	if t == nil {
		return s == ""
	}
	if bytes.IndexByte(t, '\\') < 0 {
		return len(t) == len(s)+2 && string(t[1:len(t)-1]) == s
	}
	return t.String() == s
}

// String returns what the string says, "" for none.
func (t Text) String() string {
	if len(t) == 0 {
		return ""
	}
	for _, w := range words {
		if string(t[1:len(t)-1]) == w {
			return w
		}
	}
	if bytes.IndexByte(t, '\\') < 0 && utf8.Valid(t) {
		return string(t[1 : len(t)-1])
	}
	var s string
	json.Unmarshal(t, &s)
	return s
}

// words are those of the frequent messages, which String returns without
// allocating.
var words = []string{CmdExtra, CmdCluster, CmdHandle, CmdAck, ActRequest, ActReply, ActAsk, ActReceived, ActCoord, ActTopic}

// Cmd returns the "cmd" of a valid message, or nil if it is no object, has none, or it
// is no string. Every message with a handler pays for it, so most are not walked over.
func Cmd(raw []byte) Text {
	if cmd, ok := plainCmd(raw); ok {
		return cmd
	}
	l, _ := Read(raw)
	return textOf(l.cmd)
}

// plainCmd is Cmd for a message that holds nothing escaped and has its cmd first, as
// Go's structs and node's literals usually have it, or that does not hold that word. ok
// says that it is such a message.
func plainCmd(raw []byte) (cmd Text, ok bool) {
	const name, before = `"cmd"`, `{"cmd":`
	if bytes.IndexByte(raw, '\\') >= 0 {
		return nil, false
	}
	i := bytes.Index(raw, []byte(name))
	if i < 0 {
		return nil, true
	}
	if i != 1 || len(raw) <= len(before) || string(raw[:len(before)]) != before || raw[len(before)] != '"' {
		return nil, false
	}
	rest := raw[len(before):]
	end := bytes.IndexByte(rest[1:], '"') + 2
	if end < 2 || bytes.Contains(rest[end:], []byte(name)) {
		return nil, false
	}
	return Text(rest[:end]), true
}

// maxDepth is how deep values may be nested: as deep as encoding/json decodes.
const maxDepth = 10000

// TooDeep reports whether line, a valid value, is nested too deep for Read when it
// lies so many levels deep in another one. Two counts tell it of almost every line.
func TooDeep(line []byte, levels int) bool {
	if len(line) < 2*(maxDepth-levels) || bytes.Count(line, []byte{'['})+bytes.Count(line, []byte{'{'}) <= maxDepth-levels {
		return false
	}
	s := scanner{b: line, depth: levels}
	return !s.value()
}

// scanner walks over what may be JSON. Its methods take what they are named
// after and report whether it was there.
type scanner struct {
	b     []byte
	pos   int
	depth int
}

// next skips white space and returns the byte that follows, 0 at the end.
func (s *scanner) next() byte {
	for ; s.pos < len(s.b); s.pos++ {
		switch ch := s.b[s.pos]; ch {
		case ' ', '\t', '\r', '\n':
		default:
			return ch
		}
	}
	return 0
}

func (s *scanner) value() bool {
	switch ch := s.next(); ch {
	case '{':
		return s.object(nil)
	case '[':
		return s.array()
	case '"':
		return s.string()
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		return s.number()
	}
}

func (s *scanner) literal(l string) bool {
	if len(s.b)-s.pos < len(l) || string(s.b[s.pos:s.pos+len(l)]) != l {
		return false
	}
	s.pos += len(l)
	return true
}

// object takes an object. l, if not nil, is told of its members.
func (s *scanner) object(l *Line) bool {
	if s.depth++; s.depth > maxDepth {
		return false
	}
	s.pos++
	if s.next() == '}' {
		s.pos++
		s.depth--
		return true
	}
	for {
		if s.next() != '"' {
			return false
		}
		start := s.pos
		if !s.string() {
			return false
		}
		name := s.b[start:s.pos]
		if s.next() != ':' {
			return false
		}
		s.pos++
		s.next()
		start = s.pos
		if !s.value() {
			return false
		}
		if l != nil {
			l.note(name, s.b[start:s.pos])
		}
		if s.next() != ',' {
			break
		}
		s.pos++
	}
	s.depth--
	return s.take('}')
}

func (s *scanner) array() bool {
	if s.depth++; s.depth > maxDepth {
		return false
	}
	s.pos++
	if s.next() != ']' {
		for {
			if !s.value() {
				return false
			}
			if s.next() != ',' {
				break
			}
			s.pos++
		}
		if s.next() != ']' {
			return false
		}
	}
	s.pos++
	s.depth--
	return true
}

func (s *scanner) string() bool {
	for i := s.pos + 1; i < len(s.b); i++ {
		switch ch := s.b[i]; {
		case ch == '"':
			s.pos = i + 1
			return true
		case ch == '\\':
			if i++; i == len(s.b) {
				return false
			}
			switch s.b[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if len(s.b)-i <= 4 || !isHex(s.b[i+1]) || !isHex(s.b[i+2]) || !isHex(s.b[i+3]) || !isHex(s.b[i+4]) {
					return false
				}
				i += 4
			default:
				return false
			}
		case ch < ' ':
			return false
		}
	}
	return false
}

func isHex(ch byte) bool {
	return '0' <= ch && ch <= '9' || 'a' <= ch && ch <= 'f' || 'A' <= ch && ch <= 'F'
}

func (s *scanner) number() bool {
	s.take('-')
	if !s.take('0') && !s.digits() {
		return false
	}
	if s.take('.') && !s.digits() {
		return false
	}
	if s.take('e') || s.take('E') {
		if !s.take('+') {
			s.take('-')
		}
		return s.digits()
	}
	return true
}

func (s *scanner) take(ch byte) bool {
	if s.pos == len(s.b) || s.b[s.pos] != ch {
		return false
	}
	s.pos++
	return true
}

func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.b) && '0' <= s.b[s.pos] && s.b[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > start
}
