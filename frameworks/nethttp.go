package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"

	"connectrpc.com/connect"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/go-cluster/cluster"
	"github.com/labstack/echo/v4"
	echov5 "github.com/labstack/echo/v5"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// What is an http.Handler needs AutoFork, and ListenAndServe in place of its own.

func helloHTTP() error {
	if err := cluster.AutoFork(); err != nil {
		return err
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
	return cluster.ListenAndServe(addr, nil)
}

func helloGin() error {
	if err := cluster.AutoFork(); err != nil {
		return err
	}
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.GET("/", func(c *gin.Context) { c.String(http.StatusOK, "hello") })
	return cluster.ListenAndServe(addr, r)
}

func helloChi() error {
	if err := cluster.AutoFork(); err != nil {
		return err
	}
	r := chi.NewRouter()
	r.Get("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
	ln, err := cluster.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return cluster.Serve(ln, &http.Server{Handler: r, ReadHeaderTimeout: 5 * time.Second})
}

func helloEcho() error {
	if err := cluster.AutoFork(); err != nil {
		return err
	}
	e := echo.New()
	e.GET("/", func(c echo.Context) error { return c.String(http.StatusOK, "hello") })
	return cluster.ListenAndServe(addr, e)
}

func helloEchoV5() error {
	if err := cluster.AutoFork(); err != nil {
		return err
	}
	e := echov5.New()
	e.GET("/", func(c *echov5.Context) error { return c.String(http.StatusOK, "hello") })
	return cluster.ListenAndServe(addr, e)
}

func helloConnect() error {
	if err := cluster.AutoFork(); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/hello.v1.Hello/Say", connect.NewUnaryHandler("/hello.v1.Hello/Say",
		func(_ context.Context, r *connect.Request[wrapperspb.StringValue]) (*connect.Response[wrapperspb.StringValue], error) {
			return connect.NewResponse(wrapperspb.String("hello " + r.Msg.Value)), nil
		}))
	return cluster.ListenAndServe(addr, mux)
}

// A stream of events ends when its process is asked to stop, and its client comes back
// to another worker.
func helloSSE() error {
	if err := cluster.AutoFork(); err != nil {
		return err
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			fmt.Fprint(w, "data: hello\n\n")
			http.NewResponseController(w).Flush()
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			case <-cluster.Context().Done():
				return
			}
		}
	})
	return cluster.ListenAndServe(addr, nil)
}

func helloProxy() error {
	if err := cluster.AutoFork(); err != nil {
		return err
	}
	backend, err := url.Parse(os.Getenv("BACKEND"))
	if err != nil {
		return err
	}
	return cluster.ListenAndServe(addr, httputil.NewSingleHostReverseProxy(backend))
}
