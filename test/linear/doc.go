// Package linear checks that the operations on a coord.Store are linear, with
// porcupine: for each key there is one order of all of them, whoever asked, in which
// each has the result that it would have had alone, and none is before one that had
// returned before it was called.
//
// Worker processes do operations at random, and so does the master. Each writes to a
// file of its own what it is going to do, and then what came of it, so that of one
// that is killed it is known what was under way: that may have happened, then or
// later, or not. All take the times from one clock, that of the system since its
// start.
//
// It is a module of its own because it needs porcupine. A longer run is
//
//	go test . -time 10m
package linear
