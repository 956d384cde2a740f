package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/go-cluster/cluster"
	"github.com/spf13/cobra"
	"go.uber.org/fx"
	"golang.org/x/sync/errgroup"
)

// What is around a server: who starts it and who stops it.

// fx stops its parts when a signal comes. In a worker none does: the drain's end stops
// them, and the master has no parts.
func helloFx() error {
	if err := cluster.AutoFork(); err != nil {
		return err
	}
	if cluster.IsMaster() {
		return cluster.Run(context.Background())
	}
	app := fx.New(fx.NopLogger, fx.Invoke(func(lc fx.Lifecycle) {
		lc.Append(fx.Hook{OnStart: func(context.Context) error {
			http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
			return nil
		}})
	}))
	cluster.OnShutdown(app.Stop)
	if err := app.Start(context.Background()); err != nil {
		return err
	}
	return cluster.ListenAndServe(addr, nil)
}

// The context of signal.NotifyContext becomes cluster.Context.
func helloErrgroup() error {
	if err := cluster.AutoFork(); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(cluster.Context())
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
	g.Go(func() error { return cluster.ListenAndServe(addr, nil) })
	g.Go(func() error {
		<-ctx.Done() // what else the program does, until it is asked to stop
		return nil
	})
	return g.Wait()
}

func helloCobra() error {
	root := &cobra.Command{Use: "cobra", RunE: func(*cobra.Command, []string) error {
		if err := cluster.AutoFork(); err != nil {
			return err
		}
		http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
		return cluster.ListenAndServe(addr, nil)
	}}
	return root.Execute()
}
