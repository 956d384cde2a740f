package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
)

// These examples run as they stand: each function is the main of both roles,
// and its workers run the same function again. For that alone they set Env; a
// program does not need to, since its workers are the same program anyway.
func again(example string) []string {
	if cluster.IsMaster() {
		// The last reports about the workers of the example before must not
		// come to this one.
		for all := goroutines(); runtime.NumGoroutine() > all; {
			time.Sleep(time.Millisecond)
		}
	}
	return []string{clustertest.ProgramEnv + "=" + example}
}

// goroutines is how many there are while no cluster runs.
var goroutines = sync.OnceValue(runtime.NumGoroutine)

func init() {
	clustertest.Program("Example", Example)
	clustertest.Program("ExampleFork", ExampleFork)
	clustertest.Program("ExampleAutoFork", ExampleAutoFork)
	clustertest.Program("ExampleProcess_OnMessage", ExampleProcess_OnMessage)
	clustertest.Program("ExampleProcess_Send", ExampleProcess_Send)
	clustertest.Program("ExampleHandle", ExampleHandle)
	clustertest.Program("ExampleProcess_Request", ExampleProcess_Request)
	clustertest.Program("ExampleEachWorker", ExampleEachWorker)
	clustertest.Program("ExampleListen", ExampleListen)
	clustertest.Program("ExampleListenConfig", ExampleListenConfig)
	clustertest.Program("ExampleOptions_allowListen", ExampleOptions_allowListen)
	clustertest.Program("ExampleOnShutdown", ExampleOnShutdown)
}

// The same lines make the master, which forks and supervises, and the workers,
// which serve.
func Example() {
	if err := cluster.SetupMaster(cluster.Options{Workers: 2, Env: again("Example")}); err != nil {
		log.Fatal(err)
	}
	var listening atomic.Int32
	defer cluster.OnListening(func(w *cluster.Process, addr net.Addr) {
		if listening.Add(1) < 2 {
			return
		}
		body, err := clustertest.Get("http://" + addr.String())
		fmt.Print(body)
		if err != nil {
			fmt.Println(err)
		}
		clustertest.StopSelf() // a SIGTERM, or Ctrl-C: the workers drain
	})()

	if err := cluster.AutoFork(); err != nil { // does nothing in a worker
		log.Fatal(err)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "hello from a worker:", cluster.IsWorker())
	})
	if err := cluster.ListenAndServe("127.0.0.1:0", handler); err != nil {
		log.Fatal(err)
	}
	if cluster.IsMaster() {
		fmt.Println("stopped; workers left:", len(cluster.Workers()))
	}

	// Output:
	// hello from a worker: true
	// stopped; workers left: 0
}

// Fork starts one worker; every report about it comes in order.
func ExampleFork() {
	if cluster.IsWorker() {
		fmt.Println("worker", os.Getenv("JOB"))
		os.Exit(3)
	}
	if err := cluster.SetupMaster(cluster.Options{Env: again("ExampleFork")}); err != nil {
		log.Fatal(err)
	}
	dead := make(chan bool)
	defer cluster.OnOnline(func(w *cluster.Process) { fmt.Println("online") })()
	defer cluster.OnDisconnect(func(w *cluster.Process) { fmt.Println("disconnected") })()
	defer cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) {
		fmt.Println("dead, exit status", e.Code)
		close(dead)
	})()

	// What a worker prints goes where the master's output goes, unless
	// Options.Output says otherwise.
	if _, err := cluster.Fork("JOB=reports"); err != nil {
		log.Fatal(err)
	}
	<-dead

	// Unordered output:
	// worker reports
	// online
	// disconnected
	// dead, exit status 3
}

// AutoFork keeps its slots filled: a worker that crashes is replaced.
func ExampleAutoFork() {
	if cluster.IsWorker() {
		cluster.OnMessage(func(*cluster.Process, cluster.Message) { os.Exit(1) })
		select {} // until the worker is drained
	}
	if err := cluster.SetupMaster(cluster.Options{Workers: 1, Env: again("ExampleAutoFork")}); err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var crashed sync.Once
	defer cluster.OnOnline(func(w *cluster.Process) {
		fmt.Println("online: slot", w.Slot())
		again := true
		crashed.Do(func() {
			again = false
			w.Send("crash")
		})
		if again {
			stop()
		}
	})()
	defer cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) {
		fmt.Println("dead: exit status", e.Code, "voluntary", e.Voluntary)
	})()
	if err := cluster.AutoFork(); err != nil {
		log.Fatal(err)
	}
	fmt.Println("stopped:", cluster.Run(ctx))

	// Output:
	// online: slot 0
	// dead: exit status 1 voluntary false
	// online: slot 0
	// dead: exit status 0 voluntary true
	// stopped: <nil>
}

// A handler tells the master, which hears every worker.
func ExampleProcess_OnMessage() {
	if cluster.IsWorker() {
		for range 3 {
			if err := cluster.Worker.Send(map[string]any{"cmd": "notifyRequest"}); err != nil {
				log.Fatal(err)
			}
		}
		select {}
	}
	if err := cluster.SetupMaster(cluster.Options{Workers: 2, Env: again("ExampleProcess_OnMessage")}); err != nil {
		log.Fatal(err)
	}
	if err := cluster.AutoFork(); err != nil {
		log.Fatal(err)
	}
	var all sync.WaitGroup
	all.Add(2 * 3)
	cluster.EachWorker(func(w *cluster.Process) {
		// Messages that came before this have waited for it.
		w.OnMessage(func(w *cluster.Process, m cluster.Message) {
			if m.Cmd() == "notifyRequest" {
				all.Done()
			}
		})
	})
	all.Wait()
	fmt.Println("6 requests")
	cluster.Disconnect(context.Background())

	// Output: 6 requests
}

// The callback tells that the other side has received the message.
func ExampleProcess_Send() {
	if cluster.IsWorker() {
		cluster.OnMessage(func(master *cluster.Process, m cluster.Message) { fmt.Println("worker:", m) })
		if err := cluster.Worker.Send("listening to you"); err != nil {
			log.Fatal(err)
		}
		select {}
	}
	if err := cluster.SetupMaster(cluster.Options{Env: again("ExampleProcess_Send")}); err != nil {
		log.Fatal(err)
	}
	w, err := cluster.Fork()
	if err != nil {
		log.Fatal(err)
	}
	listens := make(chan bool)
	defer w.OnMessage(func(*cluster.Process, cluster.Message) { close(listens) })()
	<-listens
	received := make(chan error)
	if err := w.Send([]int{1, 2, 3}, func(err error) { received <- err }); err != nil {
		log.Fatal(err)
	}
	fmt.Println("received:", <-received)
	// What has arrived is handled before the worker exits.
	fmt.Println("disconnected:", w.Disconnect(context.Background()))
	fmt.Println("too late:", errors.Is(w.Send("more"), cluster.ErrClosed))

	// Unordered output:
	// received: <nil>
	// worker: [1,2,3]
	// disconnected: <nil>
	// too late: true
}

// Handle takes the messages of one kind, decoded.
func ExampleHandle() {
	type job struct {
		Cmd string `json:"cmd"`
		N   int    `json:"n"`
	}
	if cluster.IsWorker() {
		cluster.Handle("square", func(master *cluster.Process, j job) {
			master.Send(job{"result", j.N * j.N})
		})
		select {}
	}
	if err := cluster.SetupMaster(cluster.Options{Env: again("ExampleHandle")}); err != nil {
		log.Fatal(err)
	}
	results := make(chan int)
	defer cluster.Handle("result", func(w *cluster.Process, j job) { results <- j.N })()
	w, err := cluster.Fork()
	if err != nil {
		log.Fatal(err)
	}
	for n := range 4 {
		if err := w.Send(job{"square", n}); err != nil {
			log.Fatal(err)
		}
		fmt.Println(<-results)
	}
	w.Disconnect(context.Background())

	// Output:
	// 0
	// 1
	// 4
	// 9
}

// Request waits for the answer of the other side, here a Respond handler.
func ExampleProcess_Request() {
	type sum struct {
		Cmd  string `json:"cmd"`
		A, B int
	}
	if cluster.IsWorker() {
		cluster.Respond("sum", func(master *cluster.Process, s sum) (int, error) {
			if s.A < 0 || s.B < 0 {
				return 0, errors.New("only natural numbers, please")
			}
			return s.A + s.B, nil
		})
		select {}
	}
	if err := cluster.SetupMaster(cluster.Options{Env: again("ExampleProcess_Request")}); err != nil {
		log.Fatal(err)
	}
	w, err := cluster.Fork()
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var answer int
	err = w.Request(ctx, sum{"sum", 2, 3}, &answer)
	fmt.Println(answer, err)
	err = w.Request(ctx, sum{"sum", 2, -3}, &answer)
	fmt.Println(err)
	w.Disconnect(ctx)

	// Output:
	// 5 <nil>
	// only natural numbers, please
}

// EachWorker speaks to all workers.
func ExampleEachWorker() {
	if cluster.IsWorker() {
		cluster.OnMessage(func(master *cluster.Process, m cluster.Message) {
			master.Send(fmt.Sprintf("%s in slot %d", m, master.Slot()))
		})
		select {}
	}
	if err := cluster.SetupMaster(cluster.Options{Workers: 3, Env: again("ExampleEachWorker")}); err != nil {
		log.Fatal(err)
	}
	var lines sync.WaitGroup
	lines.Add(3)
	defer cluster.OnMessage(func(w *cluster.Process, m cluster.Message) {
		fmt.Println(m)
		lines.Done()
	})()
	if err := cluster.AutoFork(); err != nil {
		log.Fatal(err)
	}
	cluster.EachWorker(func(w *cluster.Process) { w.Send(map[string]bool{"verbose": true}) })
	lines.Wait()
	cluster.Disconnect(context.Background())

	// Unordered output:
	// "{\"verbose\":true} in slot 0"
	// "{\"verbose\":true} in slot 1"
	// "{\"verbose\":true} in slot 2"
}

// Listen takes the place of net.Listen. Port 0 is the same port in all workers.
func ExampleListen() {
	if cluster.IsWorker() {
		ln, err := cluster.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		for {
			c, err := ln.Accept() // waits while the worker is drained
			if err != nil {
				log.Fatal(err)
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}
	if err := cluster.SetupMaster(cluster.Options{Workers: 2, Env: again("ExampleListen")}); err != nil {
		log.Fatal(err)
	}
	addrs := make(chan string, 2)
	defer cluster.OnListening(func(w *cluster.Process, addr net.Addr) { addrs <- addr.String() })()
	if err := cluster.AutoFork(); err != nil {
		log.Fatal(err)
	}
	addr := <-addrs
	fmt.Println("the same port:", addr == <-addrs)

	c, err := net.Dial("tcp", addr)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(c, "echo")
	c.(*net.TCPConn).CloseWrite()
	text, _ := io.ReadAll(c)
	c.Close()
	fmt.Println(string(text))
	cluster.Disconnect(context.Background())

	// Output:
	// the same port: true
	// echo
}

// With RoundRobin the master accepts, and gives each connection to the next
// worker.
func ExampleListenConfig() {
	if cluster.IsWorker() {
		lc := cluster.ListenConfig{Scheduling: cluster.RoundRobin}
		ln, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "slot ", cluster.Worker.Slot())
		})
		if err := cluster.Serve(ln, &http.Server{Handler: handler}); err != nil {
			log.Fatal(err)
		}
		return
	}
	if err := cluster.SetupMaster(cluster.Options{Workers: 2, Env: again("ExampleListenConfig")}); err != nil {
		log.Fatal(err)
	}
	addrs := make(chan string, 2)
	defer cluster.OnListening(func(w *cluster.Process, addr net.Addr) { addrs <- addr.String() })()
	if err := cluster.AutoFork(); err != nil {
		log.Fatal(err)
	}
	<-addrs
	addr := <-addrs
	answered := make(map[string]bool)
	for range 10 {
		body, err := clustertest.Get("http://" + addr)
		if err != nil {
			log.Fatal(err)
		}
		answered[body] = true
	}
	fmt.Println(answered)
	cluster.Disconnect(context.Background())

	// Output: map[slot 0:true slot 1:true]
}

// AllowListen decides which addresses the master opens for its workers.
func ExampleOptions_allowListen() {
	if cluster.IsWorker() {
		_, err := cluster.Listen("tcp", "127.0.0.1:22")
		fmt.Println("access denied:", errors.Is(err, syscall.EACCES))
		return
	}
	err := cluster.SetupMaster(cluster.Options{
		Env: again("ExampleOptions_allowListen"),
		AllowListen: func(w *cluster.Process, network, address string) error {
			if strings.HasSuffix(address, ":22") {
				return errors.New("that port is not ours")
			}
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	dead := make(chan bool)
	defer cluster.OnError(func(w *cluster.Process, err error) { fmt.Println("refused:", err != nil) })()
	defer cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) { close(dead) })()
	if _, err := cluster.Fork(); err != nil {
		log.Fatal(err)
	}
	<-dead

	// Unordered output:
	// refused: true
	// access denied: true
}

// Hooks run during the drain: when nothing is in flight any more and before the
// channel closes, so that they can still send.
func ExampleOnShutdown() {
	if cluster.IsWorker() {
		requests := 0
		cluster.OnShutdown(func(ctx context.Context) error {
			return cluster.Worker.SendContext(ctx, fmt.Sprintf("served %d requests", requests))
		})
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests++
			cluster.Worker.Send("working")
			<-cluster.Context().Done() // the drain has begun
			fmt.Fprintln(w, "a slow answer")
		})
		if err := cluster.ListenAndServe("127.0.0.1:0", handler); err != nil {
			log.Fatal(err)
		}
		return
	}
	if err := cluster.SetupMaster(cluster.Options{Env: again("ExampleOnShutdown")}); err != nil {
		log.Fatal(err)
	}
	answered := make(chan bool)
	defer cluster.OnListening(func(w *cluster.Process, addr net.Addr) {
		go func() {
			body, err := clustertest.Get("http://" + addr.String())
			fmt.Print(body)
			if err != nil {
				fmt.Println(err)
			}
			close(answered)
		}()
	})()
	defer cluster.OnMessage(func(w *cluster.Process, m cluster.Message) {
		if m.String() == `"working"` {
			go w.Disconnect(context.Background())
			return
		}
		<-answered
		fmt.Println(m)
	})()
	dead := make(chan bool)
	defer cluster.OnDeath(func(w *cluster.Process, e cluster.Exit) {
		fmt.Println("exit status", e.Code)
		close(dead)
	})()
	if _, err := cluster.Fork(); err != nil {
		log.Fatal(err)
	}
	<-dead

	// Output:
	// a slow answer
	// "served 1 requests"
	// exit status 0
}
