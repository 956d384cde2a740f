// Package coordinate is the state behind package coord, as data: who leads what,
// who holds a lock and who waits for it, what has been done once, who listens to
// which topic, the store, and the limiters. There is one in a cluster, the master's.
//
// It is pure, as supervise is. An operation comes in with the time and the member that asks,
// and what members are to be told goes out as [Note]s. There is no goroutine, timer, channel
// or clock here; [State.Next] says when [State.Advance] is to be called. Package broker owns
// a State, and calls it.
//
// A member is a process: 0 is the master itself, the others are workers by their id. A
// member gives each thing that it asks for a number of its own choice, a ticket. Member and
// ticket together are a [Ref]. What one member can make the State keep is bounded ([Most]).
//
// Some things must never be in two members at once: leading a name, holding a lock, running
// a once. They end in two ways only. The member says so, or [State.Dead] says that its
// process has ended. The end of a channel ([State.Lost]) frees nothing.
//
// The whole state can be written as JSON, and [Restore] reads it. There are no locks: a State
// belongs to one goroutine at a time. It is tested by random operations against simple models.
package coordinate
