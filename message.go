package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"strings"
	"sync"
	"unicode/utf8"
)

// Message is one JSON value as it came over the channel. It stays valid for as
// long as it is kept.
type Message struct{ raw []byte }

// Cmd returns the message's "cmd" member, or "" if the message is no object,
// has none, or it is no string.
func (m Message) Cmd() string {
	cmd, _ := stringMember(m.raw, "cmd")
	return cmd
}

// quotedCmd is Cmd as it stands in the text, `""` if there is none.
func (m Message) quotedCmd() []byte {
	if q := quotedMember(m.raw, "cmd"); q != nil {
		return q
	}
	return []byte(`""`)
}

// Decode stores the message in v, as [json.Unmarshal] does.
func (m Message) Decode(v any) error { return decode(m.raw, v) }

// Bytes returns the message's JSON text, which must not be changed.
func (m Message) Bytes() []byte { return m.raw }

// String returns the message's JSON text.
func (m Message) String() string { return string(m.raw) }

// MarshalJSON returns the message as it came, so that it can be sent on.
func (m Message) MarshalJSON() ([]byte, error) {
	if m.raw == nil {
		return []byte("null"), nil
	}
	return m.raw, nil
}

// reserved begins the cmd of every message that is the protocol's own.
const reserved = "NODE_"

// isReserved tells an internal message's cmd, as node does.
func isReserved(cmd string) bool {
	return len(cmd) > len(reserved) && strings.HasPrefix(cmd, reserved)
}

// internalCmd returns the cmd of line, a valid JSON value, if it is internal.
// Almost no line is, and two scans for a substring tell that.
func internalCmd(line []byte) (string, bool) {
	if !bytes.Contains(line, []byte(reserved)) && !bytes.Contains(line, []byte(`\u`)) {
		return "", false
	}
	quoted := quotedMember(line, "cmd")
	if quoted == nil {
		return "", false
	}
	cmd := wordOf(quoted)
	return cmd, isReserved(cmd)
}

// wordOf is unquote, which allocates, but for the words of the protocol.
func wordOf(quoted []byte) string {
	for _, w := range words {
		if unquoteEqual(quoted, w) {
			return w
		}
	}
	return unquote(quoted)
}

// words are those of the frequent messages.
var words = []string{cmdOurs, cmdCluster, cmdHandle, cmdAck, actRequest, actReply, actAsk, actReceived, actNewConn, typeNative}

// stringMember returns the last member of that name of the object that raw, a
// valid JSON value, is, if its value is a string. Names match exactly, as in
// JavaScript; encoding/json would take "CMD" as well.
func stringMember(raw []byte, name string) (value string, ok bool) {
	quoted := quotedMember(raw, name)
	if quoted == nil {
		return "", false
	}
	return unquote(quoted), true
}

// quotedMember is stringMember without the last step: nil if there is none.
func quotedMember(raw []byte, name string) (quoted []byte) {
	for key, value := range members(raw) {
		if string(key) == name {
			quoted = nil
			if bytes.HasPrefix(value, quote) {
				quoted = value
			}
		}
	}
	return quoted
}

var quote = []byte(`"`)

// members yields the names, as they read, and the texts of the members of the
// object that raw, a valid JSON value, is; nothing if it is none.
func members(raw []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		s := scanner{raw, 0}
		if s.next() != '{' {
			return
		}
		s.pos++
		for s.next() == '"' {
			name := s.string()
			if bytes.IndexByte(name, '\\') < 0 {
				name = name[1 : len(name)-1]
			} else {
				name = []byte(unquote(name))
			}
			s.next()
			s.pos++ // the colon
			s.next()
			if !yield(name, trimEnd(s.value())) || s.next() != ',' {
				return
			}
			s.pos++
		}
	}
}

// trimEnd cuts the white space that value takes after a number or a literal.
func trimEnd(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] <= ' ' {
		b = b[:len(b)-1]
	}
	return b
}

// scanner walks over JSON that is known to be valid.
type scanner struct {
	b   []byte
	pos int
}

// next skips white space and returns the byte that follows, 0 at the end.
func (s *scanner) next() byte {
	for ; s.pos < len(s.b); s.pos++ {
		switch c := s.b[s.pos]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// string takes a string, with its quotes.
func (s *scanner) string() []byte {
	start := s.pos
	for s.pos++; s.pos < len(s.b) && s.b[s.pos] != '"'; s.pos++ {
		if s.b[s.pos] == '\\' {
			s.pos++
		}
	}
	s.pos++
	return s.b[start:min(s.pos, len(s.b))]
}

// value takes a value of any kind.
func (s *scanner) value() []byte {
	start := s.pos
	for depth := 0; s.pos < len(s.b); {
		switch s.b[s.pos] {
		case '"':
			s.string()
			if depth == 0 {
				return s.b[start:s.pos]
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth <= 0 {
				if depth == 0 {
					s.pos++
				}
				return s.b[start:s.pos]
			}
		case ',':
			if depth == 0 {
				return s.b[start:s.pos]
			}
		}
		s.pos++
	}
	return s.b[start:s.pos]
}

func unquoteEqual(quoted []byte, name string) bool {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return len(quoted) == len(name)+2 && string(quoted[1:len(quoted)-1]) == name
	}
	return unquote(quoted) == name
}

func unquote(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 && utf8.Valid(quoted) {
		return string(quoted[1 : len(quoted)-1])
	}
	var s string
	json.Unmarshal(quoted, &s)
	return s
}

// encoder turns values into lines, reusing its buffer.
type encoder struct {
	buf bytes.Buffer
	enc *json.Encoder
}

var encoders = sync.Pool{New: func() any {
	e := new(encoder)
	e.enc = json.NewEncoder(&e.buf)
	e.enc.SetEscapeHTML(false) // as JSON.stringify
	return e
}}

// maxPooled is the largest buffer kept for reuse, in bytes.
const maxPooled = 64 << 10

// encode calls use with v as one line, "\n" included, valid until use returns.
func encode(v any, use func(line []byte) error) error {
	e := encoders.Get().(*encoder)
	defer func() {
		if e.buf.Cap() <= maxPooled {
			e.buf.Reset()
			encoders.Put(e)
		}
	}()
	if err := e.enc.Encode(v); err != nil {
		// An encoder refuses all after an error of its writer, not after this.
		return fmt.Errorf("cluster: message of type %T: %w", v, err)
	}
	return use(e.buf.Bytes())
}

// encodeUser is encode for what an application sends: the protocol's own
// messages are refused, and so is a line that would break the framing.
func encodeUser(v any, use func(line []byte) error) error {
	return encode(v, func(line []byte) error {
		if cmd, ok := internalCmd(line); ok {
			return fmt.Errorf("cluster: message has cmd %q: names that begin with %s are the protocol's own", cmd, reserved)
		}
		return use(line)
	})
}

// excerpt quotes the beginning of what a peer sent, for an error message.
func excerpt(b []byte) string {
	const most = 64
	if len(b) <= most {
		return fmt.Sprintf("%q", b)
	}
	return fmt.Sprintf("%q… (%d bytes)", b[:most], len(b))
}
