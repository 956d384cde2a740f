package socket

import (
	"math"

	"github.com/go-cluster/cluster/internal/handle"
)

// Budget is as good as infinite: the number of handles is not bounded here.
func Budget() int { return math.MaxInt }

// Fit returns h: the number of a handle does not tell how many there are.
func Fit(h *handle.Handle) *handle.Handle { return h }
