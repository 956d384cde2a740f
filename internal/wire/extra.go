package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
)

// Extra is a message of NODE_GO_CLUSTER: what this package says beyond node's
// protocol.
type Extra struct {
	Act   string
	N     uint64
	ID    uint64
	Msg   []byte // part of the line; nil if there is none
	Error *string
	Code  string // CodeTooLong, or "" for an error that callers need not tell apart
}

// CodeTooLong says that a message was longer than the other side takes.
const CodeTooLong = "tooLong"

// Extra reads the line as an Extra. It ignores members that it does not know.
func (l *Line) Extra() (m Extra, err error) {
	if l.act != nil {
		if m.Act, err = stringOf("act", l.act); err != nil {
			return Extra{}, err
		}
	}
	if m.N, err = numberOf("n", l.n); err != nil {
		return Extra{}, err
	}
	if m.ID, err = numberOf("id", l.id); err != nil {
		return Extra{}, err
	}
	if l.err != nil {
		text, err := stringOf("error", l.err)
		if err != nil {
			return Extra{}, err
		}
		m.Error = &text
		m.Code = textOf(l.code).String()
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

// numberOf reads a count. A member that is not there is 0.
func numberOf(name string, value []byte) (n uint64, err error) {
	if value == nil {
		return 0, nil
	}
	if n, err = strconv.ParseUint(string(value), 10, 64); err != nil {
		err = fmt.Errorf("member %q: %w", name, err)
	}
	return n, err
}

// The frequent messages are put together by hand, since every receipt and every request
// pays for them.

// appendExtra appends the beginning of an Extra, up to and with its one number.
func appendExtra(b []byte, act string, member string, n uint64) []byte {
	b = append(b, `{"cmd":"`+CmdExtra+`","act":"`...)
	b = append(b, act...)
	b = append(b, `","`...)
	b = append(b, member...)
	b = append(b, `":`...)
	return strconv.AppendUint(b, n, 10)
}

// AppendCount appends the line of an act with a count: ActAsk, ActReceived.
func AppendCount(b []byte, act string, n uint64) []byte {
	return append(appendExtra(b, act, "n", n), "}\n"...)
}

// CallHead is room enough for the beginning of a request or a reply, in bytes.
const CallHead = 96

// CallParts returns the three parts of a line of act that carries msg, which is a line
// itself. head is appended to b.
func CallParts(b []byte, act string, id uint64, msg []byte) (head, body, tail []byte) {
	return append(appendExtra(b, act, "id", id), `,"msg":`...), bytes.TrimSuffix(msg, newline), closing
}

// HandleLine returns the line that goes with a descriptor and carries msg, which is a line
// itself, to a peer that understands an Extra.
func HandleLine(msg []byte) []byte {
	b := make([]byte, 0, CallHead+len(msg))
	b = append(b, `{"cmd":"`+CmdExtra+`","act":"`+ActHandle+`","msg":`...)
	return append(append(b, bytes.TrimSuffix(msg, newline)...), closing...)
}

// StreamLine returns the line that goes with the descriptor of a stream: see ActStream.
func StreamLine() []byte {
	return []byte(`{"cmd":"` + CmdExtra + `","act":"` + ActStream + `"}` + "\n")
}

// NodeHandleLine is HandleLine for node.
func NodeHandleLine(t HandleType, msg []byte) []byte {
	b := make([]byte, 0, CallHead+len(msg))
	b = append(b, `{"cmd":"`+CmdHandle+`","type":"`+t.Type+`","msg":`...)
	b = append(b, bytes.TrimSuffix(msg, newline)...)
	if t.Dgram != "" {
		b = append(b, `,"dgramType":"`+t.Dgram+`"`...)
	}
	return append(b, closing...)
}

var newline, closing = []byte("\n"), []byte("}\n")

// AppendFailure appends the line of a reply that is an error. code may be empty.
func AppendFailure(b []byte, id uint64, text, code string) []byte {
	return appendError(appendExtra(b, ActReply, "id", id), text, code)
}

// AppendDropped appends the line which says that the message before the question n
// was dropped. Those before it were received. code may be empty.
func AppendDropped(b []byte, n uint64, text, code string) []byte {
	return appendError(appendExtra(b, ActReceived, "n", n), text, code)
}

func appendError(b []byte, text, code string) []byte {
	quoted, _ := json.Marshal(text) // a string always encodes
	b = append(append(b, `,"error":`...), quoted...)
	if code != "" {
		b = append(append(append(b, `,"code":"`...), code...), '"')
	}
	return append(b, "}\n"...)
}

// AppendNewConn appends the line that goes with a connection for the worker to serve, up to
// the message's number. The caller appends the number (NextSeq) and CloseNewConn.
func AppendNewConn(b []byte, key string) []byte {
	quoted, _ := json.Marshal(key)
	b = append(b, `{"cmd":"`+CmdHandle+`","type":"`+TypeNative+`","msg":{"cmd":"`+CmdCluster+`","act":"`+ActNewConn+`","key":`...)
	return append(append(b, quoted...), `,"seq":`...)
}

// CloseNewConn ends a line of AppendNewConn.
const CloseNewConn = "}}\n"

// AcceptedLine returns the answer to the line of a connection (AppendNewConn), whose number
// is ack. full tells a Go master that the worker takes no more connections until it says
// ActRoom.
func AcceptedLine(ack *int64, accepted, full bool) []byte {
	if ack == nil {
		return (&Message{Cmd: CmdCluster, Accepted: &accepted, Full: full, Seq: NextSeq()}).Line()
	}
	b := append([]byte(nil), `{"cmd":"`+CmdCluster+`","ack":`...)
	b = strconv.AppendInt(b, *ack, 10)
	b = append(b, `,"accepted":`...)
	b = strconv.AppendBool(b, accepted)
	if full {
		b = append(b, `,"full":true`...)
	}
	b = append(b, `,"seq":`...)
	b = strconv.AppendInt(b, *NextSeq(), 10)
	return append(b, "}\n"...)
}
