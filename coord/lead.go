package coord

import "context"

// Lead makes this process a candidate for the name: in one process of the cluster
// at a time fn runs, on a goroutine of its own. It returns at once. stop ends the
// candidacy, and ctx of fn if it runs here; it does not wait for fn.
//
// Of the candidates the one is chosen whose process leads the fewest names, else
// that in the lowest slot; during a reload a new worker comes first. ctx ends when
// this process begins to drain, when stop is called, and when the master is gone. A
// drain waits for fn as it waits for a request. The next is chosen when fn has
// returned, or this process is dead.
//
// If fn returns nil while ctx is alive, its work is done: nobody runs it again until
// the master ends. What it returns after ctx has ended does not matter: another one
// goes on. An error while ctx is alive is logged, and fn runs again, somewhere,
// after Options.Backoff: at once the first time, and then ever later. The death of
// the process while it leads counts as an error. A panic ends the process.
//
// In a master that has forked fn does not run; one that began before the fork has
// its ctx ended by it. Several Leads of one name in a process are several
// candidates. What prevents a candidacy is reported through cluster.OnError, and stop
// does nothing then: a name that is too long, a process with 4,096 candidacies, a
// node primary, and a Lead that the fn which leads the name calls itself while its
// ctx is alive, since nobody else leads until that has returned.
func Lead(name string, fn func(ctx context.Context) error) (stop func()) {
	return here.Lead(name, fn)
}

// Leads reports whether a function of this process leads the name now: it runs,
// and its ctx has not ended.
func Leads(name string) bool { return here.Leads(name) }

// Once runs fn in one process of the cluster, and returns nil when it has succeeded
// there, in all processes that have called Once with that name: a migration, for
// example. Later calls return at once, until the master ends. ctx is that of fn,
// and bounds the wait.
//
// If fn fails its error is returned here, and the next who waits runs his. That is
// so too when the process dies that runs it. A drain waits for fn.
func Once(ctx context.Context, name string, fn func(ctx context.Context) error) error {
	return here.Once(ctx, name, fn)
}
