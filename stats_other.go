//go:build !linux && !windows

package cluster

import (
	"time"

	"github.com/go-cluster/cluster/internal/handle"
)

func residentBytes(int) int64 { return 0 }

func cpuTime(int) time.Duration { return 0 }

func listenQueue(*handle.Handle) (waiting, limit int) { return 0, 0 }
