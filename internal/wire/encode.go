package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
)

// reserved begins the cmd of every message that is the protocol's own.
const reserved = "NODE_"

// isReserved reports whether cmd is that of an internal message, by node's rule.
func isReserved(cmd string) bool {
	return len(cmd) > len(reserved) && strings.HasPrefix(cmd, reserved)
}

// InternalCmd returns the cmd of line, a valid JSON value, if line is an internal message.
// Almost no line is, and for most two scans for a substring tell that.
func InternalCmd(line []byte) (string, bool) {
	if !bytes.Contains(line, []byte(reserved)) && !bytes.Contains(line, []byte(`\u`)) {
		return "", false
	}
	l, _ := Read(line)
	return l.Internal()
}

// Internal returns the line's cmd if it is internal.
func (l *Line) Internal() (cmd string, ok bool) {
	if len(l.cmd) < len(reserved) || l.cmd[1] != reserved[0] && l.cmd[1] != '\\' {
		return "", false
	}
	cmd = textOf(l.cmd).String()
	return cmd, isReserved(cmd)
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

// Encode calls use with v as one line, "\n" included, valid until use returns.
func Encode(v any, use func(line []byte) error) error {
	e := encoders.Get().(*encoder)
	defer func() {
		if e.buf.Cap() <= maxPooled {
			e.buf.Reset()
			encoders.Put(e)
		}
	}()
	if err := e.enc.Encode(v); err != nil {
		// The encoder can be used again: only an error of its writer would stay.
		return fmt.Errorf("cluster: message of type %T: %w", v, err)
	}
	return use(e.buf.Bytes())
}

// EncodeUser is Encode for what an application sends: the protocol's own
// messages are refused, and so is a line that would break the framing.
func EncodeUser(v any, use func(line []byte) error) error {
	return Encode(v, func(line []byte) error {
		if cmd, ok := InternalCmd(line); ok {
			return fmt.Errorf("cluster: message has cmd %q: names that begin with %s are the protocol's own", cmd, reserved)
		}
		return use(line)
	})
}

// Excerpt quotes the beginning of a peer's line, for an error message.
func Excerpt(b []byte) string {
	const most = 64
	if len(b) <= most {
		return fmt.Sprintf("%q", b)
	}
	return fmt.Sprintf("%q… (%d bytes)", b[:most], len(b))
}
