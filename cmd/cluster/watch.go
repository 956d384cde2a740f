package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/go-cluster/cluster"
)

// lookEvery is how often files are looked at. One that has changed must not change any
// more for as long: it may be just being written.
const lookEvery = 500 * time.Millisecond

// reloadOnChange reloads whenever the program's file, or one that an argument names, is
// another one.
func reloadOnChange(ctx context.Context, args []string, program string, log io.Writer) {
	watched := []string{program}
	for _, a := range args[1:] {
		if st, err := os.Stat(a); err == nil && st.Mode().IsRegular() {
			watched = append(watched, a)
		}
	}
	loaded := marks(watched)
	last := loaded
	for {
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return
		}
		now := marks(watched)
		settled := now == last && now != loaded
		last = now
		if !settled {
			continue
		}
		loaded = now
		fmt.Fprintln(log, "a file has changed: reload")
		if err := cluster.Reload(ctx); err != nil {
			fmt.Fprintf(log, "the reload has failed: %s\n", plain(err.Error()))
		} else {
			fmt.Fprintln(log, "reloaded")
		}
	}
}

// marks are by what a change of the files is seen. One that is missing is about to be
// replaced: the mark of that is none.
func marks(paths []string) string {
	var b strings.Builder
	for _, p := range paths {
		st, err := os.Stat(p)
		if err != nil {
			fmt.Fprintln(&b, "missing")
			continue
		}
		fmt.Fprintln(&b, st.Size(), st.ModTime().UnixNano(), inode(st))
	}
	return b.String()
}
