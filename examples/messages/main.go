// Messages shows the ways in which master and workers talk: Send with a
// callback for its receipt, messages decoded by Handle, and Request, which
// waits for an answer, in both directions.
//
//	go run ./examples/messages
//
// It listens on nothing; Ctrl-C ends it.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/go-cluster/cluster"
)

// A message is any JSON value. Handle and Respond choose by its "cmd" member.
type (
	task struct {
		Cmd string `json:"cmd"`
		N   int    `json:"n"`
	}
	result struct {
		Cmd    string `json:"cmd"`
		N      int    `json:"n"`
		Square int    `json:"square"`
	}
)

func worker() {
	cluster.Handle("task", func(master *cluster.Process, t task) {
		master.Send(result{"result", t.N, t.N * t.N})
	})
	cluster.Respond("double", func(master *cluster.Process, t task) (int, error) {
		return 2 * t.N, nil
	})

	var greeting string
	ask := map[string]string{"cmd": "greeting"}
	if err := cluster.Worker.Request(context.Background(), ask, &greeting); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("worker %d: the master says %q\n", cluster.Worker.ID(), greeting)
	select {} // until the worker is drained
}

func master() {
	cluster.Handle("result", func(w *cluster.Process, r result) {
		fmt.Printf("worker %d: the square of %d is %d\n", w.ID(), r.N, r.Square)
	})
	cluster.Respond("greeting", func(w *cluster.Process, _ struct{}) (string, error) {
		return fmt.Sprintf("welcome, worker %d", w.ID()), nil
	})

	go cluster.EachWorker(talk)
	if err := cluster.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func talk(w *cluster.Process) {
	err := w.Send(task{"task", 7}, func(err error) {
		fmt.Printf("worker %d: received the task, error %v\n", w.ID(), err)
	})
	if err != nil {
		log.Print(err)
	}
	var double int
	err = w.Request(context.Background(), task{"double", 21}, &double)
	fmt.Printf("worker %d: the double of 21 is %d, error %v\n", w.ID(), double, err)
}

func main() {
	if err := cluster.SetupMaster(cluster.Options{Workers: 2}); err != nil {
		log.Fatal(err)
	}
	if err := cluster.AutoFork(); err != nil {
		log.Fatal(err)
	}
	if cluster.IsWorker() {
		worker()
	}
	master()
}
