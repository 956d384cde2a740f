// Package examples tests the example programs.
package examples
