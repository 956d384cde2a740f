package broker

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-cluster/cluster/internal/coordinate"
	"github.com/go-cluster/cluster/internal/errs"
	"github.com/go-cluster/cluster/internal/wire"
)

// verb is what a question asks for.
type verb string

const (
	verbStand       verb = "stand"
	verbWithdraw    verb = "withdraw"
	verbReturned    verb = "returned"
	verbLock        verb = "lock"
	verbTryLock     verb = "trylock"
	verbUnlock      verb = "unlock"
	verbOnce        verb = "once"
	verbOnceDone    verb = "oncedone"
	verbOnceFailed  verb = "oncefailed"
	verbSubscribe   verb = "subscribe"
	verbUnsubscribe verb = "unsubscribe"
	verbPublish     verb = "publish"
	verbMissed      verb = "missed"
	verbGet         verb = "get"
	verbSet         verb = "set"
	verbAdd         verb = "add"
	verbSwap        verb = "swap"
	verbIncr        verb = "incr"
	verbDelete      verb = "delete"
	verbClear       verb = "clear"
	verbKeys        verb = "keys"
	verbRate        verb = "rate"
	verbTake        verb = "take"
)

// ordered reports whether the answer must be sent before anything that follows from later
// questions.
func (v verb) ordered() bool { return v == verbSubscribe }

// Question is what a process asks the Broker, or tells it.
type Question struct {
	Verb    verb            `json:"verb"`
	Name    string          `json:"name,omitempty"`
	Key     string          `json:"key,omitempty"`
	Ticket  uint64          `json:"ticket,omitempty"`
	Outcome int             `json:"outcome,omitempty"`
	Value   []byte          `json:"value,omitempty"`
	Old     []byte          `json:"old,omitempty"`
	N       int64           `json:"n,omitempty"`
	TTL     int64           `json:"ttl,omitempty"` // ns
	Rate    float64         `json:"rate,omitempty"`
	Ahead   int             `json:"ahead,omitempty"`
	Unused  int             `json:"unused,omitempty"`
	Message json.RawMessage `json:"message,omitempty"`
}

// Answer is the answer to a Question.
type Answer struct {
	OK    bool     `json:"ok,omitempty"`
	Value []byte   `json:"value,omitempty"`
	N     int64    `json:"n,omitempty"`
	Keys  []string `json:"keys,omitempty"`
	Lot   int      `json:"lot,omitempty"`
	Fault *fault   `json:"fault,omitempty"`
}

// note is what the Broker tells a process.
type note struct {
	Ticket uint64          `json:"ticket"`
	What   coordinate.What `json:"what,omitempty"`
	Fault  *fault          `json:"fault,omitempty"` // the candidacy is refused
}

// fault is an error as it goes over the channel.
type fault struct {
	Code string `json:"code,omitempty"`
	Text string `json:"text"`
}

var faultCodes = map[string]error{"large": errs.TooLarge, "many": errs.TooMany}

func faultOf(err error) *fault {
	if err == nil {
		return nil
	}
	f := &fault{Text: err.Error()}
	for code, known := range faultCodes {
		if errors.Is(err, known) {
			f.Code = code
		}
	}
	return f
}

// err returns the error, which a caller can test with errors.Is.
func (f *fault) err() error {
	if f == nil {
		return nil
	}
	return &farError{f.Text, faultCodes[f.Code]}
}

type farError struct {
	text string
	is   error
}

func (e *farError) Error() string { return e.text }
func (e *farError) Unwrap() error { return e.is }

// line encodes v as a line of the protocol with the act.
func line(act string, id uint64, v any, use func(line []byte) error) error {
	return wire.Encode(v, func(msg []byte) error {
		return use(lineOf(act, id, msg))
	})
}

// lineOf is line for a msg that is encoded already.
func lineOf(act string, id uint64, msg []byte) []byte {
	head, body, tail := wire.CallParts(make([]byte, 0, wire.CallHead+len(msg)), act, id, msg)
	return append(append(head, body...), tail...)
}

func tooLarge(what string, size, most int) error {
	return fmt.Errorf("%w: %s has %d bytes, and %d are the most", errs.TooLarge, what, size, most)
}
