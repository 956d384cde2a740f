package cluster

import (
	"errors"
	"os"
)

// channel will be one end of a duplex named pipe.
type channel struct{}

var errWouldBlock = errors.New("channel: would block")

func inheritChannel(int) (*channel, error) { return nil, ErrNotSupported }

// input will be what one read returned.
type input struct {
	data []byte
	n    int
	fds  []int
}

func (in *input) free() {}

func (c *channel) recv() (*input, error)         { return nil, os.ErrClosed }
func (c *channel) tryRecv() (*input, error)      { return nil, os.ErrClosed }
func (c *channel) send([]byte, int) (int, error) { return 0, os.ErrClosed }
func (c *channel) waitRoom(error) error          { return os.ErrClosed }
func isNoRoom(error) bool                        { return false }
func (c *channel) waitHangup() bool              { return true }
func (c *channel) resume()                       {}
func (c *channel) unread() int                   { return 0 }
func (c *channel) interrupt()                    {}
func (c *channel) close()                        {}

func closeDescriptors([]int) {}

// handle will be a shared socket.
type handle struct{ fd int }

func newHandle(fd int) *handle    { return &handle{fd} }
func (h *handle) retain() *handle { return h }
func (h *handle) release()        {}
