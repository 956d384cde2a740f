package coord

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-cluster/cluster/internal/broker"
	"github.com/go-cluster/cluster/internal/coordinate"
)

// KeepTTL is a ttl that leaves the end of an entry as it is.
const KeepTTL time.Duration = coordinate.KeepTTL

// Store is a map of keys to values in the master, which all processes share. Operations on
// one key are atomic, and each sees the effects of those before it.
//
// All stores together have Options.MaxStore bytes (64 MiB). An entry costs 128 bytes more
// than its key and its value. When they are full, the entries that were used least recently
// are dropped: a Store is a cache. One worker can use up all of it. A key has at most 1 KiB
// and a value at most 1 MiB; a longer one is [ErrTooLarge]. At most 4,096 stores have keys.
//
// A ttl is how long an entry lives. With 0 it has no end. [KeepTTL] leaves the end of the
// entry as it is, and gives a new entry no end. A negative ttl is an error.
type Store struct{ s *broker.Store }

// Open returns the store with that name. It does not ask the master.
func Open(name string) *Store { return &Store{here.Open(name)} }

// Get returns the value of the key. ok is false if the key has none. The caller may change
// val.
func (s *Store) Get(ctx context.Context, key string) (val []byte, ok bool, err error) {
	return s.s.Get(ctx, key)
}

// Set stores val under the key.
func (s *Store) Set(ctx context.Context, key string, val []byte, ttl time.Duration) error {
	return s.s.Set(ctx, key, val, ttl)
}

// Add stores val if the key has no value, and reports whether it did.
func (s *Store) Add(ctx context.Context, key string, val []byte, ttl time.Duration) (added bool, err error) {
	return s.s.Add(ctx, key, val, ttl)
}

// CompareAndSwap stores val if the key has the value old, and reports whether it did. nil is
// the same as an empty value. If the key is not there, nothing is stored.
func (s *Store) CompareAndSwap(ctx context.Context, key string, old, val []byte, ttl time.Duration) (swapped bool, err error) {
	return s.s.CompareAndSwap(ctx, key, old, val, ttl)
}

// Incr adds n to the value, which is decimal text, and returns the sum. If the key is not
// there, Incr makes it, from 0 and with the ttl. Otherwise ttl is ignored. If the value is
// not a number, or the sum not an int64, Incr returns an error and changes nothing.
func (s *Store) Incr(ctx context.Context, key string, n int64, ttl time.Duration) (int64, error) {
	return s.s.Incr(ctx, key, n, ttl)
}

// Delete removes the key. It is no error if the key is not there.
func (s *Store) Delete(ctx context.Context, key string) error { return s.s.Delete(ctx, key) }

// DeletePrefix removes all keys that begin with the prefix, and with "" all keys of the
// store.
func (s *Store) DeletePrefix(ctx context.Context, prefix string) error {
	return s.s.DeletePrefix(ctx, prefix)
}

// Keys returns the keys that begin with the prefix, sorted. The error is [ErrTooLarge] if
// they do not fit into Options.MaxMessage.
func (s *Store) Keys(ctx context.Context, prefix string) ([]string, error) {
	return s.s.Keys(ctx, prefix)
}

// Get returns the value of the key, decoded from JSON. ok is false if the key has none.
func Get[T any](ctx context.Context, s *Store, key string) (v T, ok bool, err error) {
	val, ok, err := s.Get(ctx, key)
	if err != nil || !ok {
		return v, false, err
	}
	if err := json.Unmarshal(val, &v); err != nil {
		var none T
		return none, false, fmt.Errorf("coord: the value of %.64q: %w", key, err)
	}
	return v, true, nil
}

// Set stores v under the key, encoded as JSON.
func Set[T any](ctx context.Context, s *Store, key string, v T, ttl time.Duration) error {
	val, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("coord: the value of %.64q: %w", key, err)
	}
	return s.Set(ctx, key, val, ttl)
}
