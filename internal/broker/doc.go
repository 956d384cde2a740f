// Package broker implements package coord. A [Broker] owns the state (package coordinate) in
// the master. A [Client] is the part of one process: its candidacies, its waits, its
// subscribers, and what it remembers of limiters. The Client of a worker speaks to the Broker
// over the channel. The Client of the master, or of a process that has not forked, calls the
// Broker directly. Neither knows a link: the root connects them ([Peer], [Line]).
//
// message.go has what is said over the channel: questions, some of which are answered, and
// notes. The reader of the channel handles them, and does not wait.
//
// Goroutines: one for each function of the application that leads, and one for each
// subscriber that has something to hear. A Broker has one timer.
//
// Locks: Broker.mu comes first; only Broker.holding comes before it. Broker.mu is held while
// peers are told something, so that all of them see the same order. That may call the Client
// of the master, which takes Client.mu. So a Client calls its Broker with no lock held, except
// Client.subscribing, which comes before all. The locks of a subscriber and of a limiter's key
// are taken alone or under those. Functions of the application run under no lock.
//
// The tests connect Clients to a Broker without a channel, and let a worker say
// anything (FuzzQuestions). Those of package coord have real processes.
package broker
