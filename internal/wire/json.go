package wire

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// Line is a line that is valid JSON, and the texts of the members that the protocol looks
// at. As in JavaScript the last of several members with the same name counts, and "CMD" is
// not "cmd": encoding/json would take both.
type Line struct {
	Raw                             []byte
	cmd, act, n, id, msg, err, code []byte // nil for a member that is not there
}

// Read checks raw and finds the members in one walk. ok says that raw is valid JSON.
//
// The walk is by hand because every message pays for it. BenchmarkRead measures it against
// json.Valid of Go 1.27, which only checks: Read takes two thirds of that time for a message
// of an application, and a fifth for a request.
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

// note keeps the value of a member that the protocol looks at. name has its quotes.
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

// Text is a JSON string as it stands in a valid line, with its quotes and escapes. It is
// nil if there is none.
type Text []byte

// textOf returns value if it is a string.
func textOf(value []byte) Text {
	if len(value) == 0 || value[0] != '"' {
		return nil
	}
	return value
}

// Is reports whether the string is s; nil is "". It allocates only if something is
// escaped.
func (t Text) Is(s string) bool {
	if t == nil {
		return s == ""
	}
	if bytes.IndexByte(t, '\\') < 0 {
		return len(t) == len(s)+2 && string(t[1:len(t)-1]) == s
	}
	return t.String() == s
}

// String returns the string without quotes and escapes; nil is "".
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

// words are the words of the frequent messages. String returns them without allocating.
var words = []string{CmdExtra, CmdCluster, CmdHandle, CmdAck, ActRequest, ActReply, ActAsk, ActReceived, ActCoord, ActTopic}

// Cmd returns the "cmd" of a valid message. It is nil if the message is not an object, or
// has no "cmd", or one that is not a string. Every message with a handler pays for Cmd, so
// it does not walk over most of them.
func Cmd(raw []byte) Text {
	if cmd, ok := plainCmd(raw); ok {
		return cmd
	}
	l, _ := Read(raw)
	return textOf(l.cmd)
}

// plainCmd is Cmd for a message without escapes that has its "cmd" first, as Go's structs
// and node's literals usually do, or has that word nowhere. ok says that raw is such a
// message.
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

// TooDeep reports whether Read would refuse line, a valid value, for its depth, if it lies
// that many levels deep in another value. For almost every line the length or two counts
// tell.
func TooDeep(line []byte, levels int) bool {
	if len(line) < 2*(maxDepth-levels) || bytes.Count(line, []byte{'['})+bytes.Count(line, []byte{'{'}) <= maxDepth-levels {
		return false
	}
	s := scanner{b: line, depth: levels}
	return !s.value()
}

// scanner walks over bytes that may be JSON. Each method walks over the thing that it is
// named after, and reports whether that was there.
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

// object walks over an object. If l is not nil, it notes the members.
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
