package gauge

import "errors"

// errUnsupported says that this system has no such page.
var errUnsupported = errors.New("gauge: no memory is shared on this system")

// Supported says that workers can have a page on this system.
const Supported = false

// source is none.
type source struct{}

func (source) read() (Counts, bool) { return Counts{}, false }
func (source) close()               {}
func (source) descriptor() int      { return -1 }
func adopt(int) (source, error)     { return source{}, errUnsupported }

func newSource() (source, int, error) { return source{}, -1, errUnsupported }

// Map fails: a descriptor cannot be sent here unless it is a socket.
func Map(int) (Writer, error) { return Writer{}, errUnsupported }
