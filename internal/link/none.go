package link

import "github.com/go-cluster/cluster/internal/channel"

// NewClosed returns the link to a worker that has no channel. It is like a link that has
// ended, except that Side.Closed was not called. It must not be started.
func NewClosed(to Receiver, s Side, o Options) (*Link, error) {
	ours, theirs, err := channel.Pair()
	if err != nil {
		return nil, err
	}
	l := New(ours, to, s, PeerUnknown, o)
	l.Discard()
	theirs.Close()
	close(l.done)
	return l, nil
}
