package main

import (
	"fmt"
	"os/exec"
	"slices"
	"time"
)

// scenario is one kind of work. The first server is what the others are
// compared with.
type scenario struct {
	name    string
	half    time.Duration // of a measurement
	servers []server
}

// figures are what is known of one server: a value for each round.
type figures struct {
	server  server
	process *exec.Cmd
	client  *client

	rate, p50, p99, p999, memory []float64
}

// run measures and prints a table.
func (s scenario) run(p plan) error {
	var all []*figures
	defer func() {
		for _, f := range all {
			f.client.close()
			stop(f.process)
		}
	}()
	for _, srv := range s.servers {
		f, err := begin(srv, p.conns)
		if err != nil {
			return fmt.Errorf("%s: %w", srv.name, err)
		}
		all = append(all, f)
	}
	pace, err := s.warmUp(all)
	if err != nil {
		return err
	}
	for round := range p.rounds {
		for i := range all {
			f := all[(i+round)%len(all)] // so that no server always comes behind the same one
			if err := f.measure(s.half, pace); err != nil {
				return fmt.Errorf("%s: %w", f.server.name, err)
			}
			note(".")
		}
	}
	note("\n")
	s.print(all, pace)
	return nil
}

func begin(s server, conns int) (*figures, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	process, err := s.start(address)
	if err != nil {
		return nil, err
	}
	c, err := connect(address, conns, s.processes)
	if err != nil {
		stop(process)
		return nil, err
	}
	return &figures{server: s, process: process, client: c}, nil
}

// warmUp returns the rate for the second halves.
func (s scenario) warmUp(all []*figures) (pace float64, err error) {
	for i, f := range slices.Backward(all) {
		r, err := f.client.rate(s.half)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", f.server.name, err)
		}
		if i == 0 {
			pace = r / 2
		}
	}
	return pace, nil
}

// measure makes one measurement.
func (f *figures) measure(half time.Duration, pace float64) error {
	rate, err := f.client.rate(half)
	if err != nil {
		return err
	}
	f.rate = append(f.rate, rate)
	f.memory = append(f.memory, float64(memory(f.process.Process.Pid))/(1<<20))
	times, err := f.client.latencies(half, pace)
	if err != nil {
		return err
	}
	at := func(part float64) float64 {
		return float64(times[int(part*float64(len(times)-1))].Microseconds())
	}
	f.p50 = append(f.p50, at(0.5))
	f.p99 = append(f.p99, at(0.99))
	f.p999 = append(f.p999, at(0.999))
	return nil
}

func (s scenario) print(all []*figures, pace float64) {
	base := all[0]
	fmt.Printf("\n### %s\n\nThe percentiles are those at %.0f requests/s. The ratios are to the first line.\n\n", s.name, pace)
	fmt.Println("| server | requests/s | ratio | p50, µs | p99, µs | p99.9, µs | p99 ratio | p99.9 ratio | memory, MB |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|")
	for _, f := range all {
		fmt.Printf("| %s | %.0f | %.2f | %.0f | %.0f | %.0f | %.2f | %.2f | %.0f |\n", f.server.name,
			median(f.rate), ratio(f.rate, base.rate), median(f.p50), median(f.p99), median(f.p999),
			ratio(f.p99, base.p99), ratio(f.p999, base.p999), median(f.memory))
	}
}

// ratio is the median of the ratios, round by round.
func ratio(a, b []float64) float64 {
	r := make([]float64, len(a))
	for i := range a {
		r[i] = a[i] / b[i]
	}
	return median(r)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
