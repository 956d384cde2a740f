package wire

import (
	"encoding/binary"
	"math/bits"
)

// The functions here walk over bytes that may be JSON. Each walks over the thing that it is
// named after, which begins at b[i]. It returns the index where that ends, or -1 if it is
// not there. They are functions of a slice and an index, and not methods of a scanner, so
// that both stay in registers.

// skipSpace returns where the white space at b[i] ends, which is i if there is none.
func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	return i
}

// skipValue walks over a value that lies depth levels deep.
func skipValue(b []byte, i, depth int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{':
		return skipObject(b, i, depth, nil)
	case '[':
		return skipArray(b, i, depth)
	case 't':
		return skipLiteral(b, i, "true")
	case 'f':
		return skipLiteral(b, i, "false")
	case 'n':
		return skipLiteral(b, i, "null")
	default:
		return skipNumber(b, i)
	}
}

// skipObject walks over an object. If l is not nil, it notes the members.
func skipObject(b []byte, i, depth int, l *Line) int {
	if depth == maxDepth {
		return -1
	}
	if i = skipSpace(b, i+1); i < len(b) && b[i] == '}' {
		return i + 1
	}
	for {
		if i >= len(b) || b[i] != '"' {
			return -1
		}
		name := i
		if i = skipString(b, i); i < 0 {
			return -1
		}
		nameEnd := i
		if i = skipSpace(b, i); i >= len(b) || b[i] != ':' {
			return -1
		}
		value := skipSpace(b, i+1)
		if i = skipValue(b, value, depth+1); i < 0 {
			return -1
		}
		if l != nil {
			l.note(b[name:nameEnd], b[value:i])
		}
		if i = skipSpace(b, i); i >= len(b) {
			return -1
		}
		switch b[i] {
		case ',':
			i = skipSpace(b, i+1)
		case '}':
			return i + 1
		default:
			return -1
		}
	}
}

func skipArray(b []byte, i, depth int) int {
	if depth == maxDepth {
		return -1
	}
	if i = skipSpace(b, i+1); i < len(b) && b[i] == ']' {
		return i + 1
	}
	for {
		if i = skipValue(b, i, depth+1); i < 0 {
			return -1
		}
		if i = skipSpace(b, i); i >= len(b) {
			return -1
		}
		switch b[i] {
		case ',':
			i = skipSpace(b, i+1)
		case ']':
			return i + 1
		default:
			return -1
		}
	}
}

// skipString walks over a string. b[i] is its first quote.
func skipString(b []byte, i int) int {
	for i++; ; {
		for len(b)-i >= 8 {
			if ends := notPlain(binary.LittleEndian.Uint64(b[i:])); ends != 0 {
				i += bits.TrailingZeros64(ends) / 8
				break
			}
			i += 8
		}
		if i >= len(b) {
			return -1
		}
		switch ch := b[i]; {
		case ch == '"':
			return i + 1
		case ch == '\\':
			if i = skipEscape(b, i); i < 0 {
				return -1
			}
		case ch < ' ':
			return -1
		default: // one of the last seven
			i++
		}
	}
}

// notPlain finds, in eight bytes of a string, the first one that does not stand for
// itself: a quote, a backslash or a control character. It is the one whose highest bit is
// the lowest that is set in the result. Higher bits may be set without a reason: a
// subtraction borrows from the next byte, but only where a byte was found.
func notPlain(eight uint64) uint64 {
	const each = 0x0101010101010101 // times n: eight bytes n
	quote, backslash := eight^each*'"', eight^each*'\\'
	return ((quote-each)&^quote | (backslash-each)&^backslash | (eight-each*' ')&^eight) & (each * 0x80)
}

// skipEscape walks over an escape in a string. b[i] is its backslash.
func skipEscape(b []byte, i int) int {
	if i++; i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 1
	case 'u':
		if len(b)-i > 4 && isHex(b[i+1]) && isHex(b[i+2]) && isHex(b[i+3]) && isHex(b[i+4]) {
			return i + 5
		}
	}
	return -1
}

func isHex(ch byte) bool {
	return '0' <= ch && ch <= '9' || 'a' <= ch && ch <= 'f' || 'A' <= ch && ch <= 'F'
}

func skipLiteral(b []byte, i int, l string) int {
	if len(b)-i < len(l) || string(b[i:i+len(l)]) != l {
		return -1
	}
	return i + len(l)
}

func skipNumber(b []byte, i int) int {
	if i < len(b) && b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if i = skipDigits(b, i); i < 0 {
		return -1
	}
	if i < len(b) && b[i] == '.' {
		if i = skipDigits(b, i+1); i < 0 {
			return -1
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		return skipDigits(b, i)
	}
	return i
}

// skipDigits walks over one digit or more.
func skipDigits(b []byte, i int) int {
	start := i
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		i++
	}
	if i == start {
		return -1
	}
	return i
}
