package process

import (
	"bytes"
	"errors"
	"io"
	"os"
)

const (
	// lineBuffer is the size in bytes of the buffer that copies a process's output. With
	// io.Copy's buffer every process would hold 32 KiB.
	lineBuffer = 4 << 10
	// longestLine is the size to which the buffer may grow.
	longestLine = 64 << 10
	// cutMark is put where a longer line is cut. What follows is a line of its own.
	cutMark = " [cut: a line of more than 64 KiB]\n"
)

// copyLines copies r to w until its end. Each Write is of whole lines, so that
// those of several processes do not mix; the last one gets its newline if the
// process has not written it. After an interrupt (os.ErrDeadlineExceeded) it can be
// called again with the rest that it returns, which begins a line.
func copyLines(w io.Writer, r io.Reader, rest []byte) (left []byte, err error) {
	size := lineBuffer
	for size <= len(rest) {
		size *= 2
	}
	buf := make([]byte, size)
	n := copy(buf, rest)
	for {
		got, err := r.Read(buf[n:])
		end := n + bytes.LastIndexByte(buf[n:n+got], '\n') + 1
		whole := end > n
		n += got
		switch {
		case whole:
			if _, err := w.Write(buf[:end]); err != nil {
				return nil, err
			}
			n = copy(buf, buf[end:n])
			if len(buf) > lineBuffer && n < lineBuffer {
				buf = append(make([]byte, 0, lineBuffer), buf[:n]...)[:lineBuffer]
			}
		case n == longestLine:
			if _, err := w.Write(append(buf[:n:n], cutMark...)); err != nil {
				return nil, err
			}
			n = 0
		case n == len(buf):
			buf = append(buf, make([]byte, len(buf))...)
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return buf[:n], err
		case n > 0:
			_, err = w.Write(append(buf[:n:n], '\n'))
			return nil, err
		default:
			return nil, nil
		}
	}
}
