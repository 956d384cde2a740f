//go:build !linux && !windows

package cluster

import "time"

func residentBytes(int) int64 { return 0 }

func cpuTime(int) time.Duration { return 0 }
