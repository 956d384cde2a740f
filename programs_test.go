package cluster_test

import (
	"fmt"
	"os"
	"strconv"
)

// failing is a worker that exits with the status EXIT as soon as it runs.
var failing = program("failing", func() { os.Exit(atoi(os.Getenv("EXIT"))) })

// printing is a worker that writes the line STDERR to its standard error and
// as many zeros as ZEROS says to its standard output, and exits with EXIT.
var printing = program("printing", func() {
	if line := os.Getenv("STDERR"); line != "" {
		fmt.Fprintln(os.Stderr, line)
	}
	n, _ := strconv.Atoi(os.Getenv("ZEROS"))
	os.Stdout.Write(make([]byte, n))
	os.Exit(atoi(os.Getenv("EXIT")))
})

// alternating is a worker that writes a line to each of its standard files in
// turn.
var alternating = program("alternating", func() {
	for i := 1; i <= 9; i++ {
		fmt.Fprintf(os.Stdout, "o%d\n", i)
		fmt.Fprintf(os.Stderr, "e%d\n", i)
	}
})
