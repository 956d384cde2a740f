// Package upgrade tests how a master is replaced in place: with real processes, each of
// which is the test binary at a path of its own.
package upgrade
