// Package upgrade tests how a master is replaced in place: with real processes, each of
// which is the test binary at a path of its own. Only tests that mostly wait are parallel:
// the others start programs all the time, and would only slow each other down.
package upgrade
