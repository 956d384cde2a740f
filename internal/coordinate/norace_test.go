//go:build !race

package coordinate

// atBound is as many keys as a cluster may have.
const atBound = MaxKeys
