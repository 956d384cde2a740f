// Master runs workers of another program, which use package coord. It does not import
// that package itself.
//
//	master PROGRAM
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/go-cluster/cluster"
)

func main() {
	if err := cluster.SetupMaster(cluster.Options{Exec: os.Args[1], Args: []string{}, Workers: 3}); err != nil {
		panic(err)
	}
	cluster.OnDeath(func(w *cluster.Process, _ cluster.Exit) { fmt.Println("dead", w.ID()) })
	if err := cluster.Run(context.Background()); err != nil {
		panic(err)
	}
}
