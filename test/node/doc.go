// Package node tests this package with node at the other end.
package node
