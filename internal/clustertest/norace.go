//go:build !race

package clustertest

const RaceFactor = 1
