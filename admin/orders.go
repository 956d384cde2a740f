package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/go-cluster/cluster"
)

// order is something that is to be done. It returns when it has been done.
type order func(r *http.Request) error

// done is an order's outcome.
type done struct {
	OK     bool   `json:"ok"`
	Error  string `json:"error,omitempty"`
	Status int    `json:"status"` // of HTTP, which a client of JSON lines has had already
}

// ordered carries an order out and tells the outcome. If JSON lines are asked for,
// what happens meanwhile is told as well, as /events tells it; the last line has a
// member ok.
func (s *service) ordered(do order) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		defer s.orders.begin(w)()
		if !lines(r) {
			if err := do(r); err != nil {
				fail(w, err)
				return
			}
			writeJSON(w, http.StatusOK, done{OK: true, Status: http.StatusOK})
			return
		}
		n := s.journal.end()
		ended := make(chan error, 1)
		go func() { ended <- do(r) }()
		out := newEventWriter(w, true)
		var end *done
		for {
			list, more := s.journal.after(n)
			for _, e := range list {
				out.write(e, e.N)
				n = e.N
			}
			if end != nil {
				out.write(end, 0)
			}
			if out.flush(); end != nil {
				return
			}
			select {
			case <-more:
			case err := <-ended:
				if end = (&done{OK: true, Status: http.StatusOK}); err != nil {
					end = &done{Error: plain(err.Error()), Status: statusOf(err)}
				}
			}
		}
	}
}

func (s *service) reload(r *http.Request) error { return cluster.Reload(r.Context()) }

// stop does not end with who asked for it: what drains would be killed.
func (s *service) stop(r *http.Request) error {
	return cluster.Disconnect(context.WithoutCancel(r.Context()))
}

// maxScale is more than any machine can run, and a slip of the finger.
const maxScale = 10_000

// scale waits until as many workers are up, or too many are gone.
func (s *service) scale(r *http.Request) error {
	n, err := strconv.Atoi(r.URL.Query().Get("n"))
	if err != nil || n < 0 || n > maxScale {
		return badRequest{fmt.Errorf("n=%q: the number of workers is needed, of %d at most", r.URL.Query().Get("n"), maxScale)}
	}
	if err := cluster.Scale(n); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), cluster.Settings().StartTimeout+cluster.Settings().ShutdownTimeout)
	defer cancel()
	return s.until(ctx, func() error {
		st := cluster.Stats()
		if st.Target != n {
			return errors.New("another number was ordered meanwhile")
		}
		own, more := 0, 0
		for _, w := range st.Workers {
			switch {
			case w.ID != 0 && w.Slot >= n:
				more++
			case w.ID != 0 && w.Name == strconv.Itoa(w.Slot):
				own++
			}
		}
		if up := s.core.Health().Up; up < n || own < n || more > 0 {
			return fmt.Errorf("%d of %d workers are up, %d drain: %w", up, n, more, errWait)
		}
		return nil
	})
}

// errWait says that what is waited for may come.
var errWait = errors.New("it goes on")

// look is how often something is looked at that no event tells.
const look = 500 * time.Millisecond

// until asks at every event whether it is so, until the answer is other than to wait.
func (s *service) until(ctx context.Context, so func() error) error {
	for {
		_, more := s.journal.after(s.journal.end())
		err := so()
		if !errors.Is(err, errWait) {
			return err
		}
		select {
		case <-more:
		case <-time.After(look):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, ctx.Err())
		}
	}
}

// target is the worker that an order is for: its slot, or itself if it has none.
func target(r *http.Request) (slot int, alone *cluster.Process, err error) {
	name := r.PathValue("name")
	if slot, err := strconv.Atoi(name); err == nil && slot >= 0 && strconv.Itoa(slot) == name {
		if slot >= cluster.Stats().Target {
			return 0, nil, fmt.Errorf("%w: %q", errNoWorker, name)
		}
		return slot, nil, nil
	}
	one, err := find(name)
	if w := process(one.ID); err == nil && w != nil {
		if one.Name == strconv.Itoa(one.Slot) {
			return one.Slot, nil, nil
		}
		return 0, w, nil
	}
	return 0, nil, fmt.Errorf("%w: %q", errNoWorker, name)
}

// drain ends a worker; its slot stays empty.
func (s *service) drain(r *http.Request) error {
	slot, alone, err := target(r)
	switch {
	case err != nil:
		return err
	case alone != nil:
		return alone.Disconnect(r.Context())
	}
	return s.core.Vacate(r.Context(), slot)
}

// kill ends a worker at once, and waits for the next one of its slot.
func (s *service) kill(r *http.Request) error {
	slot, alone, err := target(r)
	if err != nil {
		return err
	}
	if alone != nil {
		if err := alone.Kill(); err != nil {
			return err
		}
		return s.until(r.Context(), func() error {
			if !alone.IsDead() {
				return errWait
			}
			return nil
		})
	}
	n := s.journal.end()
	if err := s.core.Respawn(r.Context(), slot); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), cluster.Settings().StartTimeout)
	defer cancel()
	return s.until(ctx, func() error {
		list, _ := s.journal.after(n)
		for _, e := range list {
			if e.Event == "online" && e.Slot != nil && *e.Slot == slot {
				return nil
			}
		}
		return fmt.Errorf("killed, and no other is online in its place: %w", errWait)
	})
}

// restart replaces a slot's worker.
func (s *service) restart(r *http.Request) error {
	slot, alone, err := target(r)
	switch {
	case err != nil:
		return err
	case alone != nil:
		return badRequest{errors.New("only the worker of a slot can be restarted, by the slot's number")}
	}
	return s.core.Restart(r.Context(), slot)
}
