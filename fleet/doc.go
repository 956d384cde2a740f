// Package fleet puts the verbs of package coord on more than one machine. A fleet is
// many clusters (units, pods, machines), each a member, and its engine is NATS:
// core NATS for messages, JetStream's key-value store for what must be one in all.
//
//	f, err := fleet.Join(fleet.Options{URL: "nats://nats:4222"})   // in every process
//	f.Publish("prices", p)                                         // to all processes of all members
//	err = f.Request(ctx, "", "price", q, &a)                       // of any member
//	f.Lead("report", func(ctx context.Context) error { … })        // in one process at a time
//	held, unlock, err := f.Lock(ctx, "invoice 7")                  // one at a time
//	n, err := f.KV("hits").Incr(ctx, "/", 1, 0)                    // counted together
//
// What is one on one machine (package coord) is exact and free of clocks. What is
// one in the fleet is a lease, and holds as far as clocks run at like speed and the
// function minds its context. docs/fleet.md has the picture, the subjects and the
// permissions that they need.
//
// # Inside
//
// Each process has one connection, which it owns and closes: in a worker at the end
// of the drain, in a master at the end of Run. The master's half are heartbeats, the
// orders that it takes, and the embedded server if there is no URL. Workers learn
// that server's address from their master, over topics of package coord.
//
// A lease is a key with a revision (lease.go). Its holder renews it by revision; who
// waits for it takes it by revision, when he has seen the same one for the term. Package
// coord has chosen one process of the member before: so what it says of the own
// member's dead holds for the lease too (claim.Home).
//
// A Fleet holds its parts, which know what they need of each other:
//
//	self        who this process is, in which fleet; it does not change
//	embedded    the server, where there is no URL
//	connection  to NATS, with denials: what the server has refused
//	topics      what is published and heard
//	responders  what is answered, and ends first in a drain
//	roster      the members, and heartbeats
//	orders      given to members, and taken
//	bucket      the store, with the KVs and epochs in it
//	leases      how one is had, kept and given back; leads: what is done under it
//
// Goroutines: one for heartbeats and the members' ends (roster.run), two for each lease
// (lease.renew, lease.watch), one that keeps the epoch young (epochs.keep), one for each
// handler that runs, one for callbacks while there are any (package mailbox), and those
// of nats.go.
//
// Locks: roster.mu, responders.mu, denials.mu, topics.mu, lease.mu, leads.mu, epochs.mu,
// bucket.mu; none is taken while another of these is held, and none is held while a
// function of the application runs or the server is asked.
//
// Tests join several members in one process, through a proxy that can be cut, against
// a server of their own, with short leases; what processes do is tested with processes.
package fleet
