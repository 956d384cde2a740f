// Package coordinate is the state behind package coord, as data: who leads what,
// who holds a lock and who waits for it, what has been done once, who listens to
// which topic, the store, and the limiters. There is one in a cluster, the master's.
//
// It is pure, as supervise is: an operation comes in with the time and the member
// that asks, and what members are to be told goes out as [Note]s. There is no
// goroutine, timer, channel or clock here; [State.Next] says when [State.Advance]
// is to be called. Package broker owns a State, and gives it its turns.
//
// A member is a process: 0 is the master itself, the others are workers by their
// id. Each names what it asks for by a ticket of its own choice, a [Ref] with the
// member. What one member can make the State keep is bounded ([Most]).
//
// What must never be two at once (leading a name, holding a lock, running a once)
// ends in two ways only: the member says so, or [State.Dead] does, which stands for
// the end of the process. The end of a channel ([State.Lost]) frees nothing.
//
// The whole state is written as JSON, and [Restore] reads it. There are no locks;
// a State belongs to one goroutine at a time. It is tested by random operations
// against models that are simple.
package coordinate
