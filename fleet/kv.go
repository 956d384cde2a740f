package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/coord"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// KV is a map of keys to values that the fleet shares: coord.Store's methods over
// JetStream's key-value store. All are kept in the bucket cluster-<Name>, on disk where
// the server has one.
//
// Writes of one key are atomic, and each sees those before it. Where the bucket has
// several copies (a cluster of servers) Get may tell what was before, for a moment:
// what depends on a value changes it with CompareAndSwap or Incr. A key has at most
// 1 KiB, a value what the server takes (its max_payload, 1 MiB): cluster.ErrTooLarge.
// Nothing is evicted.
//
// A ttl is how long an entry lives: 0 is without an end, coord.KeepTTL leaves it as it
// is, and a negative one is an error. It is rounded up to seconds, and kept by the
// server; for KeepTTL, and for what CompareAndSwap and Incr leave, clocks must agree.
//
// Errors wrap [ErrNoFleet] where there is no connection, or it ended: then it may have
// happened; ctx.Err(); nats.ErrPermissionViolation; context.DeadlineExceeded too where
// JetStream has not answered for five seconds, as when its servers have lost one of them.
type KV struct {
	store *bucket
	name  string
}

// KV returns that with the name. It asks nobody.
func (f *Fleet) KV(name string) *KV { return &KV{f.store, name} }

// expiresHeader has when an entry ends, in milliseconds of Unix time.
const expiresHeader = "Cluster-Expires"

func (s *KV) key(key string) string { return "kv." + token(s.name) + "." + token(key) }

// failed says what could not be done.
func (s *KV) failed(call, key string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("fleet: KV(%.64q).%s(%.64q): %w", s.name, call, key, err)
}

func (s *KV) check(key string, ttl time.Duration) error {
	switch {
	case len(key) > maxName || len(s.name) > maxName/4:
		return fmt.Errorf("%w: the key or the name", cluster.ErrTooLarge)
	case ttl < 0 && ttl != coord.KeepTTL:
		return errors.New("the ttl is negative")
	}
	return nil
}

// change reads the entry and writes what next makes of it, until nobody else has
// changed it meanwhile. write false leaves it.
func (s *KV) change(ctx context.Context, key string, next func(r record) (val []byte, ttl time.Duration, write bool, err error)) error {
	for {
		r, err := s.store.get(ctx, s.key(key))
		if err != nil {
			return err
		}
		val, ttl, write, err := next(r)
		if err != nil || !write {
			return err
		}
		rev, header := r.rev, nats.Header(nil)
		if ttl == coord.KeepTTL {
			ttl = remaining(r)
		}
		if ttl > 0 {
			header = nats.Header{expiresHeader: {strconv.FormatInt(time.Now().Add(ttl).UnixMilli(), 10)}}
		}
		if _, err := s.store.put(ctx, s.key(key), val, rev, ttl, header); !errors.Is(err, errMoved) {
			return err
		}
	}
}

// remaining is how long an entry lives still: 0 is without an end.
func remaining(r record) time.Duration {
	at, err := strconv.ParseInt(r.header.Get(expiresHeader), 10, 64)
	if err != nil || !r.there {
		return 0
	}
	return max(time.Millisecond, time.Until(time.UnixMilli(at)))
}

// Get returns the value of the key, if there is one. It is the caller's.
func (s *KV) Get(ctx context.Context, key string) (val []byte, ok bool, err error) {
	if err := s.check(key, 0); err != nil {
		return nil, false, s.failed("Get", key, err)
	}
	r, err := s.store.get(ctx, s.key(key))
	if err != nil || !r.there {
		return nil, false, s.failed("Get", key, err)
	}
	return r.val, true, nil
}

// Set stores a value.
func (s *KV) Set(ctx context.Context, key string, val []byte, ttl time.Duration) error {
	err := s.check(key, ttl)
	switch {
	case err != nil:
	case ttl == coord.KeepTTL:
		err = s.change(ctx, key, func(record) ([]byte, time.Duration, bool, error) { return val, ttl, true, nil })
	default:
		var header nats.Header
		if ttl > 0 {
			header = nats.Header{expiresHeader: {strconv.FormatInt(time.Now().Add(ttl).UnixMilli(), 10)}}
		}
		_, err = s.store.put(ctx, s.key(key), val, anyRevision, ttl, header)
	}
	return s.failed("Set", key, err)
}

// Add stores a value if the key has none, and reports whether it did.
func (s *KV) Add(ctx context.Context, key string, val []byte, ttl time.Duration) (added bool, err error) {
	if err = s.check(key, ttl); err == nil {
		err = s.change(ctx, key, func(r record) ([]byte, time.Duration, bool, error) {
			added = !r.there
			return val, ttl, added, nil
		})
	}
	return added && err == nil, s.failed("Add", key, err)
}

// CompareAndSwap stores val if the key has the value old, and reports whether it did.
// nil is an empty value; a key that is not there is never made.
func (s *KV) CompareAndSwap(ctx context.Context, key string, old, val []byte, ttl time.Duration) (swapped bool, err error) {
	if err = s.check(key, ttl); err == nil {
		err = s.change(ctx, key, func(r record) ([]byte, time.Duration, bool, error) {
			swapped = r.there && bytes.Equal(r.val, old)
			return val, ttl, swapped, nil
		})
	}
	return swapped && err == nil, s.failed("CompareAndSwap", key, err)
}

// Incr adds n to the value, which is decimal text, and returns the sum. A key that is
// not there counts as 0; only then does ttl count. A value that is no number, and a
// sum that is no int64, is an error that changes nothing.
func (s *KV) Incr(ctx context.Context, key string, n int64, ttl time.Duration) (sum int64, err error) {
	if err = s.check(key, ttl); err == nil {
		err = s.change(ctx, key, func(r record) (val []byte, keep time.Duration, write bool, err error) {
			var has int64
			keep = ttl
			if r.there {
				keep = coord.KeepTTL
				if has, err = strconv.ParseInt(string(r.val), 10, 64); err != nil {
					return nil, 0, false, fmt.Errorf("the value is no number: %w", err)
				}
			}
			if n > 0 && has > math.MaxInt64-n || n < 0 && has < math.MinInt64-n {
				return nil, 0, false, errors.New("the sum is no int64")
			}
			sum = has + n
			return strconv.AppendInt(nil, sum, 10), keep, true, nil
		})
	}
	if err != nil {
		return 0, s.failed("Incr", key, err)
	}
	return sum, nil
}

// Delete removes a key. That there is none is no error.
func (s *KV) Delete(ctx context.Context, key string) error {
	err := s.check(key, 0)
	if err == nil {
		err = s.store.remove(ctx, s.key(key))
	}
	return s.failed("Delete", key, err)
}

// DeletePrefix removes all keys that begin with the prefix, one after another: all for
// "". One that is made meanwhile may stay.
func (s *KV) DeletePrefix(ctx context.Context, prefix string) error {
	keys, err := s.Keys(ctx, prefix)
	for _, key := range keys {
		if err = s.Delete(ctx, key); err != nil {
			break
		}
	}
	return err
}

// Keys returns the keys that begin with the prefix, sorted.
func (s *KV) Keys(ctx context.Context, prefix string) (keys []string, err error) {
	group := "kv." + token(s.name) + "."
	err = s.store.call(ctx, func(ctx context.Context, _ jetstream.Stream) error {
		keys = nil
		kv, err := s.store.conn.js.KeyValue(ctx, s.store.name())
		if err != nil {
			return err
		}
		list, err := kv.ListKeysFiltered(ctx, group+"*")
		if err != nil {
			return err
		}
		for key := range list.Keys() {
			if key, ok := untoken(strings.TrimPrefix(key, group)); ok && strings.HasPrefix(key, prefix) {
				keys = append(keys, key)
			}
		}
		return ctx.Err() // then the list is not whole
	})
	if err != nil {
		return nil, s.failed("Keys", prefix, err)
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}
