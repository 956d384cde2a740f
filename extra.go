package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
)

// extra is a message of NODE_GO_CLUSTER: what this package says beyond node's
// protocol.
type extra struct {
	Act   string
	N     uint64
	ID    uint64
	Msg   []byte // part of the line; nil if there is none
	Error *string
}

// extra reads the line as one. It ignores members that it does not know.
func (l *jsonLine) extra() (m extra, err error) {
	if l.act != nil {
		if m.Act, err = stringOf("act", l.act); err != nil {
			return extra{}, err
		}
	}
	if m.N, err = numberOf("n", l.n); err != nil {
		return extra{}, err
	}
	if m.ID, err = numberOf("id", l.id); err != nil {
		return extra{}, err
	}
	if l.err != nil {
		text, err := stringOf("error", l.err)
		if err != nil {
			return extra{}, err
		}
		m.Error = &text
	}
	m.Msg = l.msg
	return m, nil
}

func stringOf(name string, value []byte) (string, error) {
	t := textOf(value)
	if t == nil {
		return "", fmt.Errorf("member %q: no string", name)
	}
	return t.String(), nil
}

// numberOf reads a count; what is not there is 0.
func numberOf(name string, value []byte) (n uint64, err error) {
	if value == nil {
		return 0, nil
	}
	if n, err = strconv.ParseUint(string(value), 10, 64); err != nil {
		err = fmt.Errorf("member %q: %w", name, err)
	}
	return n, err
}

// The frequent messages are put together by hand: they are on the way of every
// received callback and every request.

func appendExtra(b []byte, act string, member string, n uint64) []byte {
	b = append(b, `{"cmd":"`+cmdExtra+`","act":"`...)
	b = append(b, act...)
	b = append(b, `","`...)
	b = append(b, member...)
	b = append(b, `":`...)
	return strconv.AppendUint(b, n, 10)
}

func appendCount(b []byte, act string, n uint64) []byte {
	return append(appendExtra(b, act, "n", n), "}\n"...)
}

// callHead is room for the beginning of a request or a reply.
const callHead = 96

// callParts are the parts of the line that carries msg, itself a line. The
// first is appended to b.
func callParts(b []byte, act string, id uint64, msg []byte) (head, body, tail []byte) {
	return append(appendExtra(b, act, "id", id), `,"msg":`...), bytes.TrimSuffix(msg, newline), closing
}

var newline, closing = []byte("\n"), []byte("}\n")

func appendFailure(b []byte, id uint64, text string) []byte {
	b = append(appendExtra(b, actReply, "id", id), `,"error":`...)
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
