// Package upgrade tests how a master is replaced in place: with real processes, each of
// which is the test binary at a path of its own. Only tests that mostly wait are parallel:
// the others start programs all the time, and would only slow each other down.
//
// What can be in the middle of something, and the test in which it is:
//
//	half a frame; half an outbox; half a line of output  TestHalves
//	messages, requests and the store, both ways          TestUnderLoad
//	connections that are kept, and that are no HTTP      TestUnderLoad
//	handles that wait in the channel, or behind others   TestHandles
//	a handle that node has not acknowledged              TestNodeHandle
//	a connection that a worker was handed, unanswered    TestHandedOver
//	a worker that starts, drains, is stopped (SIGSTOP)
//	or waits for its backoff                             TestStates
//	a worker that is recycled, in both halves of that    TestRecycled
//	a worker that dies between state and exec            TestDeathInTheGap
//	a leader, a lock with one who waits                  TestLeaderAndWaiter, TestEarly
//	sockets that change hands                            TestSharded
//	a callback that does not return                      TestBusy
//	a child of the program, a service manager's socket   TestStart, TestStore
//	node workers                                         TestNodeWorkers
//	programs without the package, and what they say      TestForeign…
//	an admin client in the middle of events              TestEventsOverUpgrade of package admin
//	a program that is replaced between check and exec    TestReplacedMeanwhile
//	the master's death, in each step                     TestKilledMaster
package upgrade
