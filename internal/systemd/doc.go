// Package systemd is what a service manager gives a program, and is told by it:
// the sockets of sd_listen_fds(3) and the datagrams of sd_notify(3). It needs no
// systemd: the variables NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID, LISTEN_PID,
// LISTEN_FDS and LISTEN_FDNAMES are the protocol. Windows has none of it; there a Notifier says
// nothing and Sockets finds none.
//
// What is said and when is the caller's business: [Notifier.Notify] sends a text.
// The functions [Ready], [Reloading] and the constants are the texts that there
// are.
//
// A Notifier has one owner, which calls Begin, Notify and End in turn. It sends on
// the goroutine of a mailbox of its own, since a socket can be full: datagrams
// keep their order, and nobody waits for them but Flush. It has no locks.
//
// The other way round, an [Inbox] is where a program that this one has started tells how
// it is (Linux). Its owner runs Serve on a goroutine, which ends with Close, and
// judges who has sent what.
//
// The descriptors of Sockets belong to whoever asked first, and stay open until its
// [CloseSocket]. Those of [Notifier.Store] are the caller's, which the manager gets
// duplicates of (its file descriptor store): the next process of the service finds them
// among its Sockets.
//
// The tests here speak with a socket of their own; those of package cluster tell
// what a manager hears in the life of a cluster.
package systemd
