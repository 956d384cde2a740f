// Package serve tests servers in workers: what is in flight in a drain.
package serve
