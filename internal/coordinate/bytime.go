package coordinate

import "time"

// byTime is a heap, for package container/heap, with the element that is due next in front.
// Each element knows its place in the heap, which is -1 when it is taken out.
type byTime[T timed] []T

type timed interface {
	due() time.Time
	place() *int
}

func (h byTime[T]) Len() int           { return len(h) }
func (h byTime[T]) Less(i, j int) bool { return h[i].due().Before(h[j].due()) }
func (h byTime[T]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	*h[i].place(), *h[j].place() = i, j
}

func (h *byTime[T]) Push(x any) {
	one := x.(T)
	*one.place() = len(*h)
	*h = append(*h, one)
}

func (h *byTime[T]) Pop() any {
	last := len(*h) - 1
	one := (*h)[last]
	clear((*h)[last:])
	*h = (*h)[:last]
	*one.place() = -1
	return one
}
