package coord

import "context"

// Lead makes this process a candidate for the name. Of all candidates in the cluster one
// leads at a time: its fn runs, on a goroutine of its own. Lead returns at once. stop ends
// the candidacy, and the ctx of fn if fn runs here; it does not wait for fn.
//
// The next leader is the candidate whose process leads the fewest names, and among those the
// one in the lowest slot. During a reload new workers come first. ctx ends when this process
// begins to drain, when stop is called, and when the master is gone. A drain waits for fn as
// it waits for a request. The next leader is chosen when fn has returned, or when this
// process is dead.
//
// If fn returns nil while ctx is alive, the work is done: nobody runs it again until the
// master ends. If fn returns an error while ctx is alive, that is logged, and the work is
// tried again, perhaps in another process, after Options.Backoff: the first time at once, and
// then later and later. If the process dies while it leads, that counts as an error. If fn
// returns after ctx has ended, its result does not matter, and another candidate goes on. A
// panic ends the process.
//
// In a master that has forked fn does not run. If it runs when the master forks, its ctx
// ends. Several calls for one name in a process make several candidates.
//
// An error is reported through cluster.OnError, and stop does nothing then: the name is too
// long, the process has 4,096 candidacies, or the master is node's. It is also an error if
// the fn that leads the name calls Lead for that name while its ctx is alive: nobody else
// can lead before fn returns.
func Lead(name string, fn func(ctx context.Context) error) (stop func()) {
	notNil("Lead", fn == nil)
	return here.Lead(name, fn)
}

// Leads reports whether this process leads the name now: a function that Lead was given runs
// here, and its ctx has not ended.
func Leads(name string) bool { return here.Leads(name) }

// Once runs fn in one of the processes that call Once with that name, for instance a
// migration. When fn has succeeded, the calls in all processes return nil, and later calls
// return nil at once, until the master ends. ctx is given to fn, and bounds the wait.
//
// If fn fails, the call that ran it returns its error, and the next call that waits runs its
// own fn. The same happens if the process dies that runs fn. A drain waits for fn.
func Once(ctx context.Context, name string, fn func(ctx context.Context) error) error {
	notNil("Once", fn == nil)
	return here.Once(ctx, name, fn)
}

// notNil panics, in the goroutine of who has made the mistake, if a function is nil.
func notNil(call string, isNil bool) {
	if isNil {
		panic("coord: " + call + ": the function to call is nil")
	}
}
