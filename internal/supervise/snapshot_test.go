package supervise

import "testing"

// BenchmarkSnapshot is the cost of a Snapshot of 64 workers, which is what Stats
// costs beside its look into /proc: at most 50 µs.
func BenchmarkSnapshot(b *testing.B) {
	n, _ := filled(b, Settings{Workers: 64})
	b.ReportAllocs()
	for b.Loop() {
		n.stats()
	}
}

// BenchmarkNext is the cost of finding the next deadline, which ends every turn.
func BenchmarkNext(b *testing.B) {
	n, _ := filled(b, Settings{Workers: 64})
	b.ReportAllocs()
	for b.Loop() {
		n.m.Next()
	}
}
