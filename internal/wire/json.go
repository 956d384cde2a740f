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
	i := skipSpace(raw, 0)
	if i < len(raw) && raw[i] == '{' {
		i = skipObject(raw, i, 0, &l)
	} else {
		i = skipValue(raw, i, 0)
	}
	if i < 0 || skipSpace(raw, i) != len(raw) {
		return Line{}, false
	}
	l.Raw = raw
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
	return skipValue(line, skipSpace(line, 0), levels) < 0
}
