package cluster

import (
	"encoding/json"

	"github.com/go-cluster/cluster/internal/wire"
)

// Message is one JSON value as it came over the channel. It stays valid for as
// long as it is kept.
type Message struct{ raw []byte }

// Cmd returns the message's "cmd" member, or "" if the message is no object,
// has none, or it is no string.
func (m Message) Cmd() string {
	return wire.Cmd(m.raw).String()
}

// Decode stores the message in v, as [json.Unmarshal] does.
func (m Message) Decode(v any) error { return json.Unmarshal(m.raw, v) }

// Bytes returns the message's JSON text, which must not be changed.
func (m Message) Bytes() []byte { return m.raw }

// String returns the message's JSON text.
func (m Message) String() string { return string(m.raw) }

// MarshalJSON returns the message as it came, so that it can be sent on.
func (m Message) MarshalJSON() ([]byte, error) {
	if m.raw == nil {
		return []byte("null"), nil
	}
	return m.raw, nil
}
