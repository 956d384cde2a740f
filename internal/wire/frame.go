package wire

import (
	"bytes"
	"slices"
)

// Framer cuts the byte stream of a channel into lines, each of which is one JSON value. It
// drops a line of more than Max bytes, so it never holds more than that.
type Framer struct {
	Max      int
	parts    [][]byte // the line so far, in pieces that double: no byte is copied twice
	size     int      // bytes in parts
	dropping bool     // what comes is the rest of a line that was too long
}

const firstPart = 4 << 10

// Feed takes the next bytes. It calls line for each line that they complete, without the
// "\n" or "\r\n" at its end, and tooLong for a line of more than Max bytes. l is valid until
// line returns; if owned is true, line may keep it.
func (f *Framer) Feed(p []byte, line func(l []byte, owned bool), tooLong func()) {
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			f.keep(p, tooLong)
			return
		}
		l, rest := p[:end], p[end+1:]
		p = rest
		switch {
		case f.dropping:
			f.dropping = false
		case f.size+len(l) > f.Max+1:
			f.reset()
			tooLong()
		case f.size == 0:
			f.end(l, false, line, tooLong)
		default:
			whole := slices.Grow([]byte(nil), f.size+len(l))
			for _, part := range f.parts {
				whole = append(whole, part...)
			}
			whole = append(whole, l...)
			f.reset()
			f.end(whole, true, line, tooLong)
		}
	}
}

// end passes on a line, which may have one byte too much if that is a "\r".
func (f *Framer) end(l []byte, owned bool, line func(l []byte, owned bool), tooLong func()) {
	if l = trimCR(l); len(l) > f.Max {
		tooLong()
		return
	}
	line(l, owned)
}

// keep stores the beginning of a line.
func (f *Framer) keep(p []byte, tooLong func()) {
	if f.dropping {
		return
	}
	if f.size+len(p) > f.Max+1 { // +1: a "\r" may come before the newline
		f.reset()
		f.dropping = true
		tooLong()
		return
	}
	f.size += len(p)
	for len(p) > 0 {
		last := len(f.parts) - 1
		if last < 0 || len(f.parts[last]) == cap(f.parts[last]) {
			f.parts = append(f.parts, make([]byte, 0, min(max(firstPart, f.size), 1<<20)))
			last++
		}
		part := f.parts[last]
		n := min(len(p), cap(part)-len(part))
		f.parts[last] = append(part, p[:n]...)
		p = p[n:]
	}
}

// Partial reports whether a line has begun, other than one that is being dropped.
func (f *Framer) Partial() bool { return f.size > 0 }

// Rest returns the beginning of the line that is not complete, for Resume. dropping says
// that the line was too long, and what comes of it is dropped.
func (f *Framer) Rest() (line []byte, dropping bool) {
	return slices.Concat(f.parts...), f.dropping
}

// Resume makes a new Framer go on where the one was whose Rest this is.
func (f *Framer) Resume(line []byte, dropping bool) {
	f.dropping = dropping
	if len(line) > 0 {
		f.parts, f.size = [][]byte{line}, len(line)
	}
}

func (f *Framer) reset() { f.parts, f.size = nil, 0 }

func trimCR(l []byte) []byte {
	if n := len(l); n > 0 && l[n-1] == '\r' {
		return l[:n-1]
	}
	return l
}
