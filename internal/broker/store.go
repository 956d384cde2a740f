package broker

import (
	"context"
	"fmt"
	"time"
)

// Store is the store with one name.
type Store struct {
	c    *Client
	name string
}

// Open returns the store with that name.
func (c *Client) Open(name string) *Store { return &Store{c, name} }

func (s *Store) ask(ctx context.Context, call string, q Question) (Answer, error) {
	q.Name = s.name
	a, err := s.c.ask(ctx, &q)
	if err != nil {
		err = fmt.Errorf("coord: Store(%.64q).%s(%.64q): %w", s.name, call, q.Key, err)
	}
	return a, err
}

// The methods are those of package coord.

func (s *Store) Get(ctx context.Context, key string) (val []byte, ok bool, err error) {
	a, err := s.ask(ctx, "Get", Question{Verb: verbGet, Key: key})
	if a.OK && a.Value == nil {
		a.Value = []byte{}
	}
	return a.Value, a.OK, err
}

func (s *Store) Set(ctx context.Context, key string, val []byte, ttl time.Duration) error {
	_, err := s.ask(ctx, "Set", Question{Verb: verbSet, Key: key, Value: val, TTL: int64(ttl)})
	return err
}

func (s *Store) Add(ctx context.Context, key string, val []byte, ttl time.Duration) (added bool, err error) {
	a, err := s.ask(ctx, "Add", Question{Verb: verbAdd, Key: key, Value: val, TTL: int64(ttl)})
	return a.OK, err
}

func (s *Store) CompareAndSwap(ctx context.Context, key string, old, val []byte, ttl time.Duration) (swapped bool, err error) {
	a, err := s.ask(ctx, "CompareAndSwap", Question{Verb: verbSwap, Key: key, Old: old, Value: val, TTL: int64(ttl)})
	return a.OK, err
}

func (s *Store) Incr(ctx context.Context, key string, n int64, ttl time.Duration) (int64, error) {
	a, err := s.ask(ctx, "Incr", Question{Verb: verbIncr, Key: key, N: n, TTL: int64(ttl)})
	return a.N, err
}

func (s *Store) Delete(ctx context.Context, key string) error {
	_, err := s.ask(ctx, "Delete", Question{Verb: verbDelete, Key: key})
	return err
}

func (s *Store) DeletePrefix(ctx context.Context, prefix string) error {
	_, err := s.ask(ctx, "DeletePrefix", Question{Verb: verbClear, Key: prefix})
	return err
}

func (s *Store) Keys(ctx context.Context, prefix string) ([]string, error) {
	a, err := s.ask(ctx, "Keys", Question{Verb: verbKeys, Key: prefix})
	return a.Keys, err
}
