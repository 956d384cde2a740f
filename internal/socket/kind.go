package socket

// Kind is what the system says a descriptor is.
type Kind int

// The kinds that can go from process to process.
const (
	File     Kind = iota // not a socket, or one that package net has no type for
	Stream               // a connection
	Listener             // a stream socket that listens
	Packet               // a datagram socket
)

// String names the kind for an error message.
func (k Kind) String() string {
	switch k {
	case Stream:
		return "a connection"
	case Listener:
		return "a listener"
	case Packet:
		return "a datagram socket"
	}
	return "a file"
}
