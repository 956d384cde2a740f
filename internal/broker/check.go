package broker

import (
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/go-cluster/cluster/internal/coordinate"
)

// check returns an error if the question is not valid. The Client calls it, so that a caller
// hears of a mistake at once, and so does the Broker, which trusts no worker.
func (q *Question) check() error {
	if err := checkText("the name", q.Name); err != nil {
		return err
	}
	if err := checkText("the key", q.Key); err != nil {
		return err
	}
	if n := len(q.Value); n > coordinate.MaxValue {
		return tooLarge("the value", n, coordinate.MaxValue)
	}
	switch ttl := time.Duration(q.TTL); {
	case ttl < 0 && ttl != coordinate.KeepTTL:
		return fmt.Errorf("the ttl is %v: it must not be negative (0 is no end)", ttl)
	case q.Verb == verbTake && (q.N < 0 || q.N > math.MaxInt32 || q.Ahead < 0 || q.Unused < 0):
		return fmt.Errorf("%d tokens cannot be taken", q.N)
	case q.Verb == verbTake && len(q.Key) > longestKey: // its Client has not hashed it
		return tooLarge("the key", len(q.Key), longestKey)
	case q.Verb == verbPublish && len(q.Message) == 0:
		return errors.New("there is no message to publish")
	case q.Verb == verbMissed && (q.N < 0 || q.N > math.MaxInt32):
		return fmt.Errorf("%d messages cannot have been missed", q.N)
	case q.Verb == verbRate && !(q.Rate >= 0):
		return fmt.Errorf("the rate is %v: it must not be negative", q.Rate)
	case q.Verb == verbRate && (q.N < 0 || q.N > math.MaxInt32):
		return fmt.Errorf("the burst is %d: it is a number from 0 to %d", q.N, math.MaxInt32)
	}
	return nil
}

func checkText(what, text string) error {
	if len(text) > coordinate.MaxKey {
		return tooLarge(what, len(text), coordinate.MaxKey)
	}
	if !utf8.ValidString(text) {
		return fmt.Errorf("%s %.64q is no UTF-8", what, text)
	}
	return nil
}
