// Command house checks that the walls of the repository stand.
//
//	go run ./.ci/house graph    which package imports which
//	go run ./.ci/house sizes    how long files, functions and method sets are
//	go run ./.ci/house purity   what the supervisor's state machine may not use
//
// It prints one line for each fault and exits with 1 if there is any. The
// directory begins with a dot, so ./... leaves it out.
package main

import (
	"fmt"
	"os"
)

var checks = map[string]func() ([]string, error){
	"graph":  graph,
	"sizes":  sizes,
	"purity": purity,
}

func main() {
	if len(os.Args) != 2 || checks[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: house graph|sizes|purity")
		os.Exit(2)
	}
	faults, err := checks[os.Args[1]]()
	if err != nil {
		fmt.Fprintln(os.Stderr, "house:", err)
		os.Exit(2)
	}
	for _, f := range faults {
		fmt.Println(f)
	}
	if len(faults) > 0 {
		os.Exit(1)
	}
}
