package main

import (
	"context"
	"net/http"
	"time"

	coder "github.com/coder/websocket"
	"github.com/go-cluster/cluster"
	gorilla "github.com/gorilla/websocket"
)

// A connection that is a websocket is the program's to end: with 1001, going away, so
// that its client comes back to another worker.

func helloCoder() error {
	if err := cluster.AutoFork(); err != nil {
		return err
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		c, err := coder.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		defer context.AfterFunc(cluster.Context(), func() { c.Close(coder.StatusGoingAway, "") })()
		for {
			kind, msg, err := c.Read(context.Background())
			if err != nil || c.Write(context.Background(), kind, msg) != nil {
				return
			}
		}
	})
	return cluster.ListenAndServe(addr, nil)
}

func helloGorilla() error {
	if err := cluster.AutoFork(); err != nil {
		return err
	}
	var upgrader gorilla.Upgrader
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		c, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		goingAway := gorilla.FormatCloseMessage(gorilla.CloseGoingAway, "")
		defer context.AfterFunc(cluster.Context(), func() {
			c.WriteControl(gorilla.CloseMessage, goingAway, time.Now().Add(time.Second))
		})()
		for {
			kind, msg, err := c.ReadMessage()
			if err != nil || c.WriteMessage(kind, msg) != nil {
				return
			}
		}
	})
	return cluster.ListenAndServe(addr, nil)
}
