package wire

import (
	"encoding/json"
	"sync/atomic"
)

// The cmd of the protocol's own messages.
const (
	CmdCluster = "NODE_CLUSTER"
	CmdHandle  = "NODE_HANDLE"
	CmdAck     = "NODE_HANDLE_ACK"
	CmdNack    = "NODE_HANDLE_NACK"
	CmdExtra   = "NODE_GO_CLUSTER"
)

// A node process that has sent connections of one of its servers asks for them: are they
// all closed, and how many are there? Its server does not close without the answer.
const (
	CmdSocketsClose  = "NODE_SOCKET_NOTIFY_CLOSE"
	CmdSocketsClosed = "NODE_SOCKET_ALL_CLOSED"
	CmdSocketsCount  = "NODE_SOCKET_GET_COUNT"
	CmdSocketsNumber = "NODE_SOCKET_COUNT"
)

// The acts of NODE_CLUSTER.
const (
	ActOnline     = "online"
	ActQuery      = "queryServer"
	ActListening  = "listening"
	ActNewConn    = "newconn"
	ActClose      = "close"
	ActDisconnect = "disconnect"
	ActVoluntary  = "exitedAfterDisconnect"
)

// The acts of NODE_GO_CLUSTER.
const (
	ActReady    = "ready"    // the worker takes traffic, or it called Ready
	ActDraining = "draining" // the worker was told by somebody else to stop
	ActAsk      = "ask"      // "tell me when you have received all up to here"
	ActReceived = "received" // the answer to ask; with an error: the message before it was dropped
	ActRequest  = "request"
	ActReply    = "reply"
	ActPing     = "ping"     // is the worker alive?
	ActPong     = "pong"     // the answer: a pulse
	ActStopping = "stopping" // all will be told to stop, after Options.ShutdownDelay
	ActTickets  = "tickets"  // the keys of TLS session tickets; in NODE_CLUSTER: a worker asks for them
	ActFull     = "full"     // the worker has accepted as many connections as it should
	ActRoom     = "room"     // the worker, which was full, takes connections again
	ActCoord    = "coord"    // of package coord: a question, or what a process is to know
	ActTopic    = "topic"    // a message that was published; its id is the topic's number
	ActHandle   = "handle"   // with a descriptor: a message of the application that carries it
	ActStream   = "stream"   // with a descriptor: a connection that the master has opened to the worker
	ActGauge    = "gauge"    // in NODE_CLUSTER, with a descriptor: the page for the worker's numbers
	ActShards   = "shards"   // in NODE_CLUSTER: the worker accepts now, and wants its share of the sockets of an address
	ActShard    = "shard"    // in NODE_CLUSTER, with a descriptor: one of them
	ActUnshard  = "unshard"  // in NODE_CLUSTER: one of them is no longer the worker's
	ActAgain    = "again"    // in NODE_CLUSTER: the socket of an address has become useless, and the worker is to ask anew
	ActNoRoom   = "noRoom"   // the worker has been full for a moment: its share is for others until ActRoom
	ActSocket   = "socket"   // in NODE_CLUSTER: a worker asks for a socket of its flow group
	ActTake     = "take"     // a worker takes connections of its flow group
	ActShares   = "shares"   // in NODE_CLUSTER: which sockets of its flow group a worker is to read
	ActStderr   = "stderr"   // in NODE_CLUSTER, with a descriptor: the master's standard error
	ActSpareOut = "spareout" // in NODE_CLUSTER, with a descriptor: the master's standard output, to use when the master is gone
	ActSpareErr = "spareerr" // the same of its standard error
)

// The types of handle in NODE_HANDLE that the cluster itself uses.
const (
	TypeNative = "net.Native"
	TypeDgram  = "dgram.Native"
)

// The types of handle that applications send.
const (
	TypeSocket      = "net.Socket"
	TypeServer      = "net.Server"
	TypeDgramSocket = "dgram.Socket"
)

// HandleType is what a descriptor is for node.
type HandleType struct {
	Type  string
	Dgram string // of a dgram.Socket: udp4 or udp6
}

// Parse reads an internal message. It ignores members that it does not know.
//
// It uses encoding/json, since most of these messages are sent once in the life of a worker
// or of an address. For those of each connection, encoding/json of Go 1.27 is as fast as a
// reader was that was written for them.
func Parse(raw []byte) (m Message, err error) {
	err = json.Unmarshal(raw, &m)
	return m, err
}

// Message is any internal message of node's. A member that node leaves out or makes null is
// a nil pointer here. A member that node sends in several types is kept raw.
type Message struct {
	Cmd string `json:"cmd"`
	Act string `json:"act,omitempty"`

	Errno    *int   `json:"errno,omitempty"`
	Key      string `json:"key,omitempty"`
	Ack      *int64 `json:"ack,omitempty"`
	Accepted *bool  `json:"accepted,omitempty"`
	Full     bool   `json:"full,omitempty"` // with accepted, of a Go worker: it takes no more for now
	Count    *int   `json:"count,omitempty"`

	Index       int             `json:"index,omitempty"`
	Data        json.RawMessage `json:"data,omitempty"`
	Sockname    *Sockname       `json:"sockname,omitempty"`
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

	Go *Extension `json:"go,omitempty"`

	Seq *int64 `json:"seq,omitempty"`
}

// Sockname is a socket's address as node writes it.
type Sockname struct {
	Address string `json:"address"`
	Family  string `json:"family,omitempty"`
	Port    int    `json:"port"`
}

// Extension is what this package adds to a message of node's. A node peer ignores
// it.
type Extension struct {
	// In online, about the worker.
	Version    int  `json:"version,omitempty"`    // of NODE_GO_CLUSTER that it speaks; 0: none
	SaysReady  bool `json:"saysReady,omitempty"`  // it says ActReady when it is ready; others are ready when they listen
	MaxMessage int  `json:"maxMessage,omitempty"` // the longest line that it takes, in bytes
	Gauge      bool `json:"gauge,omitempty"`      // it takes a page for its numbers

	GoVersion      string `json:"goVersion,omitempty"`      // of its build
	Revision       string `json:"revision,omitempty"`       // that was built
	ProgramVersion string `json:"programVersion,omitempty"` // of its main module

	// In queryServer.
	Network    string `json:"network,omitempty"`
	Named      string `json:"named,omitempty"` // the address as it was asked for
	Backlog    int    `json:"backlog,omitempty"`
	Multipath  bool   `json:"mptcp,omitempty"`
	Mode       uint32 `json:"mode,omitempty"`
	Owner      []int  `json:"owner,omitempty"` // user and group
	Scheduling int    `json:"scheduling,omitempty"`

	Shards      int   `json:"shards,omitempty"`      // how many sockets the address is to have
	TakesShards bool  `json:"takesShards,omitempty"` // the worker takes some of the sockets of an address
	Flow        *Flow `json:"flow,omitempty"`        // a place in the address's flow group is asked for, or given

	// In the answer to queryServer.
	Reason    string `json:"reason,omitempty"`
	UID       *int   `json:"uid,omitempty"`
	Listening bool   `json:"listening,omitempty"` // the socket of the answer listens already
	Sharded   bool   `json:"sharded,omitempty"`   // sockets come with ActShard, when the worker has asked with ActShards

	// In disconnect. Timeout is in milliseconds.
	Timeout int64 `json:"timeout,omitempty"`
	Stop    bool  `json:"stop,omitempty"` // of all workers, for good
}

// NoDescriptor, as a Reason, is why a worker was not given a socket that it has asked for.
const NoDescriptor = "no descriptor is free in this worker: raise RLIMIT_NOFILE, or close some of its files"

// Flow is a worker's place in a group of UDP sockets: see package flow.
type Flow struct {
	Shares int    `json:"shares,omitempty"` // how many sockets are shares
	Own    int    `json:"own,omitempty"`    // the index of the worker's own socket
	Tag    []byte `json:"tag,omitempty"`
	Reset  []byte `json:"reset,omitempty"` // the key for stateless resets
	Token  []byte `json:"token,omitempty"` // the key for tokens
	Read   []int  `json:"read,omitempty"`  // in ActShares: the indexes that the worker is to read
}

// ProtocolVersion is the version of NODE_GO_CLUSTER.
const ProtocolVersion = 1

// sequence numbers the internal messages. It is the one variable of this package. Node
// counts per process, so that a number names one message among those of all its channels.
var sequence atomic.Int64

// Sequence returns the number that NextSeq returns next.
func Sequence() int64 { return sequence.Load() }

// SetSequence makes NextSeq go on with n, where the program before an upgrade was.
func SetSequence(n int64) { sequence.Store(n) }

// NextSeq returns the number for the next internal message.
func NextSeq() *int64 {
	n := sequence.Add(1) - 1
	return &n
}

// addressed is a message that has its index and address even if they are 0 and null. A node
// primary makes the name of a socket of them. If they were left out, the name would differ
// from that for a node worker.
type addressed struct {
	*Message
	Index   int     `json:"index"`
	Address *string `json:"address"`
}

// Line encodes m, with its newline.
func (m *Message) Line() []byte {
	var v any = m
	if m.Act == ActQuery {
		v = addressed{m, m.Index, m.Address}
	}
	b, err := json.Marshal(v)
	if err != nil {
		// All members are our own, but for the raw ones, which were valid when they came.
		panic("cluster: internal message: " + err.Error())
	}
	return append(b, '\n')
}
