package sharded_test

import (
	"testing"

	"github.com/go-cluster/cluster/internal/clustertest"
)

func TestMain(m *testing.M) { clustertest.Main(m) }
