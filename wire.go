package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
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
	cmdOurs    = "NODE_GO_CLUSTER"
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

// seq numbers internal messages: one counter for the process, as node's.
var seq atomic.Int64

func nextSeq() *int64 {
	n := seq.Add(1) - 1
	return &n
}

func ptr[T any](v T) *T { return &v }

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

// The frequent messages are put together by hand: they are on the way of every
// received callback and every request.

func appendOurs(b []byte, act string, member string, n uint64) []byte {
	b = append(b, `{"cmd":"`+cmdOurs+`","act":"`...)
	b = append(b, act...)
	b = append(b, `","`...)
	b = append(b, member...)
	b = append(b, `":`...)
	return strconv.AppendUint(b, n, 10)
}

func appendCount(b []byte, act string, n uint64) []byte {
	return append(appendOurs(b, act, "n", n), "}\n"...)
}

// callHead is room for the beginning of a request or a reply.
const callHead = 96

// callParts are the parts of the line that carries msg, itself a line. The
// first is appended to b.
func callParts(b []byte, act string, id uint64, msg []byte) (head, body, tail []byte) {
	return append(appendOurs(b, act, "id", id), `,"msg":`...), bytes.TrimSuffix(msg, newline), closing
}

var newline, closing = []byte("\n"), []byte("}\n")

func appendFailure(b []byte, id uint64, text string) []byte {
	b = append(appendOurs(b, actReply, "id", id), `,"error":`...)
	quoted, _ := json.Marshal(text) // a string always encodes
	return append(append(b, quoted...), "}\n"...)
}

// appendNewConn is the line of a connection for the worker to serve, up to the
// number that ends it; closeNewConn is the rest.
func appendNewConn(b []byte, key string) []byte {
	quoted, _ := json.Marshal(key)
	b = append(b, `{"cmd":"`+cmdHandle+`","type":"`+typeNative+`","msg":{"cmd":"`+cmdCluster+`","act":"`+actNewConn+`","key":`...)
	return append(append(b, quoted...), `,"seq":`...)
}

const closeNewConn = "}}\n"

// acceptedLine answers one.
func acceptedLine(ack *int64, accepted bool) []byte {
	if ack == nil {
		return (&wire{Cmd: cmdCluster, Accepted: &accepted, Seq: nextSeq()}).line()
	}
	b := append([]byte(nil), `{"cmd":"`+cmdCluster+`","ack":`...)
	b = strconv.AppendInt(b, *ack, 10)
	b = append(b, `,"accepted":`...)
	b = strconv.AppendBool(b, accepted)
	b = append(b, `,"seq":`...)
	b = strconv.AppendInt(b, *nextSeq(), 10)
	return append(b, "}\n"...)
}

// parseWire reads an internal message, a valid JSON value. Those of which each
// connection has some have few members, all simple; it is read from these as
// encoding/json would, which reads all others.
func parseWire(raw []byte) (m wire, err error) {
	for name, value := range members(raw) {
		ok := false
		switch string(name) {
		case "cmd":
			m.Cmd, ok = simpleText(value)
		case "act":
			m.Act, ok = simpleText(value)
		case "type":
			m.Type, ok = simpleText(value)
		case "key":
			m.Key, ok = simpleText(value)
		case "seq":
			m.Seq, ok = simpleNumber(value)
		case "ack":
			m.Ack, ok = simpleNumber(value)
		case "accepted":
			ok = string(value) == "true" || string(value) == "false"
			m.Accepted = ptr(string(value) == "true")
		case "msg":
			m.Msg, ok = bytes.Clone(value), true
		}
		if !ok {
			m = wire{}
			err = json.Unmarshal(raw, &m)
			return m, err
		}
	}
	if m.Cmd == "" { // no object, say
		err = json.Unmarshal(raw, &m)
	}
	return m, err
}

func simpleText(value []byte) (string, bool) {
	if !bytes.HasPrefix(value, quote) {
		return "", false
	}
	return wordOf(value), true
}

func simpleNumber(value []byte) (*int64, bool) {
	n, err := strconv.ParseInt(string(value), 10, 64)
	return &n, err == nil
}

// ours is a message of NODE_GO_CLUSTER.
type ours struct {
	Act   string
	N     uint64
	ID    uint64
	Msg   []byte // part of the line; nil if there is none
	Error *string
}

// parseOurs reads a line that is a valid JSON object. As encoding/json it lets
// the last of several members of a name count and ignores those that it does
// not know.
func parseOurs(line []byte) (m ours, err error) {
	for name, value := range members(line) {
		switch string(name) {
		case "act":
			m.Act, err = textOf(value)
		case "n":
			m.N, err = strconv.ParseUint(string(value), 10, 64)
		case "id":
			m.ID, err = strconv.ParseUint(string(value), 10, 64)
		case "msg":
			m.Msg = value
		case "error":
			var text string
			text, err = textOf(value)
			m.Error = &text
		}
		if err != nil {
			return ours{}, fmt.Errorf("member %q: %w", name, err)
		}
	}
	return m, nil
}

func textOf(value []byte) (string, error) {
	if !bytes.HasPrefix(value, quote) {
		return "", errors.New("no string")
	}
	return wordOf(value), nil
}
