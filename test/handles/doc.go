// Package handles tests the handles that go with messages, between processes.
package handles
