// Package systemd is about what a service manager gives a program and hears from it: the
// sockets of sd_listen_fds(3) and the datagrams of sd_notify(3). It needs no systemd. The
// variables NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID, LISTEN_PID, LISTEN_FDS and
// LISTEN_FDNAMES are the protocol. Windows has none of this: there a Notifier says nothing
// and Sockets finds none.
//
// The caller decides what is said and when: [Notifier.Notify] sends a text. The functions
// [Ready] and [Reloading] and the constants are the texts.
//
// A Notifier has one owner, which calls its methods one after another. It sends on the
// goroutine of a mailbox of its own, since the manager's socket can be full. So datagrams
// keep their order, and nobody waits for them but Flush. It has no lock.
//
// An [Inbox] is the other direction (Linux): programs that this one has started say there
// how they are. Its owner runs Serve on a goroutine, and Close ends it. Who may say what is
// for the owner to judge.
//
// The caller of Sockets owns the descriptors, and closes one with [CloseSocket]. The
// descriptors given to [Notifier.Store] stay the caller's. The manager keeps duplicates (its
// file descriptor store), and the next process of the service finds them among its Sockets.
//
// The tests here listen on a socket of their own. Those of package cluster show what a
// manager hears in the life of a cluster.
package systemd
