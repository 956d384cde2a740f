package quic_test

import (
	"crypto/tls"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/quic"
	"github.com/quic-go/quic-go/http3"
)

// All workers serve HTTP/3 on one port.
func Example() {
	if err := cluster.AutoFork(); err != nil {
		log.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair("cert.pem", "key.pem")
	if err != nil {
		log.Fatal(err)
	}
	ln, err := quic.Listen(":443", http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{cert}}), nil)
	if err != nil {
		log.Fatal(err)
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello from", os.Getpid()) })
	if err := quic.Serve(ln, &http3.Server{Handler: hello}); err != nil {
		log.Fatal(err)
	}
}
