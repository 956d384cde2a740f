package coordinate

import (
	"container/heap"
	"container/list"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-cluster/cluster/internal/errs"
)

const (
	// MaxKey and MaxValue bound a key, a name, and a value, in bytes.
	MaxKey   = 1 << 10
	MaxValue = 1 << 20
	// EntryCost is what an entry costs beside its key and its value, in bytes.
	EntryCost = 128
	// KeepTTL leaves the end of an entry as it is.
	KeepTTL = time.Duration(math.MinInt64)
)

// Store has the values that are kept for all, each under a name and a key. When it is full,
// the entries that were used least recently are dropped.
type Store struct {
	names  map[string]*shelf
	recent list.List      // of *entry, the one used last first
	ends   byTime[*entry] // the entries that end, the next one first
	bytes  int
	max    int // bytes
}

// shelf has the entries under one name. They share the string of the name, since each
// question comes with a string of its own.
type shelf struct {
	name string
	keys map[string]*list.Element
}

type entry struct {
	Name, Key string
	Value     []byte    // never changed
	End       time.Time // zero: it does not end
	at        int       // its place in ends; -1 if it is not there
}

func (e *entry) cost() int { return len(e.Key) + len(e.Value) + EntryCost }

func (s *Store) init() {
	s.names = make(map[string]*shelf)
	s.recent.Init()
}

// Get returns the value, which must not be changed.
func (s *Store) Get(now time.Time, name, key string) (value []byte, ok bool) {
	e := s.find(now, name, key)
	if e == nil {
		return nil, false
	}
	return e.Value, true
}

// Set stores the value, which the store keeps.
func (s *Store) Set(now time.Time, name, key string, value []byte, ttl time.Duration) error {
	return s.put(now, name, key, value, ttl)
}

// Add is Set for a key that is not there.
func (s *Store) Add(now time.Time, name, key string, value []byte, ttl time.Duration) (added bool, err error) {
	if s.find(now, name, key) != nil {
		return false, nil
	}
	err = s.put(now, name, key, value, ttl)
	return err == nil, err
}

// CompareAndSwap is Set for a key that has the value old.
func (s *Store) CompareAndSwap(now time.Time, name, key string, old, value []byte, ttl time.Duration) (swapped bool, err error) {
	e := s.find(now, name, key)
	if e == nil || string(e.Value) != string(old) {
		return false, nil
	}
	err = s.put(now, name, key, value, ttl)
	return err == nil, err
}

// Incr adds n to the value, a decimal number. If the key is not there, Incr makes it with the
// ttl; otherwise ttl is ignored.
func (s *Store) Incr(now time.Time, name, key string, n int64, ttl time.Duration) (int64, error) {
	var old int64
	if e := s.find(now, name, key); e != nil {
		var err error
		if old, err = strconv.ParseInt(string(e.Value), 10, 64); err != nil {
			return 0, fmt.Errorf("%w: it is %.32q", ErrNoNumber, e.Value)
		}
		ttl = KeepTTL
	}
	sum := old + n
	if (sum > old) != (n > 0) && n != 0 {
		return 0, fmt.Errorf("%w: %d and %d", ErrOverflow, old, n)
	}
	return sum, s.put(now, name, key, strconv.AppendInt(nil, sum, 10), ttl)
}

// Delete removes a key, if it is there.
func (s *Store) Delete(name, key string) {
	if el := s.at(name, key); el != nil {
		s.remove(el)
	}
}

// DeletePrefix removes all keys that begin with the prefix.
func (s *Store) DeletePrefix(name, prefix string) {
	for key, el := range s.keys(name) {
		if strings.HasPrefix(key, prefix) {
			s.remove(el)
		}
	}
}

// Keys returns the keys that begin with the prefix, in order.
func (s *Store) Keys(now time.Time, name, prefix string) []string {
	s.expire(now)
	keys := []string{}
	for key := range s.keys(name) {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// keys returns the keys under a name.
func (s *Store) keys(name string) map[string]*list.Element {
	if h := s.names[name]; h != nil {
		return h.keys
	}
	return nil
}

// at returns the entry of a key, or nil.
func (s *Store) at(name, key string) *list.Element { return s.keys(name)[key] }

// find returns the entry unless it has ended, and notes that it is used.
func (s *Store) find(now time.Time, name, key string) *entry {
	el := s.at(name, key)
	if el == nil {
		return nil
	}
	e := el.Value.(*entry)
	if e.ended(now) {
		s.remove(el)
		return nil
	}
	s.recent.MoveToFront(el)
	return e
}

func (e *entry) ended(now time.Time) bool { return !e.End.IsZero() && !e.End.After(now) }

// maxNames bounds how many names may have entries.
const maxNames = Most

func (s *Store) put(now time.Time, name, key string, value []byte, ttl time.Duration) error {
	e := &entry{Name: name, Key: key, Value: value, at: -1}
	if e.cost() > s.max {
		return fmt.Errorf("%w: the store has room for %d bytes", errs.TooLarge, s.max)
	}
	s.expire(now) // may remove the key's old entry
	old := s.at(name, key)
	switch {
	case s.names[name] == nil && len(s.names) >= maxNames:
		return tooMany("%d stores have keys", maxNames)
	case old != nil && ttl == KeepTTL:
		e.End = old.Value.(*entry).End
	}
	if ttl > 0 {
		e.End = now.Add(ttl)
	}
	if old != nil {
		s.remove(old)
	}
	s.insert(e)
	for s.bytes > s.max {
		s.remove(s.recent.Back())
	}
	return nil
}

// insert puts a new entry first.
func (s *Store) insert(e *entry) {
	h := s.names[e.Name]
	if h == nil {
		h = &shelf{e.Name, make(map[string]*list.Element)}
		s.names[e.Name] = h
	}
	e.Name = h.name
	h.keys[e.Key] = s.recent.PushFront(e)
	s.bytes += e.cost()
	e.at = -1
	if !e.End.IsZero() {
		heap.Push(&s.ends, e)
	}
}

func (s *Store) remove(el *list.Element) {
	e := s.recent.Remove(el).(*entry)
	keys := s.keys(e.Name)
	delete(keys, e.Key)
	if len(keys) == 0 {
		delete(s.names, e.Name)
	}
	s.bytes -= e.cost()
	if e.at >= 0 {
		heap.Remove(&s.ends, e.at)
	}
}

// expire removes the entries that have ended.
func (s *Store) expire(now time.Time) {
	for len(s.ends) > 0 && s.ends[0].ended(now) {
		s.remove(s.at(s.ends[0].Name, s.ends[0].Key))
	}
}

// MarshalJSON encodes the entries, the one used last first.
func (s *Store) MarshalJSON() ([]byte, error) {
	all := make([]*entry, 0, s.recent.Len())
	for el := s.recent.Front(); el != nil; el = el.Next() {
		all = append(all, el.Value.(*entry))
	}
	return json.Marshal(all)
}

// UnmarshalJSON decodes the entries.
func (s *Store) UnmarshalJSON(b []byte) error {
	var all []*entry
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	*s = Store{max: s.max}
	s.init()
	for _, e := range slices.Backward(all) {
		s.insert(e)
	}
	return nil
}

func (e *entry) due() time.Time { return e.End }
func (e *entry) place() *int    { return &e.at }
