// Package bench has the benchmarks, each beside a baseline of the same run: see BENCHMARKS.md.
package bench
