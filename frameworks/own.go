package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/rpc"
	"os"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/hlog"
	"github.com/cloudwego/hertz/pkg/network/standard"
	"github.com/go-cluster/cluster"
	"github.com/gofiber/fiber/v2"
	fiberv3 "github.com/gofiber/fiber/v3"
	"github.com/tidwall/redcon"
	"github.com/valyala/fasthttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
)

// What has a server of its own is given the cluster's listener by ServeFunc.

func helloFiber() error {
	if err := cluster.AutoFork(); err != nil {
		return err
	}
	app := fiber.New(fiber.Config{DisableStartupMessage: true})
	app.Get("/", func(c *fiber.Ctx) error { return c.SendString("hello") })
	ln, err := cluster.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return cluster.ServeFunc(ln, app.Listener, app.ShutdownWithContext)
}

// A connection that the server itself encrypts cannot say of an answer that it is the
// last. A middleware says it.
func helloFiberTLS() error {
	if err := cluster.AutoFork(); err != nil {
		return err
	}
	app := fiber.New(fiber.Config{DisableStartupMessage: true})
	app.Use(func(c *fiber.Ctx) error {
		select {
		case <-cluster.Stopping():
			c.Set("Connection", "close")
		default:
		}
		return c.Next()
	})
	app.Get("/", func(c *fiber.Ctx) error { return c.SendString("hello") })
	cert, err := tls.LoadX509KeyPair(os.Getenv("CERT"), os.Getenv("KEY"))
	if err != nil {
		return err
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	ln, err := cluster.Listen("tcp", addr)
	if err != nil {
		return err
	}
	serve := func(ln net.Listener) error { return app.Listener(tls.NewListener(ln, config)) }
	return cluster.ServeFunc(ln, serve, app.ShutdownWithContext)
}

func helloFiberV3() error {
	if err := cluster.AutoFork(); err != nil {
		return err
	}
	app := fiberv3.New()
	app.Get("/", func(c fiberv3.Ctx) error { return c.SendString("hello") })
	ln, err := cluster.Listen("tcp", addr)
	if err != nil {
		return err
	}
	serve := func(ln net.Listener) error {
		return app.Listener(ln, fiberv3.ListenConfig{DisableStartupMessage: true})
	}
	return cluster.ServeFunc(ln, serve, app.ShutdownWithContext)
}

func helloFastHTTP() error {
	if err := cluster.AutoFork(); err != nil {
		return err
	}
	s := &fasthttp.Server{Handler: func(c *fasthttp.RequestCtx) { c.WriteString("hello") }}
	ln, err := cluster.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return cluster.ServeFunc(ln, s.Serve, s.ShutdownWithContext)
}

func helloHertz() error {
	if err := cluster.AutoFork(); err != nil {
		return err
	}
	hlog.SetLevel(hlog.LevelError)
	ln, err := cluster.Listen("tcp", addr)
	if err != nil {
		return err
	}
	// Its other transport, netpoll, takes no listener but package net's.
	h := server.New(server.WithListener(ln), server.WithTransport(standard.NewTransporter))
	h.GET("/", func(_ context.Context, c *app.RequestContext) { c.String(200, "hello") })
	return cluster.ServeFunc(ln, func(net.Listener) error { return h.Run() }, h.Shutdown)
}

func helloGRPC() error {
	if err := cluster.AutoFork(); err != nil {
		return err
	}
	s := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	reflection.Register(s)
	ln, err := cluster.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return cluster.ServeFunc(ln, s.Serve, cluster.Graceful(s.GracefulStop, s.Stop))
}

// Hello is a service of net/rpc.
type Hello struct{}

// Say answers a call.
func (Hello) Say(name string, reply *string) error {
	*reply = "hello " + name
	return nil
}

// net/rpc has no word for the end of a connection. One that is idle for a second in a
// drain is closed, and a client that is just sending a call on it has to call again.
func helloRPC() error {
	if err := cluster.AutoFork(); err != nil {
		return err
	}
	if err := rpc.Register(Hello{}); err != nil {
		return err
	}
	ln, err := cluster.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return cluster.ServeFunc(ln, func(ln net.Listener) error { rpc.Accept(ln); return nil },
		func(context.Context) error { return ln.Close() })
}

// Nor has Redis: clients try again on a new connection.
func helloRedcon() error {
	if err := cluster.AutoFork(); err != nil {
		return err
	}
	ln, err := cluster.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s := redcon.NewServer(addr, func(c redcon.Conn, _ redcon.Command) { c.WriteString("hello") }, nil, nil)
	return cluster.ServeFunc(ln, s.Serve, func(context.Context) error { return s.Close() })
}
