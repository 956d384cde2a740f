package coord

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-cluster/cluster/internal/broker"
	"github.com/go-cluster/cluster/internal/coordinate"
)

// KeepTTL, as a ttl, leaves the end of an entry as it is.
const KeepTTL time.Duration = coordinate.KeepTTL

// Store is a map of keys to values in the master, which all processes share.
// Operations on one key are atomic, and each sees what those before it did.
//
// All stores together have Options.MaxStore bytes (64 MiB); an entry costs 128 bytes
// more than its key and its value. When that is full, what was used least recently
// goes: it is a cache. One worker can use up all of it. A key has at most 1 KiB, a
// value at most 1 MiB: [ErrTooLarge]. At most 4,096 stores have keys.
//
// A ttl is how long an entry lives: 0 is without an end, [KeepTTL] leaves it as it
// is (and is without an end where there was no entry), and a negative one is an
// error.
type Store struct{ s *broker.Store }

// Open returns the store with that name. It asks nobody.
func Open(name string) *Store { return &Store{here.Open(name)} }

// Get returns the value of the key, if there is one. It is the caller's.
func (s *Store) Get(ctx context.Context, key string) (val []byte, ok bool, err error) {
	return s.s.Get(ctx, key)
}

// Set stores a value.
func (s *Store) Set(ctx context.Context, key string, val []byte, ttl time.Duration) error {
	return s.s.Set(ctx, key, val, ttl)
}

// Add stores a value if the key has none, and reports whether it did.
func (s *Store) Add(ctx context.Context, key string, val []byte, ttl time.Duration) (added bool, err error) {
	return s.s.Add(ctx, key, val, ttl)
}

// CompareAndSwap stores val if the key has the value old, and reports whether it
// did. nil is an empty value; a key that is not there is never made.
func (s *Store) CompareAndSwap(ctx context.Context, key string, old, val []byte, ttl time.Duration) (swapped bool, err error) {
	return s.s.CompareAndSwap(ctx, key, old, val, ttl)
}

// Incr adds n to the value, which is decimal text, and returns the sum. A key that
// is not there counts as 0; only then does ttl count. A value that is no number, and
// a sum that is no int64, is an error that changes nothing.
func (s *Store) Incr(ctx context.Context, key string, n int64, ttl time.Duration) (int64, error) {
	return s.s.Incr(ctx, key, n, ttl)
}

// Delete removes a key. That there is none is no error.
func (s *Store) Delete(ctx context.Context, key string) error { return s.s.Delete(ctx, key) }

// DeletePrefix removes all keys that begin with the prefix: all of the store for "".
func (s *Store) DeletePrefix(ctx context.Context, prefix string) error {
	return s.s.DeletePrefix(ctx, prefix)
}

// Keys returns the keys that begin with the prefix, sorted. More than fit into
// Options.MaxMessage are [ErrTooLarge].
func (s *Store) Keys(ctx context.Context, prefix string) ([]string, error) {
	return s.s.Keys(ctx, prefix)
}

// Get returns the value of the key, decoded from JSON.
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

// Set stores v, encoded as JSON.
func Set[T any](ctx context.Context, s *Store, key string, v T, ttl time.Duration) error {
	val, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("coord: the value of %.64q: %w", key, err)
	}
	return s.Set(ctx, key, val, ttl)
}
