package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/go-cluster/cluster/fleet"
)

// reload reloads the members, one after another, as an operator: a process that joins
// the fleet for that, and takes no orders itself.
func reload(o fleet.Options, nodes []string) error {
	o.Node, o.Orders = fmt.Sprintf("operator-%d", os.Getpid()), false
	f, err := fleet.Join(o)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := known(f, nodes); err != nil {
		return err
	}
	result, err := f.Reload(context.Background(), fleet.Roll{Nodes: nodes})
	fmt.Println("reloaded:", result.Done)
	if err != nil {
		fmt.Println("not asked:", result.Left)
	}
	return err
}

// known waits until these members are known: who has just joined hears of the others
// when they answer.
func known(f *fleet.Fleet, nodes []string) error {
	missing := make(map[string]bool)
	for _, node := range nodes {
		missing[node] = true
	}
	all := make(chan struct{})
	defer f.OnJoin(func(m fleet.Member) {
		if missing[m.Node] {
			if delete(missing, m.Node); len(missing) == 0 {
				close(all)
			}
		}
	})()
	select {
	case <-all:
		return nil
	case <-time.After(30 * time.Second):
		return errors.New("not all of these members are there")
	}
}
