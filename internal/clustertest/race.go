//go:build race

package clustertest

// RaceFactor is how much more memory things take than without the race
// detector, whose collections take so long that much is made meanwhile.
const RaceFactor = 4
