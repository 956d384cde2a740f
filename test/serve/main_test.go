// Package serve_test has the tests of how workers serve: with certificates and session tickets,
// with servers that are not net/http's, and while a stop is announced.
package serve_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-cluster/cluster"
	"github.com/go-cluster/cluster/internal/clustertest"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { clustertest.Main(m) }

// The settings of the program server.
const (
	modeEnv = "CLUSTER_TEST_MODE" // how it serves
	addrEnv = "CLUSTER_TEST_ADDR"
	certEnv = "CLUSTER_TEST_CERT" // the directory of the certificate
)

// server is a worker that answers with its pid.
var server = clustertest.Program("server", func() {
	addr := os.Getenv(addrEnv)
	cert, key := pair(os.Getenv(certEnv))
	srv := &http.Server{Handler: http.HandlerFunc(answer), ErrorLog: log.New(io.Discard, "", 0)}
	var err error
	switch os.Getenv(modeEnv) {
	case "listenAndServe":
		err = cluster.ListenAndServeTLS(addr, cert, key, srv.Handler)
	case "serve":
		err = cluster.ServeTLS(mustListen(addr), srv, cert, key)
	case "config":
		pair, loadErr := tls.LoadX509KeyPair(cert, key)
		clustertest.Must(loadErr)
		srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}}
		err = cluster.ServeTLS(mustListen(addr), srv, "", "")
	case "share":
		pair, loadErr := tls.LoadX509KeyPair(cert, key)
		clustertest.Must(loadErr)
		config := &tls.Config{Certificates: []tls.Certificate{pair}}
		cluster.ShareTickets(config)
		err = cluster.Serve(tls.NewListener(mustListen(addr), config), srv)
	case "func":
		err = cluster.ServeFunc(mustListen(addr), srv.Serve, srv.Shutdown)
	default:
		err = errors.New("no such mode")
	}
	clustertest.Must(err)
})

func mustListen(addr string) net.Listener {
	ln, err := cluster.Listen("tcp", addr)
	clustertest.Must(err)
	return ln
}

func answer(w http.ResponseWriter, r *http.Request) {
	select {
	case <-cluster.Stopping():
		w.Header().Set("Stopping", "true")
	default:
	}
	w.Header().Set("Generation", os.Getenv("GENERATION"))
	if r.Method == http.MethodPost {
		io.Copy(w, r.Body)
		return
	}
	fmt.Fprint(w, os.Getpid())
}

// pair are the files of the certificate in dir.
func pair(dir string) (cert, key string) {
	return filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
}

// writeCert puts a new certificate for the name into dir.
func writeCert(t *testing.T, dir, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	certFile, keyFile := pair(dir)
	require.NoError(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600))
}

// startTLS runs n workers that serve in the mode, with the certificate in dir.
func startTLS(t *testing.T, n int, mode, dir string) (addr string) {
	t.Helper()
	addr = clustertest.UnusedAddress(t, "tcp", "")
	clustertest.WithMaster(t, server, cluster.Options{
		Workers: n, Scheduling: cluster.RoundRobin, ReadyFor: time.Millisecond,
		Env: []string{modeEnv + "=" + mode, addrEnv + "=" + addr, certEnv + "=" + dir},
	})
	require.NoError(t, cluster.AutoFork())
	clustertest.Eventually(t, allReady, "all are ready")
	return addr
}

func allReady() bool {
	for _, w := range cluster.Workers() {
		if w.State() != cluster.Ready {
			return false
		}
	}
	return true
}

// who is a worker that has answered.
type who struct {
	pid, cert string
	resumed   bool
	proto     string
}

// ask gets an answer on a new connection.
func ask(t *testing.T, addr string, config *tls.Config) (a who) {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr, Timeout: clustertest.Patience}).Get("https://" + addr)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return who{string(body), resp.TLS.PeerCertificates[0].Subject.CommonName, resp.TLS.DidResume, resp.Proto}
}

// A certificate is read by each new worker, before its first Accept: a reload renews
// it, and with a broken one it fails and the old workers stay.
func TestCertificateIsRenewed(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	for _, mode := range []string{"listenAndServe", "serve", "config", "share"} {
		t.Run(mode, func(t *testing.T) {
			dir := clustertest.TempDir(t)
			writeCert(t, dir, "first")
			addr := startTLS(t, 2, mode, dir)
			client := &tls.Config{InsecureSkipVerify: true}
			a := ask(t, addr, client)
			require.Equal(t, "first", a.cert)
			if mode != "share" {
				require.Equal(t, "HTTP/2.0", a.proto)
			}
			old := cluster.Workers()
			cert, _ := pair(dir)
			require.NoError(t, os.WriteFile(cert, []byte("broken"), 0o600))
			require.Error(t, cluster.Reload(clustertest.Within(t, clustertest.Patience)))
			require.Equal(t, old, cluster.Workers())
			for range 4 {
				require.Equal(t, "first", ask(t, addr, client).cert)
			}
			writeCert(t, dir, "second")
			require.NoError(t, cluster.Reload(clustertest.Within(t, clustertest.Patience)))
			for range 4 {
				require.Equal(t, "second", ask(t, addr, client).cert)
			}
		})
	}
}

// A client resumes its session on any worker, before a reload and after it, by TLS 1.2
// and 1.3.
func TestSessionsAreResumed(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	for _, mode := range []string{"listenAndServe", "serve", "config", "share"} {
		t.Run(mode, func(t *testing.T) {
			dir := clustertest.TempDir(t)
			writeCert(t, dir, "test")
			addr := startTLS(t, 3, mode, dir)
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				client := &tls.Config{
					InsecureSkipVerify: true, MinVersion: version, MaxVersion: version,
					ServerName: "test", ClientSessionCache: tls.NewLRUClientSessionCache(10),
				}
				require.False(t, ask(t, addr, client).resumed)
				for range 2 {
					seen := make(map[string]bool)
					for range 100 {
						a := ask(t, addr, client)
						require.True(t, a.resumed, "a session of %s", tls.VersionName(version))
						if seen[a.pid] = true; len(seen) == 3 {
							break
						}
					}
					require.Len(t, seen, 3)
					require.NoError(t, cluster.Reload(clustertest.Within(t, clustertest.Patience)))
				}
			}
		})
	}
}

// Without a cluster all of it is net/http's.
func TestServePlain(t *testing.T) {
	dir := clustertest.TempDir(t)
	writeCert(t, dir, "plain")
	cert, key := pair(dir)
	for mode, serve := range map[string]func(net.Listener, *http.Server) error{
		"TLS":  func(ln net.Listener, s *http.Server) error { return cluster.ServeTLS(ln, s, cert, key) },
		"func": func(ln net.Listener, s *http.Server) error { return cluster.ServeFunc(ln, s.Serve, s.Shutdown) },
	} {
		t.Run(mode, func(t *testing.T) {
			clustertest.CheckLeaks(t)
			ln, err := cluster.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			srv := &http.Server{Handler: http.HandlerFunc(answer)}
			served := make(chan error, 1)
			go func() { served <- serve(ln, srv) }()
			if mode == "TLS" {
				require.Equal(t, "plain", ask(t, ln.Addr().String(), &tls.Config{InsecureSkipVerify: true}).cert)
			} else {
				_, err := clustertest.Get("http://" + ln.Addr().String())
				require.NoError(t, err)
			}
			require.NoError(t, srv.Close())
			require.ErrorIs(t, clustertest.Await(t, served, "the end"), http.ErrServerClosed)
		})
	}
	cluster.ShareTickets(&tls.Config{})
	require.Error(t, cluster.ListenAndServeTLS("127.0.0.1:0", "no such file", "no such file", nil))
	select {
	case <-cluster.Stopping():
		t.Fatal("nothing stops")
	default:
	}
}

// A server that is not package net/http's loses no request of a client that keeps its
// connection, in reload after reload.
func TestServeFuncLosesNothing(t *testing.T) {
	if clustertest.Apart(t) {
		return
	}
	addr := clustertest.UnusedAddress(t, "tcp", "")
	clustertest.WithMaster(t, server, cluster.Options{
		Workers: 2, ReadyFor: time.Millisecond, Env: []string{modeEnv + "=func", addrEnv + "=" + addr},
	})
	l := &clustertest.Load{T: t, Network: "tcp", HTTP: addr, Body: []byte("request"), Stop: make(chan struct{})}
	reloads, requests := 3, int64(1000)
	if clustertest.Long() {
		reloads, requests = 20, 100_000
	}
	clustertest.LoseNothing(t, l, reloads, requests, 1, l.KeepAlive(), l.KeepAlive(), l.KeepAlive(), l.KeepAlive(), l.OneShot, l.OneShot)
}

// Graceful calls stop once, and force if that does not return in time.
func TestGraceful(t *testing.T) {
	var calls []string
	shutdown := cluster.Graceful(func() { calls = append(calls, "stop") }, func() { calls = append(calls, "force") })
	require.NoError(t, shutdown(t.Context()))
	require.NoError(t, shutdown(t.Context()))
	require.Equal(t, []string{"stop"}, calls)

	forced := make(chan struct{})
	shutdown = cluster.Graceful(func() { <-forced }, sync.OnceFunc(func() { close(forced) }))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, shutdown(ctx), context.Canceled)
	clustertest.Await(t, forced, "force")
}

// graceful serves lines by a server that has to be stopped at once: each connection
// says goodbye, and waits for its client.
var graceful = clustertest.Program("graceful", func() {
	if cluster.IsMaster() {
		clustertest.Must(cluster.SetupMaster(cluster.Options{Workers: 1}))
		cluster.OnListening(func(_ *cluster.Process, addr net.Addr) { fmt.Println("listening", addr) })
		clustertest.Must(cluster.Run(context.Background()))
		return
	}
	ln := mustListen("127.0.0.1:0")
	stopping := make(chan struct{})
	var conns sync.WaitGroup
	serve := func(ln net.Listener) error {
		for {
			c, err := ln.Accept()
			if err != nil {
				return err
			}
			conns.Go(func() {
				defer c.Close()
				io.WriteString(c, "hello\n")
				<-stopping
				io.WriteString(c, "goodbye\n")
				io.Copy(io.Discard, c) // the client has the last word
			})
		}
	}
	clustertest.Must(cluster.ServeFunc(ln, serve, cluster.Graceful(func() {
		close(stopping)
		ln.Close()
		conns.Wait()
	}, func() { fmt.Println("forced") })))
	fmt.Println("served")
})

// What Graceful was given to stop with is called in the beginning of the drain, and
// ends it as soon as it returns.
func TestGracefulAtOnce(t *testing.T) {
	t.Parallel()
	p := clustertest.Start(t, graceful)
	c, err := net.Dial("tcp", p.Expect("listening"))
	require.NoError(t, err)
	defer c.Close()
	c.SetDeadline(time.Now().Add(clustertest.Patience))
	b := make([]byte, len("hello\n"))
	_, err = io.ReadFull(c, b)
	require.NoError(t, err)
	p.Signal(syscall.SIGTERM)
	b = make([]byte, len("goodbye\n"))
	_, err = io.ReadFull(c, b)
	require.NoError(t, err)
	require.Equal(t, "goodbye\n", string(b))
	c.Close()
	p.Expect("served")
	require.Equal(t, 0, p.Exit())
	require.False(t, strings.Contains(p.Output(), "forced"))
}
