package cluster

import "time"

// patienceIn bounds every wait of the tests inside the package: it ends a test
// that hangs, and measures nothing.
const patienceIn = 30 * time.Second
