// Package hostile tests what workers and others do to a cluster that they should not, and
// what befalls it.
package hostile
