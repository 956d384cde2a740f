// Tls serves HTTPS with one worker per core. A client resumes its TLS session on any
// worker, and a reload reads the certificate anew; a broken one fails the reload, and
// the old workers stay.
//
//	go run ./examples/tls -make            makes cert.pem and key.pem
//	go run ./examples/tls
//	curl -k https://localhost:8443
//	go run ./examples/tls -make            and send SIGHUP to the master: the new ones
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/go-cluster/cluster"
)

func main() {
	addr := flag.String("addr", ":8443", "address to listen on")
	cert := flag.String("cert", "cert.pem", "file of the certificate")
	key := flag.String("key", "key.pem", "file of its key")
	generate := flag.Bool("make", false, "make a certificate for localhost and end")
	flag.Parse()
	if *generate {
		if err := makeCertificate(*cert, *key); err != nil {
			log.Fatal(err)
		}
		return
	}

	cluster.OnListening(func(w *cluster.Process, addr net.Addr) {
		fmt.Printf("worker %d listening on %s\n", w.ID(), addr)
	})
	cluster.OnReload(func(r cluster.ReloadResult) { fmt.Printf("reloaded %d workers, error %v\n", r.Replaced, r.Err) })
	// RoundRobin, so that new connections reach the workers in turn.
	if err := cluster.SetupMaster(cluster.Options{Scheduling: cluster.RoundRobin}); err != nil {
		log.Fatal(err)
	}
	if err := cluster.AutoFork(); err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from worker %d; the session is resumed: %t\n", cluster.Worker.ID(), r.TLS.DidResume)
	})
	if err := cluster.ListenAndServeTLS(*addr, *cert, *key, nil); err != nil {
		log.Fatal(err)
	}
}

// makeCertificate writes a certificate that lasts for a day and is signed by itself.
func makeCertificate(certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "localhost"},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(24 * time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	keyBytes, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyBytes}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o644)
}
