// Package drain knows what a worker has in flight, and the order in which it
// ends.
//
// A drain is how a worker leaves without losing anything:
//
//  1. It begins: Draining and Context say so, Hooks.Announce tells the master, and
//     the functions of an http.Server's RegisterOnShutdown are called.
//  2. Nothing new is taken: Accept and a packet socket's reads wait from now on.
//     An error would make most programs exit, and cut off what is in flight. Those
//     of AtOnce are called.
//  3. What is in flight ends: connections (finish.go), then requests of the
//     channel (Hooks.Work).
//  4. The functions of OnShutdown run, the files of sockets that are this
//     worker's alone are removed.
//  5. The channel is flushed and closed; Closed says so. Callbacks that are under
//     way get a moment.
//  6. Serve returns nil. If something was in Serve, main has two seconds.
//  7. Hooks.Exit ends the process.
//
// Nothing that the application does may keep the process from ending. So each
// step is bounded by a clock (clock.go), and when that has run out the process
// exits whatever is left to do. Behind it stands the master's SIGKILL.
//
// # Parts
//
// A Tracker owns what is in flight: the listeners and packet sockets that it
// wraps, the connections that they have accepted, and the files to remove. A
// Drain has a Tracker, the servers of Serve, and the hooks to the world outside.
// One goroutine, started by the first Begin, runs the steps; each server's
// Shutdown has one of its own.
//
// # Locks
//
// Tracker.mu guards the sets of what is in flight, conn.mu a connection's read
// deadline, Listener.mu that of an Accept, calls.mu which calls of a socket are under way,
// clock.mu the timers, servers.mu the Serve calls, atOnce.mu and ShutdownHooks.mu their
// functions. None is taken while another one is held, but for Listener.mu in Tracker.mu
// and calls.mu in Listener.mu. None is held during a hook, a callback of the application
// or a call of a listening source. conn.mu and Listener.mu are held while the deadline of
// the connection or source below is set, and Tracker.mu while the numbers of connections
// are published, which is a write to memory.
//
// # Tests
//
// The steps and their times are tested in a synctest bubble, with fake servers
// and connections; the clauses that end step 3 with a table; tracked connections
// on real sockets, with races of a request against the end of its connection. The
// root's tests serve real HTTP in real processes that are being stopped.
package drain
