//go:build unix

package linear

import (
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/go-cluster/cluster/coord"
	"github.com/stretchr/testify/require"
)

// never is a time after all others.
const never = math.MaxInt64

// operation is one on a Store, with the times of its call and its return in
// nanoseconds. One that never returned has Return never and no Result.
type operation struct {
	Verb, Key    string
	Old, Val     string
	N            int64
	TTL          time.Duration
	Call, Return int64
	Result       result
}

type result struct {
	OK  bool // there was one, it was added, it was swapped
	Val string
	N   int64
}

// entry is what a key has. It ends at some time from early to late: when exactly, the
// master alone knows.
type entry struct {
	ok          bool
	val         string
	early, late int64
}

// model is a Store with one key.
var model = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{entry{}} },
	Step: func(state, input, _ any) (next []any) {
		e, o := state.(entry), input.(operation)
		if e.ok && o.Call <= e.late {
			next = o.apply(next, e)
		}
		if !e.ok || o.Return >= e.early {
			next = o.apply(next, entry{})
		}
		return next
	},
}).ToModel()

// apply adds to next what the operation makes of an entry, if its result is one that it
// could have had.
func (o operation) apply(next []any, e entry) []any {
	r, then := result{}, e
	switch o.Verb {
	case "get":
		r = result{OK: e.ok, Val: e.val}
	case "set":
		then = o.stored(e, o.Val)
	case "add":
		if r.OK = !e.ok; r.OK {
			then = o.stored(e, o.Val)
		}
	case "cas":
		if r.OK = e.ok && e.val == o.Old; r.OK {
			then = o.stored(e, o.Val)
		}
	case "incr":
		old, _ := strconv.ParseInt(e.val, 10, 64) // 0 for none
		r.N = old + o.N
		if e.ok {
			o.TTL = coord.KeepTTL
		}
		then = o.stored(e, strconv.FormatInt(r.N, 10))
	case "delete":
		then = entry{}
	default:
		panic(o.Verb)
	}
	if o.Return != never && r != o.Result {
		return next
	}
	return append(next, then)
}

// stored is the entry that takes the place of e.
func (o operation) stored(e entry, val string) entry {
	then := entry{ok: true, val: val, early: never, late: never}
	switch {
	case o.TTL == coord.KeepTTL && e.ok:
		then.early, then.late = e.early, e.late
	case o.TTL > 0:
		then.early = o.Call + int64(o.TTL)
		if o.Return != never {
			then.late = o.Return + int64(o.TTL)
		}
	}
	return then
}

// check tells whether the operations on one key are linear.
func check(history []operation, patience time.Duration) porcupine.CheckResult {
	all := make([]porcupine.Operation, len(history))
	for i, o := range history {
		all[i] = porcupine.Operation{Input: o, Call: o.Call, Return: o.Return}
	}
	return porcupine.CheckOperationsTimeout(model, all, patience)
}

// at is an operation with the times of its call and its return.
func at(call, ret int64, o operation) operation {
	o.Call, o.Return = call, ret
	return o
}

// TestModel: the checker tells right histories from wrong ones.
func TestModel(t *testing.T) {
	get := func(val string) operation { return operation{Verb: "get", Result: result{OK: true, Val: val}} }
	none := operation{Verb: "get"}
	set := func(val string, ttl time.Duration) operation { return operation{Verb: "set", Val: val, TTL: ttl} }
	incr := func(n int64) operation { return operation{Verb: "incr", N: 1, Result: result{N: n}} }
	add := func(ok bool) operation { return operation{Verb: "add", Val: "1", Result: result{OK: ok}} }
	cas := func(ok bool) operation { return operation{Verb: "cas", Old: "1", Val: "2", Result: result{OK: ok}} }
	remove := operation{Verb: "delete"}
	for name, c := range map[string]struct {
		right   bool
		history []operation
	}{
		"read what was written":         {true, []operation{at(1, 2, set("1", 0)), at(3, 4, get("1"))}},
		"read what was there before":    {false, []operation{at(1, 2, set("1", 0)), at(3, 4, set("2", 0)), at(5, 6, get("1"))}},
		"read beside a write":           {true, []operation{at(1, 2, set("1", 0)), at(3, 6, set("2", 0)), at(4, 5, get("1")), at(4, 5, get("2"))}},
		"and back":                      {false, []operation{at(1, 2, set("1", 0)), at(3, 9, set("2", 0)), at(4, 5, get("2")), at(6, 7, get("1"))}},
		"read nothing":                  {false, []operation{at(1, 2, set("1", 0)), at(3, 4, none)}},
		"read what was deleted":         {false, []operation{at(1, 2, set("1", 0)), at(3, 4, remove), at(5, 6, get("1"))}},
		"counted":                       {true, []operation{at(1, 5, incr(2)), at(1, 5, incr(1)), at(1, 5, incr(3))}},
		"counted once for two":          {false, []operation{at(1, 5, incr(1)), at(1, 5, incr(1))}},
		"one added":                     {true, []operation{at(1, 5, add(true)), at(1, 5, add(false))}},
		"two added":                     {false, []operation{at(1, 5, add(true)), at(1, 5, add(true))}},
		"one swapped":                   {true, []operation{at(1, 2, set("1", 0)), at(3, 5, cas(true)), at(3, 5, cas(false))}},
		"two swapped":                   {false, []operation{at(1, 2, set("1", 0)), at(3, 5, cas(true)), at(3, 5, cas(true))}},
		"swapped what was not there":    {false, []operation{at(1, 2, cas(true))}},
		"ended":                         {true, []operation{at(1, 2, set("1", 10)), at(10, 10, get("1")), at(13, 14, none)}},
		"ended too early":               {false, []operation{at(1, 2, set("1", 10)), at(9, 10, none)}},
		"ended too late":                {false, []operation{at(1, 2, set("1", 10)), at(13, 14, get("1"))}},
		"came back":                     {false, []operation{at(1, 9, set("1", 10)), at(12, 13, none), at(14, 15, get("1"))}},
		"kept its end":                  {true, []operation{at(1, 2, set("1", 10)), at(3, 4, set("2", coord.KeepTTL)), at(13, 14, none)}},
		"did not keep its end":          {false, []operation{at(1, 2, set("1", 10)), at(3, 4, set("2", coord.KeepTTL)), at(13, 14, get("2"))}},
		"has no end any more":           {true, []operation{at(1, 2, set("1", 10)), at(3, 4, set("2", 0)), at(13, 14, get("2"))}},
		"died and did it later":         {true, []operation{at(1, never, set("1", 0)), at(3, 4, none), at(5, 6, get("1"))}},
		"died and never did it":         {true, []operation{at(1, never, set("1", 0)), at(3, 4, none), at(5, 6, none)}},
		"died, did it and took it":      {false, []operation{at(1, never, set("1", 0)), at(3, 4, get("1")), at(5, 6, none)}},
		"died and did it before it was": {false, []operation{at(3, never, set("1", 0)), at(1, 2, get("1"))}},
	} {
		want := porcupine.Illegal
		if c.right {
			want = porcupine.Ok
		}
		require.Equal(t, want, check(c.history, 0), name)
	}
}

// doctored is a history in which one read has another result.
func doctored(history []operation) (_ []operation, ok bool) {
	i := slices.IndexFunc(history, func(o operation) bool { return o.Verb == "get" && o.Return != never && o.Result.OK })
	if i < 0 {
		return nil, false
	}
	history = slices.Clone(history)
	history[i].Result.Val = "nobody wrote this"
	return history, true
}
