package fleet

import (
	"time"

	"golang.org/x/sys/windows"
)

// sinceBoot is a clock that goes on while the machine is suspended.
func sinceBoot() time.Duration { return windows.DurationSinceBoot() }
