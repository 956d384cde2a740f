//go:build race

package cluster_test

// raceFactor is how much more memory things take than without the race
// detector, whose collections take so long that much is made meanwhile.
const raceFactor = 4
