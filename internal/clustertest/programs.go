package clustertest

import (
	"fmt"
	"os"
	"strconv"
)

// Failing is a worker that exits with the status EXIT as soon as it runs.
var Failing = Program("failing", func() { os.Exit(Atoi(os.Getenv("EXIT"))) })

// Printing is a worker that writes the line STDERR to its standard error and
// as many zeros as ZEROS says to its standard output, and exits with EXIT.
var Printing = Program("printing", func() {
	if line := os.Getenv("STDERR"); line != "" {
		fmt.Fprintln(os.Stderr, line)
	}
	n, _ := strconv.Atoi(os.Getenv("ZEROS"))
	os.Stdout.Write(make([]byte, n))
	os.Exit(Atoi(os.Getenv("EXIT")))
})

// Alternating is a worker that writes a line to each of its standard files in
// turn.
var Alternating = Program("alternating", func() {
	for i := 1; i <= 9; i++ {
		fmt.Fprintf(os.Stdout, "o%d\n", i)
		fmt.Fprintf(os.Stderr, "e%d\n", i)
	}
})
