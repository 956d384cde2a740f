// Package cluster is Node's cluster module for Go: one program runs as a master
// and N workers, which share server ports and talk over JSON messages.
//
// In the shortest program master and workers run the same three calls:
//
//	cluster.AutoFork()          // 1: does nothing in a worker
//	http.HandleFunc("/", hello) // 2
//	if err := cluster.ListenAndServe(":8000", nil); err != nil { // 3: in the master Run
//		log.Fatal(err)
//	}
//
// A Go program uses all cores by itself. What processes add is isolation: a
// crash, an out-of-memory kill or a leak takes one worker and not the service,
// each worker has a heap and a garbage collector of its own, and workers can be
// replaced one by one behind a port that stays open. Where none of that is
// wanted, run one process.
//
// # Roles
//
// The master forks the workers, holds the listening sockets, supervises, and
// serves no requests itself. A worker is a child process with a channel to the
// master; by default it runs the master's own binary with the same arguments.
// [IsMaster] and [IsWorker] tell the role, which comes from the environment, and
// [Worker] is the process itself in a worker.
//
// main runs in every process. [SetupMaster] and [AutoFork] do nothing in a
// worker, and [Serve] and [ListenAndServe] do not serve in a master that has
// forked: there they are [Run], which handles signals and returns when the
// cluster has stopped. A program that never forks is an ordinary one: Listen,
// Serve and ListenAndServe are plain then.
//
// A worker becomes Online when its runtime is up, and Ready at its first Accept or
// ReadFrom or, under Options.ManualReady, when it calls [Process.Ready]. So what is
// loaded before, and may fail, is part of the start. A node worker is ready when it
// listens. Workers have an id (1, 2, …, never reused) and, under
// AutoFork, a slot (0 to N-1) that their successors fill again.
//
// # Messages
//
// [Process.Send] sends any JSON value to the other side, where [OnMessage],
// [Process.OnMessage] or [Handle] take it; [Process.Request] waits for the answer
// of an [OnRequest] or [Respond] handler. [Process.SendHandle] sends a connection,
// a listener, a datagram socket or a file along. Callbacks about one worker run one
// after another; request handlers run concurrently.
//
// The wire is that of node's cluster module, so a node script can be a worker
// and a Go program can be the worker of a node primary. A node peer gives no
// receipts and answers no requests.
//
// # Supervision
//
// AutoFork replaces a worker that dies: the first time at once, and after further
// deaths in a row later and later (Options.Backoff). [Run] gives up with [ErrBootLoop]
// if no worker ever gets ready. [Reload] replaces all workers, one by one, by workers
// of the program and the options as they are now, and [Scale] changes their number.
// Options.Watchdog finds workers that hang, Options.Recycle replaces those that
// have served or grown enough, and [Stats] returns the state of all.
//
// # Guarantees
//
//  1. Order. Everything about one worker is reported in the order in which it
//     happened, on one goroutine: fork, online, listening, messages, disconnect,
//     death. There is exactly one fork and one death each. Callbacks about
//     different workers may run at once.
//  2. Reentrancy. A callback may call anything. Blocking calls wait for
//     processes, never for callbacks.
//  3. No early message is lost. A message that arrives before a handler is
//     registered waits for one; the wait is bounded, and an error is reported
//     when the bound is passed.
//  4. Send never blocks on a slow or stopped peer, and never drops silently:
//     past Options.MaxQueue it returns [ErrBacklog], after the channel closed
//     [ErrClosed]. What was sent before a managed exit (a drain, or the return
//     from Serve) arrives.
//  5. A worker cannot hurt the master. Garbage, oversized frames, floods,
//     descriptors that it should not have sent, a worker that never reads, is
//     stopped, or dies half way through a frame: that is this worker's problem,
//     reported through [OnError].
//  6. Listening sockets outlive workers. From the first Listen until the address
//     ends (see [Listen]) a connection is queued, never refused, whatever happens
//     to the workers, all of them at once included.
//  7. The drain ends. A stop returns within Options.ShutdownTimeout, whatever
//     the application does.
//  8. Nothing leaks. No descriptor, goroutine, zombie or socket file is left by
//     a worker; a worker inherits its standard streams, its channel and nothing
//     else; its own children inherit neither the channel nor the role.
//  9. The master's death is noticed at once, even by SIGKILL, and the workers
//     drain and then exit.
//  10. The exit status tells the truth: 0 after a graceful stop of master or
//     worker.
//
// # Stopping
//
// SIGTERM, SIGINT (Ctrl-C) and the end of Run's context stop the cluster;
// [Disconnect] does so from the program. Each worker drains, in this order: it
// stops accepting, finishes what is in flight, runs the [OnShutdown] hooks,
// flushes and closes its channel, and lets Serve return nil. Then main may go
// on, and the process exits with 0 two seconds later, at once if nothing is in
// Serve. So what must be done at the end belongs into OnShutdown, not behind
// Serve.
//
// Who must be told at the beginning (a stream of events, a connection that was
// upgraded) waits for [Context], or is told by a function of an http.Server's
// RegisterOnShutdown. With Options.ShutdownDelay the cluster goes on serving for a
// while before it drains, and [Stopping] tells a readiness check.
//
// Idle keep-alive connections are kept for a second, and a request that comes
// in that time is answered with "Connection: close", so that with Serve no client's
// HTTP/1 request meets a closed connection; HTTP/2 clients are told by a GOAWAY, and
// send again what crosses it. Accept, Listen and a packet socket's
// ReadFrom wait during a drain, for their error would make most programs exit
// and cut off what is in flight.
//
// SIGTERM to a single worker drains it, and under AutoFork another one takes its
// place. A worker that outlives Options.ShutdownTimeout is killed. A second
// signal to the master shortens the stop to two seconds.
//
// # Limits
//
// There is one cluster per process: the package's functions share one state.
//
// On macOS and the BSDs the code is the same as on Linux; there, and on Windows,
// Options.Exec's default is the file at the program's path, not the file that
// runs.
//
// Windows is tested under Wine 8. It has no unix sockets here, no UDP socket that
// workers share, no Options.Credential, no signal but that to end at once, and
// no node peers: each is an error that wraps [errors.ErrUnsupported] and names it.
// Connections that are accepted there are no *net.TCPConn, but have its methods.
// A connection costs more under [RoundRobin] than elsewhere: a handle that is
// duplicated, beside the two messages. What workers start themselves ends with
// the cluster.
//
// With [Shared] scheduling the kernel decides which worker takes a connection,
// and the spread is uneven while the load is low; [RoundRobin] is even, and every
// connection goes through the master, as under [LeastConnections], which looks at
// what is open. [Sharded] is even too, with the kernel's own speed, and [ByClient] keeps a
// client with one worker, both on Linux. Scheduling is by connection, not by request. Datagrams of one client reach any worker, so protocols with a state
// per client on UDP (DTLS) need a socket of one worker alone, which is
// [ListenConfig].Exclusive; for QUIC and HTTP/3 there is package quic, a module of its own.
//
// Messages are for coordination: JSON, at most Options.MaxMessage bytes each.
//
// A panic in a callback ends the process that it happens in: a worker is replaced, and
// a master takes the cluster with it, whose workers finish what is in flight. See
// [OnFork].
//
// The working of a drain depends on connections coming from this package's
// listeners. A connection that was hijacked, or that is never idle, keeps its
// worker until Options.ShutdownTimeout.
//
// # Running it
//
//	go run ./examples/hello
//	curl localhost:8000
//
// The folder examples has a program for each part of the package, and the
// examples below run in tests. How the package is built is in
// docs/architecture.md.
package cluster
