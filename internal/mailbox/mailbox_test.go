package mailbox

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// TestOrder: each poster's functions run in its order, one at a time.
func TestOrder(t *testing.T) {
	var b Mailbox
	const posters, each = 8, 200
	last := make([]int, posters) // only posted functions touch it: the race detector looks
	var wg sync.WaitGroup
	for p := range posters {
		wg.Go(func() {
			for i := range each {
				b.Post(func() {
					if last[p] == i {
						last[p]++
					}
				})
			}
		})
	}
	wg.Wait()
	b.Call(func() {
		for p := range posters {
			require.Equal(t, each, last[p])
		}
	})
}

// TestPostFromPosted: a posted function may post, and what it posts runs later.
func TestPostFromPosted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Mailbox
		var order []string
		b.Post(func() {
			b.Post(func() { order = append(order, "second") })
			order = append(order, "first")
		})
		synctest.Wait() // the bubble ends only when the goroutine is gone, too
		require.Equal(t, []string{"first", "second"}, order)
	})
}

// TestGoexitInPosted: a function that ends the goroutine keeps no other one back.
func TestGoexitInPosted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Mailbox
		ran := 0
		for range 10 {
			b.Post(func() {
				ran++
				runtime.Goexit()
			})
		}
		b.Call(func() { require.Equal(t, 10, ran) })
	})
}
