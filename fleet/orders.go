package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-cluster/cluster"
)

// Roll says in which way members carry out an order. The zero Roll is all of them,
// one after another.
type Roll struct {
	// Nodes are the members, in this order. Default: all that are known, by name.
	Nodes []string

	// Parallel is how many carry it out at once. Default: 1.
	Parallel int

	// Progress is told when a member is given the order (done is false), and when it has
	// carried it out or failed (done is true, and err says which). Calls come one after
	// another, and the next member waits for them. Default: nobody is told.
	Progress func(node string, done bool, err error)
}

// Result is what has become of an order.
type Result struct {
	Done   []string         // who has carried it out
	Failed map[string]error // who has not; with one that was lost meanwhile it may have been
	Left   []string         // who was not asked any more
}

// ErrOrders is returned where a member takes no orders.
var ErrOrders = errors.New("the member takes no orders: Options.Orders is false there")

// order is what a master is told.
type order struct {
	Protocol int    `json:"protocol"`
	Verb     string `json:"verb"`
	N        int    `json:"n,omitempty"`
}

// orders are those that this process gives, and in a master those that it takes.
type orders struct {
	me         *self
	conn       *connection
	roster     *roster
	responders *responders
}

// take makes this master carry out orders.
func (g *orders) take() error {
	_, err := g.responders.answer(g.me.orderSubject(g.me.node), func(body []byte) (any, error) {
		var o order
		if err := json.Unmarshal(body, &o); err != nil {
			return nil, err
		}
		return nil, o.carryOut()
	})
	return wrap(err)
}

// carryOut does what is ordered. The time that it may take is that of the cluster's
// own: Options.StartTimeout and ShutdownTimeout bound each step.
func (o order) carryOut() error {
	if o.Protocol != protocol {
		return fmt.Errorf("%w: the order has %d, this member %d", ErrVersion, o.Protocol, protocol)
	}
	switch o.Verb {
	case "reload":
		return cluster.Reload(context.Background())
	case "scale":
		return cluster.Scale(o.N)
	case "stop":
		return cluster.Disconnect(context.Background())
	}
	return fmt.Errorf("%w: this member knows no order %q", ErrVersion, o.Verb)
}

// Reload reloads members, as cluster.Reload does: one after another, or Roll.Parallel
// at once. With the first failure no further one is asked, and it is the error, with
// the member's name.
//
// Before anything is done the error is [ErrOrders] if one of them takes no orders,
// [ErrVersion] if one speaks another version, and it says so if one is not known.
// During it, ErrNoFleet, or nats.ErrPermissionViolation where this process may not
// order; a member that is lost meanwhile has failed. When ctx ends, orders that were
// given go on. Each member reloads on its own: none waits until another is ready
// again beyond what its own Reload waits for.
func (f *Fleet) Reload(ctx context.Context, r Roll) (Result, error) {
	return f.orders.roll(ctx, order{Verb: "reload"}, r)
}

// Scale sets the number of workers of each member, as cluster.Scale does. Otherwise
// it is as Reload.
func (f *Fleet) Scale(ctx context.Context, n int, r Roll) (Result, error) {
	return f.orders.roll(ctx, order{Verb: "scale", N: n}, r)
}

// Stop stops members, as cluster.Disconnect does: their workers drain, and Run ends.
// Otherwise it is as Reload. A service manager may start them again. A worker that
// stops its own member ends with it: ctx may end with its drain before the result is known.
func (f *Fleet) Stop(ctx context.Context, r Roll) (Result, error) {
	return f.orders.roll(ctx, order{Verb: "stop"}, r)
}

// targets are the members that an order is for.
func (g *orders) targets(r Roll) (nodes []string, err error) {
	known := make(map[string]Member)
	for _, m := range g.roster.list() {
		known[m.Node] = m
		if r.Nodes == nil {
			nodes = append(nodes, m.Node)
		}
	}
	if r.Nodes != nil {
		nodes = slices.Clone(r.Nodes)
	}
	for _, node := range nodes {
		m, ok := known[node]
		switch {
		case !ok:
			return nil, fmt.Errorf("%q: no member of that name is known", node)
		case m.Protocol != protocol:
			return nil, fmt.Errorf("%q: %w: it has %d, this one %d", node, ErrVersion, m.Protocol, protocol)
		case !m.Orders:
			return nil, fmt.Errorf("%q: %w", node, ErrOrders)
		}
	}
	return nodes, nil
}

// roll is an order that is being given to one after another.
type roll struct {
	Roll
	orders *orders
	order  order

	mu    sync.Mutex // of what follows, and of calls of Progress
	res   Result
	first error
}

// roll gives the order to one after another.
func (g *orders) roll(ctx context.Context, o order, r Roll) (Result, error) {
	o.Protocol = protocol
	nodes, err := g.targets(r)
	if err != nil {
		return Result{}, fmt.Errorf("fleet: %s: %w", o.Verb, err)
	}
	a := &roll{Roll: r, orders: g, order: o, res: Result{Failed: make(map[string]error)}}
	var all sync.WaitGroup
	seats := make(chan struct{}, max(1, r.Parallel))
	for i, node := range nodes {
		seats <- struct{}{}
		if !a.begins(ctx, node) {
			a.res.Left = nodes[i:]
			break
		}
		all.Go(func() {
			a.ended(node, g.order(ctx, node, o))
			<-seats
		})
	}
	all.Wait()
	if a.first == nil && len(a.res.Left) > 0 {
		a.first = fmt.Errorf("fleet: %s: %w", o.Verb, ctx.Err())
	}
	return a.res, a.first
}

// begins reports whether a further member is to be given the order, and tells that it is.
func (a *roll) begins(ctx context.Context, node string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.first != nil || ctx.Err() != nil {
		return false
	}
	if a.Progress != nil {
		a.Progress(node, false, nil)
	}
	return true
}

// ended notes how it has ended at a member, and tells.
func (a *roll) ended(node string, err error) {
	if err != nil {
		err = fmt.Errorf("fleet: %s of %q: %w", a.order.Verb, node, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		a.res.Done = append(a.res.Done, node)
	} else {
		a.res.Failed[node] = err
		if a.first == nil {
			a.first = err
		}
	}
	if a.Progress != nil {
		a.Progress(node, true, err)
	}
}

// errLost is what a member's loss makes of its order.
var errLost = errors.New("the member was lost meanwhile")

// order gives one member the order, and waits until it is carried out.
func (g *orders) order(ctx context.Context, node string, o order) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer g.roster.onLeave(func(m Member) {
		if m.Node != node {
			return
		}
		// One that stops says that it leaves before it says that it has stopped.
		time.AfterFunc(g.me.set.beat, func() { cancel(errLost) })
	})()
	err := g.conn.request(ctx, g.me.orderSubject(node), o, nil)
	if err != nil && context.Cause(ctx) == errLost {
		return errLost
	}
	return err
}
