// Frameworks runs the hello of one framework as a cluster: each is what its own
// documentation begins with, and at most five lines more. The test of this module
// starts each, puts load on it, reloads it five times and stops it, and counts the
// requests that are lost. docs/frameworks.md shows the lines.
//
//	go run . gin        then curl localhost:8000, kill -HUP and kill
package main

import (
	"fmt"
	"log"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/go-cluster/cluster"
)

// hellos are the programs, by the name of their framework.
var hellos = map[string]func() error{
	"net/http": helloHTTP, "gin": helloGin, "chi": helloChi, "echo": helloEcho, "echo v5": helloEchoV5,
	"fiber": helloFiber, "fiber tls": helloFiberTLS, "fiber v3": helloFiberV3, "fasthttp": helloFastHTTP, "hertz": helloHertz,
	"grpc": helloGRPC, "connect": helloConnect, "coder websocket": helloCoder, "gorilla websocket": helloGorilla,
	"sse": helloSSE, "proxy": helloProxy, "net/rpc": helloRPC, "redcon": helloRedcon,
	"fx": helloFx, "errgroup": helloErrgroup, "cobra": helloCobra,
}

// addr is where all of them listen.
var addr = ":8000"

func main() {
	name := strings.Join(os.Args[1:], " ")
	hello := hellos[name]
	if hello == nil {
		log.Fatalf("no %q; there are: %s", name, strings.Join(slices.Sorted(maps.Keys(hellos)), ", "))
	}
	if a := os.Getenv("ADDR"); a != "" {
		addr = a
	}
	// What the test looks at.
	cluster.OnListening(func(w *cluster.Process, addr net.Addr) { fmt.Println("listening", w.ID(), addr) })
	cluster.OnReload(func(r cluster.ReloadResult) { fmt.Println("reloaded", r.Replaced, r.Took, r.Err) })
	if err := hello(); err != nil {
		log.Fatal(err)
	}
}
