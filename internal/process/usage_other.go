//go:build !linux && !windows

package process

import "time"

// Resident is 0: it cannot be told here.
func Resident(int) int64 { return 0 }

// CPU is 0: it cannot be told here.
func CPU(int) time.Duration { return 0 }
