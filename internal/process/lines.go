package process

import (
	"bytes"
	"io"
)

const (
	// lineBuffer is what a process's output is copied with. With io.Copy's buffer
	// every process would hold 32 KiB.
	lineBuffer = 4 << 10
	// longestLine bounds what the buffer grows to.
	longestLine = 64 << 10
	// cutMark is put where a longer line is cut. What follows is a line of its own.
	cutMark = " [cut: a line of more than 64 KiB]\n"
)

// copyLines copies r to w until its end. Each Write is of whole lines, so that
// those of several processes do not mix; the last one gets its newline if the
// process has not written it.
func copyLines(w io.Writer, r io.Reader) error {
	buf, n := make([]byte, lineBuffer), 0
	for {
		got, err := r.Read(buf[n:])
		end := n + bytes.LastIndexByte(buf[n:n+got], '\n') + 1
		whole := end > n
		n += got
		switch {
		case whole:
			if _, err := w.Write(buf[:end]); err != nil {
				return err
			}
			n = copy(buf, buf[end:n])
			if len(buf) > lineBuffer && n < lineBuffer {
				buf = append(make([]byte, 0, lineBuffer), buf[:n]...)[:lineBuffer]
			}
		case n == longestLine:
			if _, err := w.Write(append(buf[:n:n], cutMark...)); err != nil {
				return err
			}
			n = 0
		case n == len(buf):
			buf = append(buf, make([]byte, len(buf))...)
		}
		switch {
		case err == nil:
		case n > 0:
			_, err = w.Write(append(buf[:n:n], '\n'))
			return err
		default:
			return nil
		}
	}
}
