// Package sharded tests the schedulings Sharded and ByClient, with real processes.
package sharded
