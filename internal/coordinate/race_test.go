//go:build race

package coordinate

// atBound is less than MaxKeys, since the race detector makes each step ten times as slow.
const atBound = MaxKeys / 16
