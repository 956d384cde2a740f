package main

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/go-cluster/cluster"
)

const (
	askEvery = 100 * time.Millisecond
	askTime  = 2 * time.Second // for one answer
)

// awaitURL makes a worker ready when the URL answers with 2xx. It asks until then, or
// until the worker is gone; cluster.Options.StartTimeout bounds it.
func awaitURL(ctx context.Context, url string, w *cluster.Process) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer w.OnExit(func(*cluster.Process, cluster.Exit) { cancel() })()
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		Timeout:       askTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for !w.IsDead() {
		if says2xx(ctx, &client, url) {
			w.Ready()
			return
		}
		select {
		case <-time.After(askEvery):
		case <-ctx.Done():
			return
		}
	}
}

func says2xx(ctx context.Context, client *http.Client, url string) bool {
	r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return false
	}
	a, err := client.Do(r)
	if err != nil {
		return false
	}
	defer a.Body.Close()
	io.Copy(io.Discard, io.LimitReader(a.Body, 64<<10))
	return a.StatusCode/100 == 2
}
