package systemd

import "time"

// supported: there is no service manager of this kind.
const supported = false

func monotonic() time.Duration { return 0 }

// Sockets are none.
func Sockets() []Socket { return nil }

// Descriptors returns none.
func Descriptors() []int { return nil }
