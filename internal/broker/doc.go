// Package broker is package coord at work. A [Broker] owns the state (package
// coordinate) in the master; a [Client] is what one process has of it: its
// candidacies, its waits, its subscribers, what it remembers of limiters. The Client
// of the master, or of a process that has not forked, speaks to the Broker directly,
// that of a worker over the channel. Neither knows a link: the root connects them
// ([Peer], [Line]).
//
// What is said over the channel is in message.go: questions, some of which are
// answered, and notes. Whoever reads the channel handles them. None of that waits.
//
// Goroutines: one for each function of the application that leads, and one for each
// subscriber that has something to hear. A Broker has one timer.
//
// Locks: Broker.mu comes first, but for Broker.holding, which is about who waits for it.
// It is held while peers are told something, so that all see one order, and that calls
// the Client of the master, which takes Client.mu.
// So a Client speaks to its Broker with no lock held, except Client.subscribing,
// which comes before all. The locks of a subscriber and of a limiter's key are taken
// alone or under those. Functions of the application run under no lock.
//
// The tests connect Clients to a Broker without a channel, and let a worker say
// anything (FuzzQuestions); package coord's have real processes.
package broker
