//go:build !race

package cluster_test

const raceFactor = 1
