package coord_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/go-cluster/cluster/coord"
)

var ctx = context.Background()

var reported = make(chan bool, 1)

func report(time.Time) {
	select {
	case reported <- true:
	default:
	}
}

// A job that one process of the cluster does, again and again.
func Example_cron() {
	stop := coord.Lead("report", func(ctx context.Context) error {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case now := <-tick.C:
				report(now)
			case <-ctx.Done():
				return nil // another process goes on
			}
		}
	})
	<-reported
	stop()
	fmt.Println("a report")
	// Output: a report
}

// Elector is what gocron.WithDistributedElector takes: jobs run where it says nil.
type Elector struct{ name string }

var errNotLeader = errors.New("another process leads")

// NewElector makes this process a candidate, for as long as it lives.
func NewElector(name string) Elector {
	coord.Lead(name, func(ctx context.Context) error {
		<-ctx.Done()
		return nil
	})
	return Elector{name}
}

func (e Elector) IsLeader(context.Context) error {
	if coord.Leads(e.name) {
		return nil
	}
	return errNotLeader
}

func Example_elector() {
	e := NewElector("jobs")
	for e.IsLeader(ctx) != nil { // it takes a moment
		time.Sleep(time.Millisecond)
	}
	fmt.Println("leads")
	// Output: leads
}

func migrate(context.Context) error {
	fmt.Println("migrating")
	return nil
}

// A migration that one process does, and for which all others wait.
func Example_migration() {
	if err := coord.Once(ctx, "migrate", migrate); err != nil {
		log.Fatal(err)
	}
	if err := coord.Once(ctx, "migrate", migrate); err != nil {
		log.Fatal(err)
	}
	// Output: migrating
}

// Sessions is a store of github.com/alexedwards/scs.
type Sessions struct{ s *coord.Store }

func (s Sessions) Find(token string) (b []byte, found bool, err error) { return s.s.Get(ctx, token) }
func (s Sessions) Delete(token string) error                           { return s.s.Delete(ctx, token) }
func (s Sessions) Commit(token string, b []byte, expiry time.Time) error {
	return s.s.Set(ctx, token, b, max(1, time.Until(expiry)))
}

func Example_sessions() {
	s := Sessions{coord.Open("sessions")}
	if err := s.Commit("token", []byte("Ada"), time.Now().Add(time.Hour)); err != nil {
		log.Fatal(err)
	}
	b, found, err := s.Find("token")
	fmt.Println(string(b), found, err)
	// Output: Ada true <nil>
}

// Storage is a fiber.Storage.
type Storage struct{ s *coord.Store }

func (s Storage) Get(key string) ([]byte, error) {
	val, _, err := s.s.Get(ctx, key) // nil if there is none
	return val, err
}
func (s Storage) Set(key string, val []byte, exp time.Duration) error {
	return s.s.Set(ctx, key, val, exp)
}
func (s Storage) Delete(key string) error { return s.s.Delete(ctx, key) }
func (s Storage) Reset() error            { return s.s.DeletePrefix(ctx, "") }
func (s Storage) Close() error            { return nil }

func Example_fiberStorage() {
	s := Storage{coord.Open("fiber")}
	fmt.Println(s.Set("k", []byte("v"), time.Minute))
	val, err := s.Get("k")
	fmt.Println(string(val), err)
	fmt.Println(s.Reset())
	val, err = s.Get("k")
	fmt.Println(val == nil, err)
	// Output:
	// <nil>
	// v <nil>
	// <nil>
	// true <nil>
}

// limited lets each client have 10 requests a second, over all workers, and 20 at
// once.
func limited(next http.Handler) http.Handler {
	limiter := coord.NewLimiter("requests", 10, 20)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ok, retry, err := limiter.Allow(r.Context(), r.RemoteAddr)
		if err == nil && !ok { // an error lets pass
			w.Header().Set("Retry-After", fmt.Sprint(int(retry.Seconds())+1))
			http.Error(w, "slow down", http.StatusTooManyRequests)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func Example_rateLimit() {
	h := limited(http.NotFoundHandler())
	codes := make(map[int]int)
	for codes[429] == 0 { // who asks faster than that is refused, after 20
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		codes[w.Code]++
	}
	fmt.Println(codes[404] >= 20, codes[429] > 0)
	// Output: true true
}

// Prices is a cache in each process, of which all drop what one of them changes.
type Prices struct {
	mu   sync.Mutex
	byID map[string]int
}

func NewPrices() *Prices {
	p := &Prices{byID: make(map[string]int)}
	coord.Subscribe("price changed", func(id string) {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.byID, id)
	})
	return p
}

func (p *Prices) Change(id string) error { return coord.Publish("price changed", id) }

func Example_cache() {
	p := NewPrices()
	p.byID["tea"] = 3
	if err := p.Change("tea"); err != nil {
		log.Fatal(err)
	}
	for n := 1; n > 0; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		n = len(p.byID)
		p.mu.Unlock()
	}
	fmt.Println("dropped")
	// Output: dropped
}

func ExampleLock() {
	unlock, err := coord.Lock(ctx, "invoice 7")
	if err != nil {
		log.Fatal(err)
	}
	defer unlock()
	fmt.Println("nobody else writes invoice 7")
	// Output: nobody else writes invoice 7
}

func ExampleStore_Incr() {
	hits := coord.Open("hits")
	n, err := hits.Incr(ctx, "/", 1, 0)
	fmt.Println(n, err)
	// Output: 1 <nil>
}

func ExampleGet() {
	type user struct{ Name string }
	s := coord.Open("users")
	if err := coord.Set(ctx, s, "1", user{"Ada"}, time.Hour); err != nil {
		log.Fatal(err)
	}
	u, ok, err := coord.Get[user](ctx, s, "1")
	b, _ := json.Marshal(u)
	fmt.Println(string(b), ok, err)
	// Output: {"Name":"Ada"} true <nil>
}
