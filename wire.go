package cluster

import (
	"encoding/json"
	"sync/atomic"
)

// The internal messages, as node's cluster module speaks them. What is ours
// beyond node has a cmd of its own and is only ever sent to a peer that said
// that it understands it.
const (
	cmdCluster = "NODE_CLUSTER"
	cmdHandle  = "NODE_HANDLE"
	cmdAck     = "NODE_HANDLE_ACK"
	cmdNack    = "NODE_HANDLE_NACK"
	cmdExtra   = "NODE_GO_CLUSTER"
)

// What a node process asks about the sockets of one of its servers that it has
// sent: are they all closed, and how many are there. Its server does not close
// without the answer.
const (
	cmdSocketsClose  = "NODE_SOCKET_NOTIFY_CLOSE"
	cmdSocketsClosed = "NODE_SOCKET_ALL_CLOSED"
	cmdSocketsCount  = "NODE_SOCKET_GET_COUNT"
	cmdSocketsNumber = "NODE_SOCKET_COUNT"
)

// The acts of NODE_CLUSTER.
const (
	actOnline     = "online"
	actQuery      = "queryServer"
	actListening  = "listening"
	actNewConn    = "newconn"
	actClose      = "close"
	actDisconnect = "disconnect"
	actVoluntary  = "exitedAfterDisconnect"
)

// The acts of NODE_GO_CLUSTER.
const (
	actReady    = "ready"    // the worker called Ready
	actDraining = "draining" // the worker was told by somebody else to stop
	actAsk      = "ask"      // "tell me when you have received all up to here"
	actReceived = "received" // the answer to ask
	actRequest  = "request"
	actReply    = "reply"
	actPing     = "ping"   // is the worker alive?
	actPong     = "pong"   // the answer: a pulse
	actFull     = "full"   // the worker has accepted as many connections as it should
	actStderr   = "stderr" // in NODE_CLUSTER, with a descriptor: the master's standard error
)

// The types of handle in NODE_HANDLE that the cluster itself uses.
const (
	typeNative = "net.Native"
	typeDgram  = "dgram.Native"
)

// parseWire reads an internal message. What it does not know it ignores.
func parseWire(raw []byte) (m wire, err error) {
	err = json.Unmarshal(raw, &m)
	return m, err
}

// wire is any internal message. What node leaves out or makes null is a nil
// pointer; what it sends in several types is kept raw.
type wire struct {
	Cmd string `json:"cmd"`
	Act string `json:"act,omitempty"`

	Errno    *int   `json:"errno,omitempty"`
	Key      string `json:"key,omitempty"`
	Ack      *int64 `json:"ack,omitempty"`
	Accepted *bool  `json:"accepted,omitempty"`
	Count    *int   `json:"count,omitempty"`

	Index       int             `json:"index,omitempty"`
	Data        json.RawMessage `json:"data,omitempty"`
	Sockname    *sockname       `json:"sockname,omitempty"`
	Address     *string         `json:"address,omitempty"`
	Port        *int            `json:"port,omitempty"`
	AddressType json.RawMessage `json:"addressType,omitempty"` // 4, 6, -1, "udp4", "udp6", null; ours: "unixgram"
	FD          *int            `json:"fd,omitempty"`
	Flags       int             `json:"flags,omitempty"`
	Backlog     json.RawMessage `json:"backlog,omitempty"` // a number, false or null
	ReadableAll bool            `json:"readableAll,omitempty"`
	WritableAll bool            `json:"writableAll,omitempty"`

	Type string          `json:"type,omitempty"` // of a handle
	Msg  json.RawMessage `json:"msg,omitempty"`

	Go *extension `json:"go,omitempty"`

	Seq *int64 `json:"seq,omitempty"`
}

// sockname is a socket's address as node writes it.
type sockname struct {
	Address string `json:"address"`
	Family  string `json:"family,omitempty"`
	Port    int    `json:"port"`
}

// extension is what is ours inside a message of node's. A node peer ignores it.
type extension struct {
	Version int `json:"version,omitempty"` // in online: that this peer speaks NODE_GO_CLUSTER

	// In queryServer.
	Network    string `json:"network,omitempty"`
	Named      string `json:"named,omitempty"` // the address as it was asked for
	Backlog    int    `json:"backlog,omitempty"`
	Multipath  bool   `json:"mptcp,omitempty"`
	Mode       uint32 `json:"mode,omitempty"`
	Scheduling int    `json:"scheduling,omitempty"`

	// In its answer.
	Reason    string `json:"reason,omitempty"`
	UID       *int   `json:"uid,omitempty"`
	Listening bool   `json:"listening,omitempty"` // the socket that comes along listens already

	// In disconnect: milliseconds.
	Timeout int64 `json:"timeout,omitempty"`
}

// protocolVersion is the version of NODE_GO_CLUSTER.
const protocolVersion = 1

// sequence numbers the internal messages. It is the one variable of this package:
// node counts per process, so a number names one message on all of its channels.
var sequence atomic.Int64

// nextSeq returns the number for the next internal message.
func nextSeq() *int64 {
	n := sequence.Add(1) - 1
	return &n
}

// addressed is a wire whose index and address are there even if they are 0 and
// null: a node primary makes its name of the socket of them, and what is left
// out is another name than that of the node workers.
type addressed struct {
	*wire
	Index   int     `json:"index"`
	Address *string `json:"address"`
}

// line encodes m, with its newline.
func (m *wire) line() []byte {
	var v any = m
	if m.Act == actQuery {
		v = addressed{m, m.Index, m.Address}
	}
	b, err := json.Marshal(v)
	if err != nil {
		// All members are ours but the raw ones, which were valid when they came.
		panic("cluster: internal message: " + err.Error())
	}
	return append(b, '\n')
}
