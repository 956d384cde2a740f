//go:build race

package clustertest

// RaceFactor is how much more memory a program may take under the race detector. Collections
// take long there, and much garbage is made meanwhile.
const RaceFactor = 4
